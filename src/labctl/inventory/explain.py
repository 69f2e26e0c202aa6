"""What pydantic found, said to a person: the field, the reason in plain words, and what to write instead.

Every kind of error that our fields can produce has a sentence here; an unforeseen kind keeps pydantic's
message. Values are shown only where they help and cut short. The value of an unknown field is never shown,
nor is text where a secret, its reference or its hash belongs: somebody may have put the secret itself there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_CLASSES = {
    "wake": "NoWake(), WakeOnLan(...), Ipmi(...), Redfish(...), SmartPlug(...) or WakeCommand(...)",
    "services": "one of the services, such as Command(...), LlamaServer(...) or LlamaSwap(...)",
}
_CLASS_HINTS = {
    "Secret": 'write it into a file with mode 0600, and here Secret(file="keys/NAME")',
    "GatewayKey": "labctl gateway keys new NAME makes a key, and says what to write here",
    "WebKey": 'umask 077; openssl rand -hex 32 > keys/web, and here secret=Secret(file="keys/web")',
}
_COMPARED = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
_UNITS = (
    ("_w", "give watts, such as 200"),
    ("watts", "give watts, such as 1600"),
    ("_mhz", "give MHz, the lowest and the highest, such as (210, 1500)"),
    ("_gib", "give GiB, such as 128"),
    ("branch", "give a branch, such as 580"),
    ("volts", "give volts, such as 230"),
    ("amps", "give amperes, such as 16"),
    ("share", "give a share of 1, such as 0.8"),
    ("efficiency", "give a share of 1, such as 0.9"),
    ("_tolerance", "give a factor, such as 1.3"),
)
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "True or False",
    "tuple_type": "a list",
    "dict_type": "a dictionary",
    "path_type": "a path, as text",
}


_SECRET = {"secret", "api_key", "token", "password", "sha256", "env", "keys"}
"""Fields whose text is not shown: what stands there may be the secret itself."""


class _Veiled(str):
    """A text that is not shown; it holds nothing."""


def did_you_mean(wanted: object, known: Iterable[str]) -> str:
    """Return a hint with the closest known name, or with all of them when they are few; else nothing."""
    names = list(known)
    close = get_close_matches(str(wanted), names, n=1, cutoff=0.55)
    if not close and len(str(wanted)) >= 3:
        close = [name for name in names if str(wanted) in name or name in str(wanted)][:1]
    if close:
        return f"did you mean {close[0]}?"
    return "known are: " + ", ".join(names) if 0 < len(names) <= 24 else ""


def field_text(path: Sequence[str | int]) -> str:
    """Write a field path as one would in Python: ``gpus[3].cap_w``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: object) -> str:
    """Describe a value in a few words; long ones are cut, objects are named by their class only."""
    if value is None:
        return "None"
    if isinstance(value, _Veiled):
        return "a text"
    if isinstance(value, str):
        cut = value if len(value) <= 60 else value[:57] + "..."
        return f"the text {cut!r}"
    if isinstance(value, (bool, int, float)):
        try:
            text = repr(value)
        except ValueError:  # an int of more digits than Python agrees to print
            return "a huge number"
        return text if len(text) <= 60 else "a huge number"
    name = type(value).__name__
    if isinstance(value, BaseModel):
        return f"{name}(...)"
    return f"a {name}" if name[:1].lower() not in "aeiou" else f"an {name}"


def clean_path(error: ErrorDetails) -> tuple[str | int, ...]:
    """Return where in the constructor's arguments the error is, without the names that unions put in."""
    tags = {"none", "wol", "ipmi", "redfish", "plug", "command", "llama-server", "[key]"}
    path: list[str | int] = []
    for part in error["loc"]:
        if isinstance(part, str) and path and (part in tags or "[" in part):
            continue
        path.append(part)
    return tuple(path)


def _list_hint(value: object) -> str:
    return f"write [{value!r}]" if isinstance(value, str) and len(value) < 60 else "write [...]"


def _int_hint(value: object) -> str:
    digits = re.match(r"\s*(\d{1,9})\b", value) if isinstance(value, str) else None
    if digits or (isinstance(value, str) and (digits := re.match(r"\s*(\d{1,9})", value))):
        return f"write {digits[1]}, without quotes and unit"
    return f"write {round(value)}" if isinstance(value, float) and abs(value) < 1e9 else ""


def _literal(error: ErrorDetails) -> tuple[str, str]:
    expected = str(error.get("ctx", {}).get("expected", ""))
    known = re.findall(r"'([^']*)'", expected)
    return f"must be {expected}, not {shown(error['input'])}", did_you_mean(error["input"], known)


def _unit_hint(path: Sequence[str | int]) -> str:
    """Return in which unit a field is given, for one that has a unit."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    return next((hint for ending, hint in _UNITS if name.endswith(ending)), "")


def _typed(error: ErrorDetails) -> tuple[str, str]:
    kind, value = error["type"], error["input"]
    hint = ""
    if kind == "tuple_type":
        hint = _unit_hint(error["loc"]) or _list_hint(value)
    elif kind.startswith("int"):
        hint = _int_hint(value)
    elif kind == "bool_type" and type(value) is int and value in (0, 1):
        hint = f"write {bool(value)}"
    elif kind == "string_type" and isinstance(value, (int, float)) and not isinstance(value, bool):
        hint = f'write "{value}"' if len(shown(value)) < 40 else ""
    return f"must be {_EXPECTED[kind]}, not {shown(value)}", hint or _unit_hint(error["loc"])


def _union(error: ErrorDetails, path: Sequence[str | int]) -> tuple[str, str]:
    owner = next((str(part) for part in reversed(path) if part in _CLASSES), "")
    wanted = _CLASSES.get(owner, "one of the classes for it")
    return f"must be {wanted}, not {shown(error['input'])}", ""


def sentence(error: ErrorDetails, cls: type[BaseModel]) -> tuple[str, str]:
    """Return the reason of one error of a constructor of ``cls``, and a hint (maybe empty)."""
    path = clean_path(error)
    if isinstance(error["input"], str) and _SECRET.intersection(path):
        error = {**error, "input": _Veiled()}
    kind = error["type"]
    ctx: Mapping[str, Any] = error.get("ctx", {})
    if kind == "missing":
        return "is missing", _unit_hint(path) if len(path) > 1 else ""
    if kind == "extra_forbidden":
        return "is not a known field", did_you_mean(path[-1], cls.model_fields) if len(path) == 1 else ""
    if kind == "value_error":
        reason = str(ctx.get("error", error["msg"]))
        hint = getattr(ctx.get("error"), "hint", "") or _value_hint(reason, error["input"])
        return reason + _but_is(error, path), hint
    if kind == "literal_error":
        return _literal(error)
    if kind in _EXPECTED:
        return _typed(error)
    if kind in _COMPARED:
        return f"must be {_COMPARED[kind].format(**ctx)}, not {shown(error['input'])}", _unit_hint(path)
    if kind.startswith("union_tag") or kind == "model_attributes_type":
        return _union(error, path)
    if kind in ("model_type", "dataclass_type"):
        wanted = str(ctx.get("class_name", "an object"))
        return f"must be {wanted}(...), not {shown(error['input'])}", _CLASS_HINTS.get(wanted, "")
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", "give at least one" if kind == "too_short" else "give some text"
    if kind in ("too_long", "string_too_long"):
        return f"must not be longer than {ctx.get('max_length')}", ""
    return error["msg"][:1].lower() + error["msg"][1:], ""


def _value_hint(reason: str, value: object) -> str:
    """Return what to write instead of a value that has the right type, where that can be guessed."""
    if "duration" in reason and type(value) is int and value > 0:
        return f'write "{value}s", "{value}m" or "{value}h"' if value < 10_000 else ""
    if not isinstance(value, str) or len(value) > 80:
        return ""
    if "label" in reason or "short name" in reason:
        guess = re.sub("[^a-z0-9]+", "-", value.lower()).strip("-")
        return f'write "{guess}"' if guess else ""
    if "IP address or a host name" in reason and (port := re.fullmatch(r"[^:]+:([0-9]{1,5})", value)):
        return f"the port goes elsewhere: ssh=Ssh(port={port[1]})"
    return ""


def _but_is(error: ErrorDetails, path: Sequence[str | int]) -> str:
    showable = isinstance(error["input"], (str, int, float)) and "password" not in error["msg"]
    return f", not {shown(error['input'])}" if path and showable else ""
