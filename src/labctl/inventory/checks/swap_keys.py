"""Every key that llama-swap 250 reads, and what it takes; llama-swap itself ignores a mistyped one.

A table for each place: the top level, a model, and what is nested in them. A key that the inventory states in
words of its own is not to be set again by ``settings``: ``elsewhere`` says where it belongs. Keys that would
undo what labctl does have their reason there, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.inventory.checks.finding import Finding, Where
from labctl.inventory.explain import did_you_mean, shown

DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_FACTORS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# Go's regular expressions have neither of these, which Python's have.
_NOT_IN_GO = re.compile(r"\(\?(?:[=!]|<[=!]|P=|\()|(?<!\\)\\[1-9]|[*+?}]\+")


@dataclass(frozen=True, slots=True)
class Key:
    """What a key takes: a ``kind`` of value, one of ``choices``, or a mapping with ``fields`` of its own.

    ``each``: a mapping whose keys are names, and whose values have these fields.
    """

    kind: str = "any"
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Key] = field(default_factory=dict)
    each: Mapping[str, Key] = field(default_factory=dict)
    elsewhere: str = ""


def _said(where: str) -> Key:
    return Key(elsewhere=where)


def _one_of(*choices: str) -> Key:
    return Key("choice", choices)


TEXT, FLAG, NUMBER, ANY = Key("text"), Key("flag"), Key("number"), Key("any")
TEXTS, MAPPING, MACROS = Key("texts"), Key("mapping"), Key("macros")
_STAMPS = (
    *("", "ansic", "unixdate", "rubydate", "rfc822", "rfc822z", "rfc850", "rfc1123", "rfc1123z", "rfc3339"),
    *("rfc3339nano", "kitchen", "stamp", "stampmilli", "stampmicro", "stampnano"),
)
_MODALITIES = Key("texts", ("text", "audio", "image"))
_FILTERS = {"stripParams": Key("params"), "setParams": Key("params"), "setParamsByID": Key("params-by-id")}
_TIMEOUTS = dict.fromkeys(
    ("connect", "keepalive", "responseHeader", "tlsHandshake", "expectContinue", "idleConn"), NUMBER
)

TOP: Mapping[str, Key] = {
    "healthCheckTimeout": _said("health_check_timeout"),
    "globalTTL": _said("global_ttl"),
    "unloadTimeout": Key("positive"),
    "logRequests": FLAG,
    "logLevel": _one_of("debug", "info", "warn", "error"),
    "logTimeFormat": _one_of(*_STAMPS),
    "logToStdout": _one_of("proxy", "upstream", "both", "none"),
    "metricsMaxInMemory": NUMBER,
    "captureBuffer": NUMBER,
    "store": Key(fields={"path": TEXT}),
    "ui": Key(fields={"activity": Key(fields={"session_id": TEXTS})}),
    "performance": Key(fields={"disabled": FLAG, "every": Key("every")}),
    "startPort": _said("start_port"),
    "sendLoadingState": FLAG,
    "includeAliasesInList": FLAG,
    "macros": _said("macros"),
    "profiles": Key(each={"description": TEXT, "pins": MAPPING}),
    "selectors": Key(
        each={
            "strategy": _one_of("warm", "pin", "spillover"),
            "targets": TEXTS,
            "settings": Key(fields={"spillover": Key("positive")}),
            "name": TEXT,
            "description": TEXT,
            "unlisted": FLAG,
            "metadata": MAPPING,
        }
    ),
    "models": _said("models"),
    "groups": Key(elsewhere="groups"),
    "matrix": Key(elsewhere="matrix"),
    "hooks": _said("preload"),
    "apiKeys": _said("api_key"),
    "peers": _said("peers"),
    "upstream": Key(fields={"ignorePaths": Key("regexps")}),
    "routing": Key(
        fields={
            "scheduler": Key(
                fields={
                    "use": _one_of("fifo"),
                    "settings": Key(fields={"fifo": Key(fields={"priority": Key("priorities")})}),
                }
            ),
            "router": _said("groups or matrix"),
        }
    ),
}
# What older releases had at the top level and 250 has not, or not there any more.
LEGACY = {"groups", "matrix"}

MODEL: Mapping[str, Key] = {
    "cmd": _said("engine"),
    "cmdStop": TEXT,
    "proxy": Key("text"),
    "aliases": _said("aliases of the Model"),
    "env": _said("env of the engine"),
    "checkEndpoint": Key("text"),
    "ttl": _said("ttl"),
    "unloadTimeout": _said("unload_timeout"),
    "unlisted": _said("unlisted"),
    "useModelName": TEXT,
    "name": TEXT,
    "description": TEXT,
    "concurrencyLimit": _said("concurrency_limit"),
    "filters": Key(fields=_FILTERS),
    "macros": MACROS,
    "metadata": MAPPING,
    "sendLoadingState": _said("send_loading_state"),
    "timeouts": Key(fields=_TIMEOUTS),
    "compat": Key(fields={"ignoreWebsockets": FLAG}),
    "capabilities": Key(
        fields={"in": _MODALITIES, "out": _MODALITIES, "tools": FLAG, "reranker": FLAG, "context": NUMBER}
    ),
    "healthCheckTimeout": _said("health_check_timeout of the LlamaSwap"),
}
# labctl knows these for every engine but a Command, of which it knows nothing.
ONLY_FOR_COMMANDS = {"proxy", "checkEndpoint"}


def seconds_of(text: str) -> float | None:
    """Return a duration as Go writes it in seconds, or None where it is none."""
    if not DURATION.fullmatch(text):
        return None
    return sum(
        float(n) * _FACTORS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    )


def keys(at: Where, value: object, known: Mapping[str, Key]) -> Iterator[Finding]:
    """Yield what is wrong with a mapping of settings, and with what is nested in it."""
    if not isinstance(value, Mapping):
        yield Finding(at, f"must be a mapping of names to values, not {shown(value)}")
        return
    for name, inner in value.items():
        path = (*at, str(name))
        key = known.get(name) if isinstance(name, str) else None
        if key is None:
            yield Finding(
                path, "llama-swap knows no such key, and would ignore it", did_you_mean(name, known)
            )
        else:
            yield from _value(path, inner, key)


def _value(path: Where, value: object, key: Key) -> Iterator[Finding]:
    if key.fields:
        yield from keys(path, value, key.fields)
    elif key.each:
        if not isinstance(value, Mapping):
            yield Finding(path, f"must be a mapping of names to values, not {shown(value)}")
            return
        for name, inner in value.items():
            yield from keys((*path, str(name)), inner, key.each)
    elif not key.elsewhere and (problem := _WRONG[key.kind](value, key)):
        reason, _, hint = problem.partition(" -> ")
        yield Finding(path, reason, hint)


def _not(value: object, wanted: str) -> str:
    return f"must be {wanted}, not {shown(value)}"


def _whole(value: object, least: int) -> str:
    fine = isinstance(value, int) and not isinstance(value, bool) and value >= least
    return "" if fine else _not(value, f"a whole number of at least {least}")


def _texts(value: object, key: Key) -> str:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one for one in value):
        return _not(value, "a list of texts")
    odd = [one for one in value if key.choices and one not in key.choices]
    return f"must be of {', '.join(key.choices)}, not {odd[0]!r}" if odd else ""


def _every(value: object) -> str:
    took = seconds_of(value) if isinstance(value, str) else None
    if took is None:
        return _not(value, "a duration in llama-swap's spelling") + ' -> write "15s"'
    return (
        "" if took >= 5 else 'llama-swap refuses to measure more often than each 5 s -> write at least "5s"'
    )


def _regexps(value: object) -> str:
    if problem := _texts(value, Key("texts")):
        return problem
    assert isinstance(value, (list, tuple))
    for one in value:
        try:
            re.compile(one)
        except re.error as error:
            return f"{one!r} is no regular expression: {error} -> a dot that is meant as such is written \\."
        if found := _NOT_IN_GO.search(one):
            return f"{one!r}: llama-swap's regular expressions know no {found[0]} -> say it without"
    return ""


def _params(value: object) -> str:
    names = (
        value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Mapping) else None
    )
    if names is None:
        return _not(value, "names with commas between them, or a mapping of names to values")
    if "model" in [str(name).strip() for name in names]:
        return "llama-swap never sets or strips `model`, by which it finds the way -> use useModelName"
    return ""


def _params_by_id(value: object) -> str:
    if not isinstance(value, Mapping) or not all(isinstance(one, Mapping) for one in value.values()):
        return _not(value, "a mapping of model names to parameters")
    return next((problem for one in value.values() if (problem := _params(one))), "")


def _macros(value: object) -> str:
    if not isinstance(value, Mapping):
        return _not(value, "a mapping of names to values")
    return next((problem for name, one in value.items() if (problem := macro_problem(name, one))), "")


def macro_problem(name: object, value: object) -> str:
    """Return what llama-swap has against a macro, or ""."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,63}", name):
        return f"{name!r} is no name of a macro: letters, digits, '-' and '_', at most 63"
    if name in ("PORT", "MODEL_ID", "PID"):
        return f"llama-swap itself says what ${{{name}}} is -> choose another name"
    if not isinstance(value, (str, int, float, bool)):
        return f"macro {name} must be text or a number, not {shown(value)}"
    return f"macro {name} contains itself" if f"${{{name}}}" in str(value) else ""


def _priorities(value: object) -> str:
    fine = isinstance(value, Mapping) and all(isinstance(one, int) for one in value.values())
    return "" if fine else _not(value, "a mapping of models to whole numbers")


_WRONG: Mapping[str, Any] = {
    "any": lambda value, key: "",
    "text": lambda value, key: "" if isinstance(value, str) and value else _not(value, "text"),
    "flag": lambda value, key: "" if isinstance(value, bool) else _not(value, "True or False"),
    "number": lambda value, key: _whole(value, 0),
    "positive": lambda value, key: _whole(value, 1),
    "mapping": lambda value, key: "" if isinstance(value, Mapping) else _not(value, "a mapping"),
    "texts": _texts,
    "choice": lambda value, key: (
        "" if value in key.choices else _not(value, f"one of {', '.join(filter(None, key.choices))}")
    ),
    "every": lambda value, key: _every(value),
    "regexps": lambda value, key: _regexps(value),
    "params": lambda value, key: _params(value),
    "params-by-id": lambda value, key: _params_by_id(value),
    "macros": lambda value, key: _macros(value),
    "priorities": lambda value, key: _priorities(value),
}
