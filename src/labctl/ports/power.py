"""What switches a host on and off, and what can be seen of it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from labctl.domain.sleep.terms import Sign

Power = Literal["on", "off", "unclear"]


class PowerError(Exception):
    """A back-end did not do what was asked.

    ``code`` is a short stable name (auth, timeout, refused, server-error, bad-answer, certificate,
    no-route, no-program, no-secret, unsupported, interlock); ``hint`` says what to do; ``transient``:
    trying again may help. No secret is in its words.
    """

    def __init__(self, code: str, reason: str, hint: str = "", *, transient: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.hint = hint
        self.transient = transient


class Switch(Protocol):
    """A host's power back-end; every method has a deadline of its own and may be called from any thread.

    ``can_cut``: the inventory allows to cut the power, and the back-end can. ``has_meter``: it sees what the
    host draws, so that "on" means that it works; a BMC says "on" of a host that sleeps to memory, too.
    """

    kind: str
    can_cut: bool

    @property
    def has_meter(self) -> bool:
        """Return whether watts are seen, as of the last answer of ``power``."""
        ...

    def wake(self) -> None:
        """Send one round of whatever wakes the host; harmless when it is awake.

        Raises:
            PowerError: it could not be sent.
        """
        ...

    def power(self) -> Power:
        """Return whether the host has power, "unclear" where the back-end cannot tell.

        With a meter "on" is more than any sleeping host draws, and "off" no more than one that is off.

        Raises:
            PowerError: it does not answer.
        """
        ...

    def cut(self) -> None:
        """Cut the power at once.

        Raises:
            PowerError: it could not be done, or this back-end cannot.
        """
        ...


@dataclass(frozen=True, slots=True)
class Draw:
    """What a meter says: watts now, and joules since it began to count; None: it does not tell."""

    watts: float | None
    joules: float | None = None


class Meter(Protocol):
    """Sees what a host draws, asleep or not; asking it wakes nothing. Has a deadline of its own."""

    def draw(self) -> Draw:
        """Return what it says.

        Raises:
            PowerError: it does not answer.
        """
        ...


class Looks(Protocol):
    """Looks at a host from outside, without waking it."""

    def signs(self, host: str, *, deadline_s: float) -> Mapping[str, Sign]:
        """Return what each look says: "ssh" (a TCP connection), "ping", "arp" (the neighbours), "power"."""
        ...
