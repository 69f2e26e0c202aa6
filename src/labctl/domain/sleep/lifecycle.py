"""The life of a host as a table: in which mode it is, and what brings it into another.

Two numbered rules keep the table honest; everything else follows from them.

1. A mode says what we may *rely* on, never what we hope. READY and DRAINING alone admit requests.
   Of a host that is UNKNOWN, or SUSPENDING without a word, nobody may say that it is off: it counts as awake
   and busy.
2. Admission closes by one transaction of ours (``ORDERED``), and opens again only on the host's own word: it
   refused, or it came back and passed the gate. No timer opens it. An order dies by the host's own clock;
   only a report that the host made after that death is such a word.

``NEXT`` is the whole of it. A pair that is not in it is no transition: the event is stale or a bug, and the
mode stays. What must hold besides (no lease, no hold, a valid proof) are guards; the store checks those in
the same transaction in which it moves the mode (``may_drain``, ``may_order`` below).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """What may be relied on."""

    UNKNOWN = "unknown"  # nothing is known: it counts as awake and busy
    READY = "ready"  # awake, through the gate, serving
    DRAINING = "draining"  # still serving, and about to be put to sleep unless somebody comes
    SUSPENDING = "suspending"  # admission is closed; it may go dark at any moment
    ASLEEP = "asleep"  # seen dark by more than one sign
    WAKING = "waking"  # somebody wants it; packets are on their way
    VERIFYING = "verifying"  # it answers; the gate looks whether it really works
    FAILED = "failed"  # it did not come back, or is broken; a person should look


class Event(StrEnum):
    """What moves a host from one mode to another."""

    SEEN = "seen"  # it answers, with its own word
    LOST = "lost"  # it stopped answering
    CAME_BACK = "came-back"  # its own word: it slept or booted since we last heard it
    WENT_QUIET = "went-quiet"  # idle by policy, or somebody ordered it to sleep
    NEEDED = "needed"  # a lease, hold, session or wish came while it drained
    ORDERED = "ordered"  # the store closed admission; the order is sent after that
    REFUSED = "refused"  # its own word: it did not sleep, or the order died with it awake
    DARK = "dark"  # more than one sign says that it is off, after an order, or a meter says so
    WISHED = "wished"  # somebody wants it awake
    GAVE_UP = "gave-up"  # it did not come in the time it had
    PASSED = "passed"  # the gate: everything works
    BROKEN = "broken"  # the gate: the ladder is used up


_M, _E = Mode, Event
NEXT: dict[tuple[Mode, Event], Mode] = {
    (_M.UNKNOWN, _E.SEEN): _M.VERIFYING,
    (_M.UNKNOWN, _E.CAME_BACK): _M.VERIFYING,
    (_M.UNKNOWN, _E.WISHED): _M.WAKING,
    (_M.UNKNOWN, _E.DARK): _M.ASLEEP,
    (_M.READY, _E.LOST): _M.UNKNOWN,
    (_M.READY, _E.CAME_BACK): _M.VERIFYING,
    (_M.READY, _E.WENT_QUIET): _M.DRAINING,
    (_M.DRAINING, _E.NEEDED): _M.READY,
    (_M.DRAINING, _E.REFUSED): _M.READY,
    (_M.DRAINING, _E.LOST): _M.UNKNOWN,
    (_M.DRAINING, _E.CAME_BACK): _M.VERIFYING,
    (_M.DRAINING, _E.ORDERED): _M.SUSPENDING,
    (_M.SUSPENDING, _E.REFUSED): _M.READY,
    (_M.SUSPENDING, _E.CAME_BACK): _M.VERIFYING,
    (_M.SUSPENDING, _E.DARK): _M.ASLEEP,
    (_M.SUSPENDING, _E.GAVE_UP): _M.FAILED,
    (_M.ASLEEP, _E.SEEN): _M.VERIFYING,
    (_M.ASLEEP, _E.CAME_BACK): _M.VERIFYING,
    (_M.ASLEEP, _E.WISHED): _M.WAKING,
    (_M.WAKING, _E.SEEN): _M.VERIFYING,
    (_M.WAKING, _E.CAME_BACK): _M.VERIFYING,
    (_M.WAKING, _E.GAVE_UP): _M.FAILED,
    (_M.VERIFYING, _E.PASSED): _M.READY,
    (_M.VERIFYING, _E.BROKEN): _M.FAILED,
    (_M.VERIFYING, _E.LOST): _M.UNKNOWN,
    (_M.FAILED, _E.SEEN): _M.VERIFYING,
    (_M.FAILED, _E.CAME_BACK): _M.VERIFYING,
    (_M.FAILED, _E.WISHED): _M.WAKING,
}

ADMITS = frozenset({Mode.READY, Mode.DRAINING})
"""In these a lease may be taken; one that is taken while DRAINING brings the host back to READY."""

MAYBE_ON = frozenset(Mode) - {Mode.ASLEEP}
"""In these a host may draw power, so its watts are counted."""


def after(mode: Mode, event: Event) -> Mode | None:
    """Return the mode that an event leads to, or None where it means nothing."""
    return NEXT.get((mode, event))


@dataclass(frozen=True, slots=True)
class Claims:
    """What keeps a host from sleeping, as the store counts it inside the deciding transaction.

    ``wishes`` are live wishes that it be awake; ``paused`` is a person's durable "hands off".
    """

    leases: int = 0
    holds: int = 0
    wishes: int = 0
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason; ``because`` is a clause such as "3 requests are in flight"."""

    yes: bool
    because: str

    def __bool__(self) -> bool:
        """Return the decision itself."""
        return self.yes


def may_drain(mode: Mode, claims: Claims) -> Verdict:
    """Return whether a host may begin to drain."""
    if mode is not Mode.READY:
        return Verdict(False, f"it is {mode}, not ready")
    return _unclaimed(claims)


def may_order(mode: Mode, claims: Claims) -> Verdict:
    """Return whether a host may be ordered to sleep now; the store asks inside the transaction."""
    if mode is not Mode.DRAINING:
        return Verdict(False, f"it is {mode}, not draining")
    return _unclaimed(claims)


def may_lease(mode: Mode) -> Verdict:
    """Return whether a request may go to a host."""
    return Verdict(mode in ADMITS, f"it is {mode}")


def _unclaimed(claims: Claims) -> Verdict:
    for count, one, many in (
        (claims.leases, "1 lease is", "leases are"),
        (claims.holds, "1 hold is", "holds are"),
        (claims.wishes, "1 wish that it be awake is", "wishes that it be awake are"),
    ):
        if count:
            return Verdict(False, f"{one if count == 1 else f'{count} {many}'} on it")
    if claims.paused:
        return Verdict(False, "it is paused")
    return Verdict(True, "nothing claims it")
