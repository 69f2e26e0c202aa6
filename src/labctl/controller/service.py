"""What people and programs may ask of the controller; the control API and nothing else calls it.

Everything here is a wish written to the store, or a look at what is known. No method switches anything: the
loop decides, so that holds, leases, pauses and the budget win over whoever asks. Methods may be called from
any thread. Names of hosts are checked here, once.

All methods raise ``LabctlError`` (``StoreError`` among them) when they cannot do what was asked: an unknown
host, a store that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from labctl.controller import statuses
from labctl.controller.answers import Change, Explanation, HostStatus, RackStatus, TestStep, Ticket
from labctl.controller.board import Board, Picture
from labctl.controller.energy import account_of
from labctl.controller.hands import Hands
from labctl.controller.means import Means
from labctl.controller.sleeptest import SleepTests
from labctl.domain.energy.account import Account
from labctl.domain.energy.terms import Grain, Spent
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.terms import Hold, Wish
from labctl.ports.store import ANY, Happening, Sought

WAKE_LASTS_S = 900.0
"""How long a wish that a host be awake lives, unless its maker says otherwise."""

IDLE_LASTS_S = 12 * 3600.0
"""How long a wish that a host sleep as soon as nothing is against it lives."""

NOW_LASTS_S = 300.0
"""How long a wish that a host sleep now lives; the first reason against it ends it sooner."""

_RECENT = 10


class Asked(Protocol):
    """The facade, as the server of the control API sees it; ``Service`` is it."""

    def hosts(self) -> tuple[str, ...]:
        """Return the names of all hosts, in the order of the rack file."""
        ...

    def wake(
        self, hosts: Sequence[str], *, why: str, by: str, lasts_s: float = WAKE_LASTS_S
    ) -> tuple[Ticket, ...]:
        """Wish hosts awake for so many seconds; a wish that one sleep ends. Returns at once."""
        ...

    def suspend(
        self, hosts: Sequence[str], *, why: str, by: str, when_idle: bool = False, force: bool = False
    ) -> tuple[Ticket, ...]:
        """Wish hosts asleep; returns at once.

        With ``when_idle`` the wish waits until nothing is against it, else it ends with the first reason.
        ``force`` skips the signals of the host, never leases, holds, wishes to be awake or a pause.
        """
        ...

    def follow(self, tickets: Sequence[Ticket], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        """Yield each ticket's host now and whenever its mode or reason changes, until all have an ``ok``.

        Yields None whenever nothing happened for ``patience_s``, so that the caller can look whether anybody
        still listens; closing the iterator leaves the wishes as they are (see ``forget``).
        """
        ...

    def forget(self, tickets: Sequence[Ticket]) -> None:
        """End wishes that nobody waits for any more."""
        ...

    def watch(self, hosts: Sequence[str], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        """Yield each host (none named: all) now and whenever it changes, for ever; None as in ``follow``."""
        ...

    def hold(self, host: str, *, lasts_s: float, why: str, by: str) -> Hold:
        """Keep a host awake for so many seconds; it is not woken for it."""
        ...

    def release(self, host: str, *, by: str, hold: int | None = None) -> int:
        """End one hold, or all of a host; return how many ended."""
        ...

    def pause(self, host: str | None, *, why: str, by: str) -> None:
        """Hands off a host (None: all of them) until ``resume``, over restarts."""
        ...

    def resume(self, host: str | None, *, by: str) -> None:
        """End a pause, and the quarantine of a host."""
        ...

    def nudge(self, host: str) -> None:
        """Look at the store at once: there is something new of a host (empty: of some)."""
        ...

    def status(self) -> RackStatus:
        """Return the rack as it is known now; works without the store, from what was read last."""
        ...

    def explain(self, host: str) -> Explanation:
        """Return why a host is in its mode and what keeps it awake."""
        ...

    def events(
        self, *, host: str | None = None, after: int = 0, most: int = 100, only: Sought = ANY
    ) -> Sequence[Happening]:
        """Return the newest lines of the kept log past the id ``after`` that are sought, oldest first."""
        ...

    def energy(self, hosts: Sequence[str], *, for_s: float) -> Account:
        """Return what hosts (none named: all) used in the last ``for_s``, and what their sleep saved."""
        ...

    def energy_spans(self, hosts: Sequence[str], grain: Grain, *, for_s: float) -> Sequence[Spent]:
        """Return what hosts used, span by span, the oldest first."""
        ...

    def sleep_test(
        self, host: str, *, cycles: int = 3, by: str, patience_s: float = 5.0
    ) -> Iterator[TestStep | None]:
        """Begin a sleep test and yield its steps; the last has an ``ok``. None as in ``follow``.

        The test runs in the controller: who stops listening does not stop it. One runs on a host at a time.
        """
        ...

    def end_test(self, host: str, *, by: str) -> bool:
        """Stop a host's sleep test after the step that it is in; return whether one ran."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A wish that somebody may follow: when it was written (mono), and the picture that there was then.

    ``one_shot``: the first reason against it ends it.
    """

    wish: Wish
    at: float
    number: int
    one_shot: bool


class Service:
    """``Asked``, over the store and the loop's board; ``nudge`` makes the loop tick at once."""

    def __init__(self, means: Means, board: Board, hands: Hands, nudge: Callable[[str], None]) -> None:
        self._means, self._board, self._hands, self._nudge = means, board, hands, nudge
        self._asked: dict[int, _Asked] = {}
        self._tests = SleepTests(means, board, nudge)

    def hosts(self) -> tuple[str, ...]:
        """Return the names of all hosts; see ``Asked``."""
        return tuple(self._means.policy.hosts)

    def wake(
        self, hosts: Sequence[str], *, why: str, by: str, lasts_s: float = WAKE_LASTS_S
    ) -> tuple[Ticket, ...]:
        """Wish hosts awake; see ``Asked``."""
        now = self._means.doors.wall()
        asked = [Wish(0, host, by, why, now, now + lasts_s) for host in self._known_names(hosts)]
        return self._wish(asked, "awake", one_shot=False)

    def suspend(
        self, hosts: Sequence[str], *, why: str, by: str, when_idle: bool = False, force: bool = False
    ) -> tuple[Ticket, ...]:
        """Wish hosts asleep; see ``Asked``."""
        now = self._means.doors.wall()
        until = now + (IDLE_LASTS_S if when_idle else NOW_LASTS_S)
        asked = [
            Wish(0, host, by, why, now, until, sleep=True, force=force) for host in self._known_names(hosts)
        ]
        return self._wish(asked, "asleep", one_shot=not when_idle)

    def _wish(
        self, asked: Sequence[Wish], wants: Literal["awake", "asleep"], *, one_shot: bool
    ) -> tuple[Ticket, ...]:
        tickets, now = [], self._means.doors.wall()
        for number in [one for one, kept in self._asked.copy().items() if kept.wish.until < now]:
            self._asked.pop(number, None)  # nobody followed it
        for wish in asked:
            kept = self._means.doors.store.wish(wish, now=wish.at)
            number = self._board.picture().number
            self._asked[kept.id] = _Asked(kept, self._means.doors.mono(), number, one_shot)
            self._nudge(kept.host)
            tickets.append(Ticket(kept.host, kept.id, wants))
        return tuple(tickets)

    def follow(self, tickets: Sequence[Ticket], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        """Yield what becomes of tickets; see ``Asked``."""
        left = {ticket.wish: ticket for ticket in tickets}
        said: dict[int, Change] = {}
        picture: Picture | None = self._board.picture()
        number = 0 if picture is None else picture.number
        while left:
            if picture is None:
                yield None
            else:
                number = picture.number
                for ticket in tuple(left.values()):
                    change = self._became(picture, ticket)
                    if change is not None and change != said.get(ticket.wish):
                        said[ticket.wish] = change
                        if change.ok is not None:
                            del left[ticket.wish]
                        yield change
            if left:
                picture = self._board.newer(number, patience_s)

    def _became(self, picture: Picture, ticket: Ticket) -> Change | None:
        """Return what to say of a ticket; None: the picture is older than the wish."""
        kept = self._asked.get(ticket.wish)
        if kept is None or picture.moment.mono < kept.at or picture.number <= kept.number:
            return None
        wish = kept.wish
        change = statuses.became_of(self._means.policy, picture, ticket, wish, one_shot=kept.one_shot)
        if change is None:
            return statuses.change_of(picture, ticket.host)
        if change.ok is False and ticket.wants == "asleep":
            change = replace(
                change, because=statuses.reason_against(self._means.policy, picture, ticket.host, wish)
            )
        if change.ok and ticket.wants == "awake":
            self._asked.pop(
                ticket.wish, None
            )  # the loop ends it: whoever asked is to have the host for a while
        else:
            self.forget([ticket])
        return change

    def forget(self, tickets: Sequence[Ticket]) -> None:
        """End wishes that nobody waits for any more; see ``Asked``."""
        for ticket in tickets:
            self._asked.pop(ticket.wish, None)
            self._means.doors.store.end_wish(ticket.wish, now=self._means.doors.wall())
        self._nudge("")

    def watch(self, hosts: Sequence[str], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        """Yield changes of hosts; see ``Asked``."""
        names = self._known_names(hosts) if hosts else self.hosts()
        said: dict[str, Change] = {}
        picture: Picture | None = self._board.picture()
        number = 0
        while True:
            if picture is None:
                yield None
            else:
                number = picture.number
                for name in names:
                    change = statuses.change_of(picture, name)
                    if said.get(name) != change:
                        said[name] = change
                        yield change
            picture = self._board.newer(number, patience_s)

    def hold(self, host: str, *, lasts_s: float, why: str, by: str) -> Hold:
        """Keep a host awake; see ``Asked``."""
        (name,), now = self._known_names([host]), self._means.doors.wall()
        held = self._means.doors.store.hold(name, why, by, until=now + lasts_s, now=now)
        self._nudge(name)
        return held

    def release(self, host: str, *, by: str, hold: int | None = None) -> int:
        """End holds; see ``Asked``."""
        (name,) = self._known_names([host])
        ended = self._means.doors.store.release_hold(name, hold=hold, by=by, now=self._means.doors.wall())
        self._nudge(name)
        return ended

    def pause(self, host: str | None, *, why: str, by: str) -> None:
        """Hands off; see ``Asked``."""
        name = None if host is None else self._known_names([host])[0]
        self._means.doors.store.pause(name, why, by, now=self._means.doors.wall())
        self._nudge(name or "")

    def resume(self, host: str | None, *, by: str) -> None:
        """End a pause; see ``Asked``."""
        name = None if host is None else self._known_names([host])[0]
        self._means.doors.store.resume(name, by, now=self._means.doors.wall())
        self._nudge(name or "")

    def nudge(self, host: str) -> None:
        """Look at the store at once; see ``Asked``."""
        self._nudge(host)

    def status(self) -> RackStatus:
        """Return the rack as it is known; see ``Asked``."""
        picture, doors = self._board.picture(), self._means.doors
        doing = {**self._hands.doing(), **self._tests.doing()}
        return RackStatus(
            at=doors.wall(),
            leader=picture.leader,
            leading=picture.leading,
            store=picture.store,
            paused=picture.known.paused,
            ticked_s=max(0.0, doors.mono() - picture.moment.mono) if picture.number else None,
            hosts=tuple(self._status(picture, host, doing) for host in self.hosts()),
        )

    def _status(self, picture: Picture, host: str, doing: Mapping[str, str]) -> HostStatus:
        status = statuses.status_of(self._means.policy, picture, host, doing)
        return replace(status, counts=self._means.tally.of(host))

    def explain(self, host: str) -> Explanation:
        """Return why a host is as it is; see ``Asked``."""
        (name,), picture = self._known_names([host]), self._board.picture()
        doing = {**self._hands.doing(), **self._tests.doing()}
        status = self._status(picture, name, doing)
        store = self._means.doors.store
        turns = store.happenings(host=name, most=_RECENT, only=statuses.TURNS)
        told = statuses.Told(store.happenings(host=name, most=_RECENT), turns)
        now = self._means.times.moment()
        return statuses.explanation_of(self._means.policy, picture, status, told, now)

    def events(
        self, *, host: str | None = None, after: int = 0, most: int = 100, only: Sought = ANY
    ) -> Sequence[Happening]:
        """Return lines of the kept log; see ``Asked``."""
        name = None if host is None else self._known_names([host])[0]
        return self._means.doors.store.happenings(host=name, after=after, most=most, only=only)

    def energy(self, hosts: Sequence[str], *, for_s: float) -> Account:
        """Return what hosts used; see ``Asked``."""
        means = self._means
        names = self._known_names(hosts) if hosts else self.hosts()
        return account_of(means.doors.store, means.energy, names, now=means.doors.wall(), for_s=for_s)

    def energy_spans(self, hosts: Sequence[str], grain: Grain, *, for_s: float) -> Sequence[Spent]:
        """Return what hosts used, span by span; see ``Asked``."""
        names, now = self._known_names(hosts), self._means.doors.wall()
        since = int(now - for_s)
        since -= since % grain
        return self._means.doors.store.spans(grain, since=since, until=int(now) + 1, hosts=names)

    def sleep_test(
        self, host: str, *, cycles: int = 3, by: str, patience_s: float = 5.0
    ) -> Iterator[TestStep | None]:
        """Begin a sleep test; see ``Asked``."""
        (name,) = self._known_names([host])
        return self._tests.begin(name, cycles, by).steps(patience_s)

    def end_test(self, host: str, *, by: str) -> bool:
        """Stop a host's sleep test; see ``Asked``."""
        (name,) = self._known_names([host])
        return self._tests.end(name, by)

    def stop(self) -> None:
        """End all tests; the process ends."""
        self._tests.stop()

    def _known_names(self, hosts: Sequence[str]) -> tuple[str, ...]:
        unknown = [host for host in hosts if host not in self._means.policy.hosts]
        if unknown:
            raise LabctlError(
                f"there is no host {unknown[0]!r} in the controller's rack file",
                hint=f"it knows {', '.join(self.hosts())}",
            )
        return tuple(dict.fromkeys(hosts))
