"""What a host says of itself, taken at its word only where it speaks plainly.

A line of ``labctl-agent report --watch`` is one JSON object. ``report_of`` reads it into a ``Report`` or
refuses it whole: a field that is missing, of another kind, too long or not printable, a reading whose
``busy`` is neither true, false nor null, or no reading at all. A refused line is no report, and of a host
without a report nobody says that it is idle. Fields that are not known here are passed over, so that a newer
agent may say more; what a known one means changes only together with ``FORMAT``.

The line, as the agent writes it (``null`` where it does not know; strings are one line of text)::

    {"format": 1, "watch": "5f3a...", "n": 17, "boot_id": "....", "resumes": 2, "up_s": 812.4,
     "readings": [{"signal": "sessions", "busy": false, "because": "nobody is logged in"}],
     "order": {"nonce": "32 hex digits", "said": "going", "because": ""},
     "fingerprint": {"kernel": "6.1.0-26-amd64", "driver": "nvidia 580.95.05",
                     "nic": "52:54:00:66:00:11 r8169 rtl8125b-2_0.0.2",
                     "how": "suspend", "mem_sleep": "deep"},
     "wol_armed": true, "mem_sleeps": ["s2idle", "deep"],
     "caps": {"n": 3, "caps_w": {"slot0": 150}},
     "telemetry": {"wall": 1764400000.1, ...}}

``mem_sleeps`` are the ways to sleep to memory that the kernel offers, and ``caps`` the cards that stepped
down for others, as of change ``n``; older agents do not tell them. ``domain/telemetry.py`` has the form of
``telemetry``, and nothing in it makes a line no report.
``n`` counts the lines of one watch from 1; ``busy`` null is "not readable", which counts as busy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from .telemetry_words import telemetry_of
from .terms import Fingerprint, How, OrderWord, Reading, Report, Said

FORMAT = 1
READINGS_MAX = 64
TEXT_MAX = 300
WORDS_MAX = 16
STEPS_MAX = 256
_BOOT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_WATCH = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SIGNAL = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_WORD = re.compile(r"[a-z0-9_-]{1,40}", re.ASCII)
_COUNT_MAX = 2**53


class NotAReport(ValueError):
    """A line is not what a watch says; the message names the place."""


def report_of(document: object, at_mono: float) -> Report:
    """Return the report that a decoded line is.

    Args:
        document: the line, as JSON gives it.
        at_mono: when the line was got, in seconds of this process's monotonic clock.

    Raises:
        NotAReport: it is none.
    """
    line = _object(document, "the line")
    form = _field(line, "format", "the line")
    if isinstance(form, bool) or form != FORMAT:
        raise NotAReport(f"the line is not of format {FORMAT}: the agent there is another version's")
    _count(line, "n")
    caps_w, caps_n = _caps(line.get("caps"))
    return Report(
        at=at_mono,
        boot_id=_matching(line, "boot_id", _BOOT_ID),
        resumes=_count(line, "resumes"),
        up_s=_seconds(line, "up_s"),
        readings=_readings(_field(line, "readings", "the line")),
        order=_order(_field(line, "order", "the line")),
        fingerprint=_fingerprint(_field(line, "fingerprint", "the line")),
        wol_armed=_maybe(line, "wol_armed", "the line"),
        watch=_matching(line, "watch", _WATCH),
        caps_w=caps_w,
        caps_n=caps_n,
        mem_sleeps=_words(line.get("mem_sleeps"), "mem_sleeps"),
        telemetry=telemetry_of(line.get("telemetry")),
    )


def _readings(value: object) -> tuple[Reading, ...]:
    if not isinstance(value, list):
        raise NotAReport("readings is not a list")
    if not 0 < len(value) <= READINGS_MAX:
        raise NotAReport(f"readings has {len(value)} entries; 1 to {READINGS_MAX} are believed")
    found = []
    for at, one in enumerate(value):
        place = f"readings[{at}]"
        reading = _object(one, place)
        found.append(
            Reading(
                _matching(reading, "signal", _SIGNAL, place),
                _maybe(reading, "busy", place),
                _text(reading, "because", place),
            )
        )
    return tuple(found)


def _order(value: object) -> OrderWord | None:
    if value is None:
        return None
    order = _object(value, "order")
    said = _text(order, "said", "order")
    if said not in {one.value for one in Said}:
        raise NotAReport(f"order.said is none of {', '.join(Said)}")
    return OrderWord(_matching(order, "nonce", _NONCE, "order"), Said(said), _text(order, "because", "order"))


def _fingerprint(value: object) -> Fingerprint | None:
    if value is None:
        return None
    place = "fingerprint"
    found = _object(value, place)
    how = _text(found, "how", place)
    if how not in {one.value for one in How}:
        raise NotAReport(f"fingerprint.how is none of {', '.join(How)}")
    kernel = _text(found, "kernel", place)
    if not kernel:
        raise NotAReport("fingerprint.kernel is empty")
    return Fingerprint(
        kernel=kernel,
        driver=_text(found, "driver", place),
        nic=_text(found, "nic", place),
        how=How(how),
        mem_sleep=_text(found, "mem_sleep", place),
    )


def _caps(value: object) -> tuple[Mapping[str, int] | None, int]:
    if value is None:
        return None, 0
    found = _object(value, "caps")
    steps = _object(_field(found, "caps_w", "caps"), "caps.caps_w")
    if len(steps) > STEPS_MAX or any(not name.isprintable() or len(name) > TEXT_MAX for name in steps):
        raise NotAReport("caps.caps_w does not name cards")
    return {name: _count(steps, name, "caps.caps_w") for name in steps}, _count(found, "n", "caps")


def _words(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > WORDS_MAX:
        raise NotAReport(f"{name} is not a list of at most {WORDS_MAX}")
    if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in value):
        raise NotAReport(f"{name} has what is no plain word")
    return tuple(value)


def _object(value: object, place: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise NotAReport(f"{place} is not a JSON object")
    return value


def _field(found: Mapping[str, object], name: str, place: str) -> object:
    if name not in found:
        raise NotAReport(f"{place} has no {name}")
    return found[name]


def _at(name: str, place: str) -> str:
    return name if place == "the line" else f"{place}.{name}"


def _text(found: Mapping[str, object], name: str, place: str) -> str:
    value = _field(found, name, place)
    if isinstance(value, str):
        # Letters that Unicode got after this Python was made are printable to a host with a newer one; and
        # anybody there may have one in a file's or a program's name.
        shown = (
            letter if letter.isascii() or letter.isprintable() else "?" for letter in value[: TEXT_MAX + 1]
        )
        value = "".join(shown)
    if not isinstance(value, str) or len(value) > TEXT_MAX or not value.isprintable():
        raise NotAReport(f"{_at(name, place)} is not one line of at most {TEXT_MAX} characters")
    return value


def _matching(found: Mapping[str, object], name: str, form: re.Pattern[str], place: str = "the line") -> str:
    value = _field(found, name, place)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise NotAReport(f"{_at(name, place)} does not have its form")
    return value


def _maybe(found: Mapping[str, object], name: str, place: str) -> bool | None:
    value = _field(found, name, place)
    if value is not None and not isinstance(value, bool):
        raise NotAReport(f"{_at(name, place)} is neither true, false nor null")
    return value


def _count(found: Mapping[str, object], name: str, place: str = "the line") -> int:
    value = _field(found, name, place)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
        raise NotAReport(f"{_at(name, place)} is not a whole number from 0")
    return value


def _seconds(found: Mapping[str, object], name: str) -> float:
    value = _field(found, name, "the line")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAReport(f"{name} is not a number of seconds")
    if not (0 <= value <= _COUNT_MAX) or not math.isfinite(value):
        raise NotAReport(f"{name} is not a number of seconds")
    return float(value)
