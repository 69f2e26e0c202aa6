"""Carry a request out: one function for each verb, from fields to lines, of which the last has ``done``.

Lines that come before the last are news: what a person who waits wants to see. While nothing happens a line
``alive`` goes out now and then, since whoever comes by SSH gives a silent side up. When the client hangs up
the waiting ends and nothing else: what was wished stays wished.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from labctl.controller.answers import Change, HostStatus, TestStep, Ticket
from labctl.controller.api import ALIVE_S, shown
from labctl.controller.api.peers import Peer
from labctl.controller.api.server import Gone
from labctl.controller.api.words import MOST_EVENTS, VERBS, Request, SaidError
from labctl.controller.service import WAKE_LASTS_S, Asked
from labctl.domain.energy.terms import Grain
from labctl.ports.store import Sought

News = Mapping[str, Any]
_PATIENCE_S = 1.0
"""How soon it is noticed that a client hung up."""
_FOLLOW_S = 0.5
"""How often the log is looked at for somebody who follows it."""

_Item = TypeVar("_Item")


class Verbs:
    """Answers requests by asking the controller; ``answer`` is called from a thread of each client's own."""

    def __init__(self, service: Asked, monotonic: Callable[[], float]) -> None:
        self._service = service
        self._monotonic = monotonic
        self._carry: Mapping[str, Callable[[Request, str, Gone], Iterator[News]]] = {
            "wake": self._wake,
            "suspend": self._suspend,
            "hold": self._hold,
            "release": self._release,
            "pause": self._pause,
            "resume": self._resume,
            "status": self._status,
            "explain": self._explain,
            "events": self._events,
            "sleep-test": self._sleep_test,
            "nudge": self._nudge,
            "energy": self._energy,
        }
        assert self._carry.keys() == VERBS.keys()

    def answer(self, request: Request, peer: Peer, gone: Gone) -> Iterator[News]:
        """Carry a request out for a peer.

        Raises:
            SaidError: it cannot be; nothing was changed, unless the text says otherwise.
            LabctlError: the controller refuses it.
        """
        return self._carry[request.do](request, peer.called(request.by), gone)

    # -- awake and asleep

    def _wake(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts, asked = self._known(request.fields["hosts"]), request.fields
        lasts_s = max(WAKE_LASTS_S, asked["timeout_s"])
        tickets = self._service.wake(hosts, why=asked["why"], by=by, lasts_s=lasts_s)
        yield from self._becomes(tickets, request, gone)

    def _suspend(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts, asked = self._known(request.fields["hosts"]), request.fields
        if asked["force"] and not asked["why"].strip():
            raise SaidError("bad-field", 'suspend: "force" needs "why"', "it is kept in the log of the host")
        tickets = self._service.suspend(
            hosts, why=asked["why"], by=by, when_idle=asked["when_idle"], force=asked["force"]
        )
        yield from self._becomes(tickets, request, gone)

    def _becomes(self, tickets: Sequence[Ticket], request: Request, gone: Gone) -> Iterator[News]:
        """Yield what becomes of the tickets, for as long as somebody waits for it."""
        if not request.fields["wait"]:
            status = {one.host: one for one in self._service.status().hosts}
            yield _done({one.host: _at_once(one, status.get(one.host)) for one in tickets})
            return
        end = self._monotonic() + request.fields["timeout_s"]
        latest: dict[str, Change] = {}
        wishes = {one.host: one.wish for one in tickets}
        follow = self._service.follow(tickets, patience_s=_PATIENCE_S)
        for change in self._listen(follow, gone, end):
            if isinstance(change, Change):
                latest[change.host] = change
                yield shown.change(change)
            else:
                yield change
        yield _done(
            {
                host: {**_end(latest.get(host)), "wish": None if _over(latest.get(host)) else wish}
                for host, wish in wishes.items()
            }
        )

    def _listen(
        self, items: Iterator[_Item | None], gone: Gone, end: float = float("inf")
    ) -> Generator[_Item | News]:
        """Yield items until they or the time end, with signs of life while there are none."""
        said = self._monotonic()
        try:
            for item in items:
                now = self._monotonic()
                if item is not None:
                    said = now
                    yield item
                elif now - said >= ALIVE_S:
                    said = now
                    yield {"alive": True}
                if now >= end or gone(0):
                    return
        finally:
            if isinstance(items, Generator):
                items.close()

    def _sleep_test(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        (host,) = self._known(request.fields["hosts"])
        if request.fields["stop"]:
            ran = self._service.end_test(host, by=by)
            because = "its sleep test ends after this step" if ran else "no sleep test runs on it"
            yield _done({host: {"ok": ran, "because": because}})
            return
        last: TestStep | None = None
        steps = self._service.sleep_test(host, cycles=request.fields["cycles"], by=by, patience_s=_PATIENCE_S)
        for step in self._listen(steps, gone):
            if isinstance(step, TestStep):
                last = step
                yield shown.step(step)
            else:
                yield step
        ok, text = (None, "") if last is None else (last.ok, last.text)
        yield _done({host: {"ok": ok, "because": text}})

    def _nudge(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts = self._known(request.fields["hosts"])
        for host in hosts or ("",):
            self._service.nudge(host)
        yield _done({host: {"ok": True} for host in hosts})

    # -- claims

    def _hold(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts, asked = self._known(request.fields["hosts"]), request.fields
        kept = {
            host: {
                "ok": True,
                **shown.hold(self._service.hold(host, lasts_s=asked["for_s"], why=asked["why"], by=by)),
            }
            for host in hosts
        }
        yield _done(kept)

    def _release(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts, asked = self._known(request.fields["hosts"]), request.fields
        if asked["hold"] is not None and asked["all"]:
            raise SaidError("bad-field", 'release: "hold" and "all" exclude each other')
        status = {one.host: one for one in self._service.status().hosts}
        yield _done({host: self._let_go(status[host], by, asked) for host in hosts if host in status})

    def _let_go(self, status: HostStatus, by: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """End one hold of a host, or all of them and its wishes."""
        host, hold = status.host, asked["hold"]
        if hold is None and not asked["all"]:
            if len(status.holds) != 1:
                return {"ok": False, "released": 0, "because": _which(status)}
            hold = status.holds[0].id
        ended = self._service.release(host, by=by, hold=hold)
        if asked["all"] and status.wishes:
            self._service.forget(
                [Ticket(host, one.id, "asleep" if one.sleep else "awake") for one in status.wishes]
            )
            ended += len(status.wishes)
        because = f"{ended} ended" if ended else "nothing of the kind is on it"
        return {"ok": bool(ended), "released": ended, "because": because}

    def _pause(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts = self._known(request.fields["hosts"])
        for host in hosts or (None,):
            self._service.pause(host, why=request.fields["why"], by=by)
        yield _done({host: {"ok": True} for host in hosts})

    def _resume(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts = self._known(request.fields["hosts"])
        for host in hosts or (None,):
            self._service.resume(host, by=by)
        yield _done({host: {"ok": True} for host in hosts})

    # -- looking

    def _status(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        chosen = self._known(request.fields["hosts"])
        found = self._service.status()
        hosts = tuple(one for one in found.hosts if not chosen or one.host in chosen)
        yield {"done": True, **shown.rack(found, hosts)}

    def _explain(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts = self._known(request.fields["hosts"]) or self._service.hosts()
        yield {"done": True, "hosts": [shown.explanation(self._service.explain(host)) for host in hosts]}

    def _events(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        asked = request.fields
        host = None if asked["host"] is None else self._known([asked["host"]])[0]
        last, most, said = asked["after"], asked["most"], self._monotonic()
        only = Sought(asked["since"], asked["until"], tuple(asked["kinds"]), asked["text"])
        while True:
            found = self._service.events(host=host, after=last, most=most, only=only)
            most = MOST_EVENTS  # bounds how it begins; of what comes nothing is left out
            for one in found:
                last = max(last, one.id)
                yield shown.event(one)
            now = self._monotonic()
            if found:
                said = now
            elif now - said >= ALIVE_S:
                said = now
                yield {"alive": True}
            if not asked["follow"] or gone(_FOLLOW_S):
                yield {"done": True, "after": last}
                return

    def _energy(self, request: Request, by: str, gone: Gone) -> Iterator[News]:
        hosts, asked = self._known(request.fields["hosts"]), request.fields
        if asked["each"] is not None:
            grain = Grain[asked["each"].upper()]
            yield from map(shown.spent, self._service.energy_spans(hosts, grain, for_s=asked["for_s"]))
        yield {"done": True, **shown.account(self._service.energy(hosts, for_s=asked["for_s"]))}

    def _known(self, names: Sequence[str]) -> list[str]:
        """Return the names, each once.

        Raises:
            SaidError: one of them is no host.
        """
        hosts = self._service.hosts()
        for name in names:
            if name not in hosts:
                close = get_close_matches(name, hosts, n=3)
                known = f"did you mean {' or '.join(close)}?" if close else f"hosts: {', '.join(hosts[:20])}."
                hint = f"{known} One that is new comes with: labctl apply --only controller"
                raise SaidError("unknown-host", f"the controller's rack has no host {name}", hint)
        return list(dict.fromkeys(names))


def _done(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"done": True, "hosts": dict(hosts)}


def _at_once(ticket: Ticket, status: HostStatus | None) -> dict[str, Any]:
    mode, because = ("unknown", "") if status is None else (str(status.mode), status.because)
    return {"ok": None, "mode": mode, "because": because, "wish": ticket.wish}


def _end(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {"ok": None, "mode": "unknown", "because": "nothing was heard of it"}
    return {"ok": change.ok, "mode": str(change.mode), "because": change.because}


def _over(change: Change | None) -> bool:
    return change is not None and change.ok is not None


def _which(status: HostStatus) -> str:
    if not status.holds:
        return "nobody holds it"
    listed = ", ".join(f"{one.id} ({one.why}, {one.by})" for one in status.holds)
    return f"several hold it; say which, or all: {listed}"
