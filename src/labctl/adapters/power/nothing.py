"""No back-end at all: nothing wakes the host, and nothing can be seen of its power."""

from __future__ import annotations

from labctl.ports.power import Power, PowerError


class NoSwitch:
    """The port ``Switch`` for a host that nothing switches."""

    kind = "none"
    can_cut = False
    has_meter = False

    def wake(self) -> None:
        """Say that nothing can."""
        raise PowerError(
            "unsupported",
            "nothing in the inventory wakes this host",
            "give its `wake`, such as WakeOnLan(mac=...)",
        )

    def power(self) -> Power:
        """Return that nobody can tell."""
        return "unclear"

    def cut(self) -> None:
        """Say that nothing can."""
        raise PowerError("unsupported", "nothing in the inventory cuts this host's power", "give its `power`")
