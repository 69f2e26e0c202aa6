"""Lengths of time as people read them (``42 s``, ``2 h 10 min``) and write them (``90``, ``10m``, ``1h30m``).

A span that is shown is rounded to what matters at its size; one that is read means exactly what it says.
"""

from __future__ import annotations

import re

import click

_READ = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,7})s?)?", re.ASCII)
_PARTS = (86400, 3600, 60, 1)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def shown(seconds: float) -> str:
    """Return a span as a person reads it."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{round(whole / _MINUTE)} min"
    if whole < 2 * _DAY:
        hours, minutes = divmod(round(whole / _MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(whole / _DAY)} days"


def read(text: str) -> float | None:
    """Return the seconds that ``text`` means, or None when it means no span; a bare number is seconds."""
    found = _READ.fullmatch(text.strip())
    if not found or not any(found.groups()):
        return None
    return float(sum(int(part or 0) * size for part, size in zip(found.groups(), _PARTS, strict=True)))


def of_option(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Return the seconds of an option; click's callback.

    Raises:
        click.BadParameter: it is no length of time.
    """
    seconds = read(value)
    if not seconds or seconds > 366 * _DAY:
        raise click.BadParameter(f"{value!r} is no length of time up to 366d; such as 90s, 10m or 1h30m")
    return seconds
