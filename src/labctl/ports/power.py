"""What switches a host on and off, and what can be seen of it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from labctl.domain.sleep.terms import Sign

Power = Literal["on", "off", "unclear"]


class PowerError(Exception):
    """A back-end did not do what was asked.

    ``code`` is a short stable name (auth, timeout, refused, server-error, bad-answer, certificate,
    no-route, no-program, unsupported); ``hint`` says what to do; ``transient``: trying again may help.
    """

    def __init__(self, code: str, reason: str, hint: str = "", *, transient: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.hint = hint
        self.transient = transient


class Switch(Protocol):
    """A host's power back-end; every method has a deadline of its own and may be called from any thread."""

    kind: str
    can_cut: bool
    has_meter: bool

    def wake(self) -> None:
        """Send one round of whatever wakes the host; harmless when it is awake.

        Raises:
            PowerError: it could not be sent.
        """
        ...

    def power(self) -> Power:
        """Return whether power flows, "unclear" where the back-end cannot tell sleep from work.

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


class Looks(Protocol):
    """Looks at a host from outside, without waking it."""

    def signs(self, host: str, *, deadline_s: float) -> Mapping[str, Sign]:
        """Return what each look says: "ssh" (a TCP connection), "ping", "arp" (the neighbours), "power"."""
        ...
