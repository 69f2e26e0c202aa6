"""What may be said to the controller, and how a line that is something else is refused.

A request is one line: a JSON object with the version ``v``, the verb ``do`` and that verb's fields. Nothing
is coerced and nothing unknown is skipped: whoever misspells ``when_idle`` must not get the other meaning.
``request`` raises ``SaidError`` for every line that is no request, whatever its bytes, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NoReturn

from labctl.controller.api import LONGEST_LINE, VERSION

LONGEST_S = 366 * 24 * 3600
MOST_HOSTS = 1000
MOST_CYCLES = 100
MOST_EVENTS = 1000
LONGEST_TEXT = 500
SPANS = ("minute", "hour", "day")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}", re.ASCII)

FATAL = frozenset({"not-json", "too-long", "too-slow", "not-allowed", "busy", "stopping"})
"""After an error with one of these codes the server closes the connection."""


class SaidError(Exception):
    """What a request is answered with instead: a stable code, what is wrong, and what to do."""

    def __init__(self, code: str, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Request:
    """A line that may be carried out; ``fields`` are the verb's, each there and of its kind."""

    do: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a verb: what it must be, as a person reads it, and what it is when it is left out."""

    must_be: str
    ok: Callable[[Any], bool]
    default: Any = None
    required: bool = False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _is_words(value: Any) -> bool:
    return _is_text(value) and bool(value.strip())


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_HOSTS
        and all(isinstance(one, str) and _NAME.fullmatch(one) for one in value)
    )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_S


def _is_moment(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_MOMENT


def _is_kinds(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_KINDS and all(map(_is_words, value))


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _or_nothing(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


_LIST = "a list of host names"
_SOME = Field(f"{_LIST}, at least one", lambda value: _is_names(value) and bool(value), required=True)
_ANY = Field(_LIST, _is_names, default=[])
_FLAG = "true or false"
_NO = Field(_FLAG, _is_flag, default=False)
_TEXT = f"one line of text, at most {LONGEST_TEXT} characters"
_WHY = Field(_TEXT, _is_text, default="")
_REASON = Field(f"{_TEXT}, and not empty", _is_words, required=True)
_SECONDS = f"a number of seconds, more than 0 and at most {LONGEST_S}"
_WHEN = "seconds since 1970"
_BIG = 2**62
_LAST_MOMENT = 1e11
_MOST_KINDS = 64

VERBS: Mapping[str, Mapping[str, Field]] = {
    "wake": {
        "hosts": _SOME,
        "why": _WHY,
        "wait": Field(_FLAG, _is_flag, default=True),
        "timeout_s": Field(_SECONDS, _is_seconds, default=600),
    },
    "suspend": {
        "hosts": _SOME,
        "why": _WHY,
        "when_idle": _NO,
        "force": _NO,
        "wait": Field(_FLAG, _is_flag, default=True),
        "timeout_s": Field(_SECONDS, _is_seconds, default=600),
    },
    "hold": {"hosts": _SOME, "for_s": Field(_SECONDS, _is_seconds, required=True), "why": _REASON},
    "release": {
        "hosts": _SOME,
        "hold": Field("the number of a hold", _or_nothing(_whole(1, _BIG))),
        "all": _NO,
    },
    "pause": {"hosts": _ANY, "why": _REASON},
    "resume": {"hosts": _ANY},
    "status": {"hosts": _ANY},
    "explain": {"hosts": _ANY},
    "events": {
        "host": Field("the name of a host", _or_nothing(lambda value: _is_names([value]))),
        "after": Field("the number of an event", _whole(0, _BIG), default=0),
        "most": Field(f"a whole number from 1 to {MOST_EVENTS}", _whole(1, MOST_EVENTS), default=50),
        "follow": _NO,
        "since": Field(_WHEN, _or_nothing(_is_moment)),
        "until": Field(_WHEN, _or_nothing(_is_moment)),
        "kinds": Field("a list of at most 64 kinds", _is_kinds, default=[]),
        "text": _WHY,
    },
    "sleep-test": {
        "hosts": Field("a list of one host name", lambda value: _is_names(value) and len(value) == 1,
                       required=True),
        "cycles": Field(f"a whole number from 1 to {MOST_CYCLES}", _whole(1, MOST_CYCLES), default=3),
        "stop": _NO,
    },
    "nudge": {"hosts": _ANY},
    "energy": {
        "hosts": _ANY,
        "for_s": Field(_SECONDS, _is_seconds, default=30 * 24 * 3600),
        "each": Field('"minute", "hour" or "day"', _or_nothing(lambda value: value in SPANS)),
    },
}  # fmt: skip
"""The verbs with their fields; docs/control-api.md explains each, and a test compares the two."""


def _number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def document(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line, strictly: UTF-8, no NaN, no field twice.

    Raises:
        ValueError: it is none.
    """
    try:
        text = line.decode()
        found = json.loads(text, parse_constant=_number, object_pairs_hook=_object)
        # \ud800 is JSON's, and no text: it could not be written down again.
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeError:
        raise ValueError("it is no text in UTF-8") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def request(line: bytes) -> Request:
    """Return what a line asks for.

    Raises:
        SaidError: it is no request; what it is instead is said without quoting it.
    """
    if len(line) >= LONGEST_LINE:
        raise SaidError("too-long", f"a request has at most {LONGEST_LINE} bytes")
    try:
        said = document(line)
    except ValueError as error:
        raise SaidError("not-json", f"a request is one JSON object a line: {error}") from None
    version = said.pop("v", None)
    if isinstance(version, bool) or version != VERSION:
        known = f"this controller speaks version {VERSION} of the protocol"
        raise SaidError("version", f'{known}; the request must say "v": {VERSION}', "is one labctl older?")
    do = said.pop("do", None)
    if not isinstance(do, str) or do not in VERBS:
        raise SaidError("unknown-verb", '"do" must name a verb', f"the verbs: {', '.join(VERBS)}")
    by = said.pop("by", "")
    if not _is_text(by):
        raise SaidError("bad-field", f'{do}: "by" must be {_TEXT}')
    return Request(do, _fields(do, said), by)


def _fields(do: str, said: dict[str, Any]) -> dict[str, Any]:
    known = VERBS[do]
    for name in said:
        if name not in known:
            close = get_close_matches(name[:LONGEST_TEXT], known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its fields: {', '.join(known)}"
            raise SaidError("bad-field", f"{do} has a field that it does not know", hint)
    found = {}
    for name, kind in known.items():
        if name not in said and kind.required:
            raise SaidError("bad-field", f'{do} needs "{name}": {kind.must_be}')
        value = said.get(name, kind.default)
        if not kind.ok(value):
            raise SaidError("bad-field", f'{do}: "{name}" must be {kind.must_be}')
        found[name] = value
    return found


def encode(said: Mapping[str, Any]) -> bytes:
    """Return a line that anything can carry: ASCII, without a newline inside."""
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def error(refusal: SaidError) -> dict[str, Any]:
    """Return the line that answers with a refusal."""
    return {"error": {"code": refusal.code, "reason": refusal.reason, "hint": refusal.hint}}
