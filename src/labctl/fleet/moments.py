"""What a person means by a time until when something shall hold.

``18:00`` is the next time a clock here shows that, ``2h`` and ``1d12h`` count from now, and an ISO date with
a time means what it says (local time where it names no zone). A moment that is past, or further away than
anyone plans, is a typing error.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from labctl.domain.problem import LabctlError

FURTHEST = timedelta(days=366)
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_SPAN = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", re.ASCII)
_HINT = "such as 18:00, 90m, 2h, 1d12h or 2030-01-31T18:00"


def until(
    text: str, now: datetime, *, called: str = "--until", further: str = "--persist has no end"
) -> datetime:
    """Return the moment that ``text`` means, aware of its zone.

    Args:
        text: as it was typed.
        now: the time of day, aware of its zone.
        called: what the person knows it as.
        further: what to do instead of naming a time that is too far away.

    Raises:
        LabctlError: it means none, a past one, or one more than a year away.
    """
    found = _read(text.strip(), now)
    if found is None:
        raise LabctlError(f"{called}: {text!r} is no time", hint=_HINT)
    if found <= now:
        raise LabctlError(f"{called}: {text} is past", hint=_HINT)
    if found - now > FURTHEST:
        raise LabctlError(f"{called}: {text} is more than a year away", hint=further)
    return found


def _read(text: str, now: datetime) -> datetime | None:
    here = now.astimezone()
    if clock := _CLOCK.fullmatch(text):
        # Without its zone, so that a change to summer time between now and then is heeded.
        day = here.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0, tzinfo=None)
        # When summer time ends, a clock shows the same twice.
        shown = (day, day.replace(fold=1), day + timedelta(days=1))
        return next(moment for one in shown if (moment := _moment(one)) > now)
    if text and (span := _SPAN.fullmatch(text)):
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups())
        return now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    # A date alone would mean its first moment, which nobody who types it means.
    if ":" not in text:
        return None
    try:
        return _moment(datetime.fromisoformat(text))
    except (ValueError, OverflowError, OSError):
        return None


def _moment(shown: datetime) -> datetime:
    """Return the moment at which a clock shows that, a clock here where it names no zone.

    By way of seconds: for an hour that summer time skips, Python's own conversion lands an hour early.
    """
    return datetime.fromtimestamp(shown.timestamp(), UTC).astimezone()
