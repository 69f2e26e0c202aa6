"""How times and lists are said in reasons."""

from __future__ import annotations

from collections.abc import Sequence


def lasting(seconds: float) -> str:
    """Return a length of time as a person says it: "12 s", "5 min", "2 h 5 min", "3 d"; never negative."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def counted(count: int, one: str) -> str:
    """Return "1 lease", "3 leases"."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
