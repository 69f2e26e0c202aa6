"""llama-swap: does each configuration that would be rendered hold together, alone and with its peers?

llama-swap has no check of its own and is found broken when it restarts, or not even then: it ignores a
mistyped key, takes a preload of an unknown model, and answers for neither of two peers that share a name. So
everything that its reader refuses is refused here, and so is what it takes in silence and does not do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from labctl.domain.swapsets import SetError, matrix_sets
from labctl.inventory.checks import swap_peers
from labctl.inventory.checks.finding import Finding, Where, each_host, missing, twice
from labctl.inventory.checks.swap_settings import settings
from labctl.inventory.engines import LlamaSwapBuild
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import Command, Engine, LlamaSwap, Swapped, Vllm
from labctl.inventory.swapping import (
    OLDEST_VERSION,
    Served,
    health_check_s,
    last_port,
    peers,
    predicted_load_s,
    seconds,
    served,
    swaps,
)

LEAST_HEALTH_CHECK_S = 15
WRAPPER = "vllm-wrapper"
_VAR = re.compile(r"[a-zA-Z0-9.-]{1,32}")


def llama_swaps(rack: Rack) -> Iterator[Finding]:
    """Yield everything in which llama-swaps disagree with themselves, their host, or each other."""
    for index, build in enumerate(rack.engines):
        if isinstance(build, LlamaSwapBuild):
            yield from _version(("engines", index, "version"), build.version)
    for at, host in each_host(rack):
        for place, swap in swaps(host):
            here = (*at, "services", place)
            mine = served(rack, swap)
            others = peers(rack, host, swap)
            yield from _idle(here, swap)
            yield from _names(here, mine)
            yield from _engines(here, swap)
            yield from _router(here, swap, mine)
            yield from _ports(here, rack, host, swap)
            yield from _times(here, rack, host, swap)
            yield from swap_peers.peers(here, rack, host, swap)
            yield from settings(here, swap, mine, swap_peers.askable(rack, mine, others))


def _version(at: Where, version: str) -> Iterator[Finding]:
    number = re.fullmatch(r"v?(\d+)", version)
    if number is None or int(number[1]) < OLDEST_VERSION:
        yield Finding(
            at,
            f"labctl renders for llama-swap {OLDEST_VERSION} and newer, not for {version!r}",
            f'pin such a release: version="{OLDEST_VERSION}"',
        )


def _idle(at: Where, swap: LlamaSwap) -> Iterator[Finding]:
    if not swap.models and not swap.peers:
        yield Finding(at, "serves nothing: it has neither `models` nor `peers`", "add models=[Swapped(...)]")


def _names(at: Where, mine: Sequence[Served]) -> Iterator[Finding]:
    def names() -> Iterator[tuple[Where, str, str]]:
        for one in mine:
            part = "model" if one.swapped.engine.model else "name"
            yield (*at, "models", one.place, "engine", part), one.id, f"model {one.id} of this llama-swap"
        for one in mine:
            for alias in one.aliases:
                path = (*at, "models", one.place, "engine", "model")
                yield path, alias, f"model {one.id} of this llama-swap"

    hint = "llama-swap has one engine for each name; give the other a LlamaSwap of its own"
    yield from twice(names(), hint)


def _engines(at: Where, swap: LlamaSwap) -> Iterator[Finding]:
    for place, swapped in enumerate(swap.models):
        engine, here = swapped.engine, (*at, "models", place, "engine")
        if isinstance(engine, Command):
            portless = not any("${PORT}" in word for word in engine.argv)
            if portless and "proxy" not in swapped.settings:
                yield Finding(
                    (*here, "argv"),
                    "does not say where it listens, so llama-swap could not reach it",
                    'put ${PORT} where its port goes, such as "--port", "${PORT}"',
                )
        if "user" in engine.model_fields_set and engine.user != swap.user:
            yield Finding(
                (*here, "user"), f"llama-swap starts it as {swap.user}", "say `user` of the LlamaSwap"
            )
        yield from _sleep((*at, "models", place, "sleep"), swap, swapped)


def _sleep(at: Where, swap: LlamaSwap, swapped: Swapped) -> Iterator[Finding]:
    if not swapped.sleep:
        return
    engine = swapped.engine
    if not isinstance(engine, Vllm) or not engine.enable_sleep_mode:
        yield Finding(at, "only a Vllm(...) with enable_sleep_mode=True can sleep", "remove `sleep`")
    elif WRAPPER not in swap.macros:
        yield Finding(
            at,
            "llama-swap always ends the process that it started, so sleeping takes its vllm-wrapper, which "
            "its releases do not hold",
            f'build cmd/vllm-wrapper of llama-swap, and say macros={{"{WRAPPER}": "/path/on/the/host"}}',
        )


def _router(at: Where, swap: LlamaSwap, mine: Sequence[Served]) -> Iterator[Finding]:
    ids = [one.id for one in mine]
    aliases = {alias: one.id for one in mine for alias in one.aliases}

    def unknown(path: Where, name: str) -> Iterator[Finding]:
        if name in aliases:
            yield Finding(path, f"{name} is only another name of {aliases[name]}", f"write {aliases[name]!r}")
        elif name not in ids:
            yield missing(path, "model of this llama-swap", name, ids)

    owner: dict[str, str] = {}
    for index, group in enumerate(swap.groups):
        for place, member in enumerate(group.members):
            path = (*at, "groups", index, "members", place)
            yield from unknown(path, member)
            if member in owner:
                yield Finding(path, f"{member} is in group {owner[member]} already", "a model has one group")
            owner.setdefault(member, group.name)
    yield from twice(
        ((*at, "groups", index, "name"), group.name, "another group")
        for index, group in enumerate(swap.groups)
    )
    for place, name in enumerate(swap.preload):
        yield from unknown((*at, "preload", place), name)
    if swap.matrix is None:
        return
    here = (*at, "matrix")
    for var, target in swap.matrix.vars.items():
        if not _VAR.fullmatch(var):
            reason = f"{var!r} is no name of a var: letters, digits, '-' and '.', at most 32"
            yield Finding((*here, "vars", var), reason)
        yield from unknown((*here, "vars", var), target)
    for name, cost in swap.matrix.evict_costs.items():
        if name not in swap.matrix.vars:
            yield from unknown((*here, "evict_costs", name), name)
        if cost < 1:
            yield Finding((*here, "evict_costs", name), "must be at least 1", "1 is what all others cost")
    yield from _sets(here, swap.matrix.sets, swap.matrix.vars, ids)


def _sets(
    at: Where, sets: Mapping[str, str], vars: Mapping[str, str], ids: Sequence[str]
) -> Iterator[Finding]:
    # A var that leads nowhere has been told; the sets are not to say it again.
    reachable = [*ids, *vars.values()]
    try:
        matrix_sets(sets, vars, reachable)
    except SetError as error:
        yield Finding((*at, "sets", error.name), error.reason, error.hint)


def _ports(at: Where, rack: Rack, host: Host, swap: LlamaSwap) -> Iterator[Finding]:
    if not swap.models:
        return
    first, last = swap.start_port, last_port(swap)
    path = (*at, "start_port")
    span = f"engines of {swap.name} get ports {first} to {last}"
    if last > 65535:
        yield Finding(path, f"{span}, and there is none after 65535", "start lower")
    taken = [(rack.ssh_for(host).port, rack.ssh_for(host).port, "sshd")]
    for service in host.services:
        if service.port is not None:
            taken.append((service.port, service.port, f"service {service.name}"))
        if isinstance(service, LlamaSwap) and service.models and service is not swap:
            taken.append((service.start_port, last_port(service), f"the engines of service {service.name}"))
    for low, high, owner in taken:
        if low <= last and first <= high:
            yield Finding(path, f"{span}, but {max(low, first)} is taken by {owner}", "start elsewhere")


def _times(at: Where, rack: Rack, host: Host, swap: LlamaSwap) -> Iterator[Finding]:
    allowed = health_check_s(rack, host, swap)
    path = (*at, "health_check_timeout")
    if allowed < LEAST_HEALTH_CHECK_S:
        yield Finding(
            path,
            f"llama-swap would make {LEAST_HEALTH_CHECK_S} s of {allowed} s in silence",
            "leave it out, and it follows from sizes and disk",
        )
    for one in served(rack, swap):
        engine = one.swapped.engine
        stated = seconds(engine.load_timeout) if isinstance(engine, Engine) else None
        predicted = predicted_load_s(rack, host, engine)
        for needed, why in ((stated, "as its load_timeout says"), (predicted, "at the disk's rate")):
            if needed is not None and needed > allowed:
                yield Finding(
                    path,
                    f"stops a model after {allowed} s, but {one.id} takes {needed} s to load {why}",
                    f'at least "{needed}s", or leave it out',
                )
