"""Settings that llama-swap takes by its own names: what is in them, and the macros that they use.

Beyond the table of keys: what labctl renders itself is not set twice, every ``${...}`` must be something when
llama-swap reads it, and selectors, profiles and priorities must name models that are there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from labctl.inventory.checks.finding import Finding, Where, missing
from labctl.inventory.checks.swap_keys import (
    LEGACY,
    MODEL,
    ONLY_FOR_COMMANDS,
    TOP,
    keys,
    macro_problem,
)
from labctl.inventory.explain import did_you_mean
from labctl.inventory.services import Command, LlamaSwap, Swapped
from labctl.inventory.swapping import Served

_MACRO = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_ENV = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")
MARK = "labctl"
Macros = Sequence[tuple[str, Any]]


def settings(
    at: Where, swap: LlamaSwap, served: Sequence[Served], names: Collection[str]
) -> Iterator[Finding]:
    """Yield what is wrong with the settings of a llama-swap at ``at`` and of its models.

    ``names`` are all that clients may ask it for: its own models, and those of its peers.
    """
    here = (*at, "settings")
    yield from keys(here, swap.settings, TOP)
    for name in swap.settings:
        if name in LEGACY:
            yield Finding(
                (*here, name),
                "llama-swap 250 refuses this beside routing.router, where labctl writes it",
                f"move it to `{name}` of the LlamaSwap",
            )
        elif (key := TOP.get(name)) is not None and key.elsewhere:
            yield Finding((*here, name), "is rendered by labctl", f"say it by `{key.elsewhere}`")
    if isinstance(routing := swap.settings.get("routing"), Mapping) and "router" in routing:
        yield Finding(
            (*here, "routing", "router"),
            "is rendered by labctl",
            "say it by `groups` or `matrix` of the LlamaSwap",
        )
    yield from _macros(at, swap)
    yield from _references(here, swap.settings, served, names)
    for one in served:
        yield from _model((*at, "models", one.place, "settings"), swap, one)


def _model(at: Where, swap: LlamaSwap, one: Served) -> Iterator[Finding]:
    given = one.swapped.settings
    yield from keys(at, given, MODEL)
    for name in given:
        key = MODEL.get(name)
        if key is not None and key.elsewhere:
            yield Finding((*at, name), "is rendered by labctl", f"say it by `{key.elsewhere}`")
        elif name in ONLY_FOR_COMMANDS and not isinstance(one.swapped.engine, Command):
            yield Finding((*at, name), f"is rendered by labctl for a {one.swapped.engine.kind}", "remove it")
    if isinstance(metadata := given.get("metadata"), Mapping) and MARK in metadata:
        yield Finding(
            (*at, "metadata", MARK), "is what labctl knows its own configuration by", "choose another"
        )
    own = given.get("macros")
    macros = [("MODEL_ID", one.id), *swap.macros.items(), *(own.items() if isinstance(own, Mapping) else ())]
    if _has_port(one.swapped):
        macros.append(("PORT", swap.start_port))
    for path, text in _texts(at, {name: value for name, value in given.items() if name != "macros"}):
        stop = path[len(at) : len(at) + 1] == ("cmdStop",)
        yield from _unknown(path, text, [*macros, ("PID", 1)] if stop else macros, swap)


def _has_port(swapped: Swapped) -> bool:
    engine = swapped.engine
    return not isinstance(engine, Command) or any("${PORT}" in word for word in engine.argv)


def _macros(at: Where, swap: LlamaSwap) -> Iterator[Finding]:
    earlier: list[tuple[str, Any]] = []
    for name, value in swap.macros.items():
        if problem := macro_problem(name, value):
            yield Finding((*at, "macros", name), *problem.split(" -> "))
        else:
            yield from _unknown(
                (*at, "macros", name), value, [("MODEL_ID", ""), ("PORT", ""), *earlier], swap
            )
        earlier.append((name, value))
    for path, text in _texts((*at, "settings"), swap.settings):
        yield from _unknown(path, text, list(swap.macros.items()), swap)


def _unknown(path: Where, text: str, macros: Macros, swap: LlamaSwap) -> Iterator[Finding]:
    """Yield macros of a text that are nothing when llama-swap has replaced those that it knows."""
    for name in _ENV.findall(text):
        if name not in swap.env:
            yield Finding(
                path,
                f"${{env.{name}}} is not set where llama-swap runs, and it would refuse to start",
                f'add env={{"{name}": "..."}} to the LlamaSwap; never a secret',
            )
    # As llama-swap does it: the last first, so that a macro may contain those before it.
    for name, value in reversed(macros):
        text = text.replace(f"${{{name}}}", str(value))
    for name in _MACRO.findall(text):
        yield Finding(
            path, f"there is no macro ${{{name}}} here", did_you_mean(name, [known for known, _ in macros])
        )


def _texts(path: Where, value: object) -> Iterator[tuple[Where, str]]:
    """Yield every text in a value with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts((*path, str(name)), inner)
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _texts((*path, place), inner)


def _references(
    at: Where, given: Mapping[str, Any], served: Sequence[Served], names: Collection[str]
) -> Iterator[Finding]:
    """Yield models that selectors, profiles and priorities name and nobody serves."""
    own = {name for one in served for name in one.names}
    selectors = _mapping(given.get("selectors"))
    for name, selector in selectors.items():
        here = (*at, "selectors", str(name))
        if name in own:
            yield Finding(here, "is also the name of a model of this llama-swap", "choose another")
        if not isinstance(selector, Mapping):
            continue
        targets = selector.get("targets")
        if "strategy" not in selector or not targets:
            yield Finding(here, "needs `strategy` and `targets`", 'strategy="pin", targets=[...]')
        local_only = selector.get("strategy") == "warm"
        for place, target in enumerate(targets if isinstance(targets, (list, tuple)) else ()):
            if target not in (own if local_only else names):
                what = "model of this llama-swap" if local_only else "model here or on a peer"
                yield missing((*here, "targets", place), what, str(target), own if local_only else names)
    for name, profile in _mapping(given.get("profiles")).items():
        pins = _mapping(_mapping(profile).get("pins"))
        if not pins:
            yield Finding((*at, "profiles", str(name)), "pins nothing", 'pins={"chat": "MODEL"}')
        for pin, target in pins.items():
            if target and target not in names and target not in selectors:
                path = (*at, "profiles", str(name), "pins", str(pin))
                yield missing(path, "model here or on a peer", str(target), names)
    priority: Any = given
    for part in ("routing", "scheduler", "settings", "fifo", "priority"):
        priority = _mapping(priority).get(part)
    for name in _mapping(priority):
        if name not in own:
            path = (*at, "routing", "scheduler", "settings", "fifo", "priority", str(name))
            yield missing(path, "model of this llama-swap", str(name), own)


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
