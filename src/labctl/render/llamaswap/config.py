"""A llama-swap's configuration, from the same list of models as everything else.

Written for release 250 and newer: groups or a matrix stand below ``routing.router``, never at the top. Keys
are references to variables of the unit's environment. Engines listen on loopback on ports that llama-swap
gives them, and are asked for their health where that costs nothing: SGLang's ``/health`` generates a token,
so it is asked for ``/model_info``.

Each model that is listed carries in its metadata a digest of the whole configuration, marks of builds and
model files included. ``/v1/models`` shows it, so anybody can tell which configuration a llama-swap really
runs; its own API does not say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from labctl.inventory import Host, LlamaSwap, Rack, Vllm
from labctl.inventory.checks.llamaswap import WRAPPER
from labctl.inventory.checks.swap_settings import MARK
from labctl.inventory.remembered import remembered
from labctl.inventory.services import Command, Swappable, Swapped
from labctl.inventory.swapping import (
    WAKE_S,
    Peer,
    Served,
    health_check_s,
    load_s,
    peer_timeout_s,
    peers,
    seconds,
    served,
    sleeper_port,
)
from labctl.render import HEADER
from labctl.render.credentials import Credential
from labctl.render.launch import ConfigFile, Launch, launch
from labctl.render.llamaswap.words import PORT, command, document, with_environment

FOLDER = "/etc/labctl/llama-swap"
KEY = "LABCTL_API_KEY"
HEALTH = {"llama-server": "/health", "vllm": "/health", "sglang": "/model_info", "tabbyapi": "/health"}
_CONNECT_S = 30


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration and what goes with it.

    ``listed`` is what ``/v1/models`` must show, ``commands`` what ``/running`` may show, with the macro of
    the port. ``launches`` are how its engines are started. ``sleeps``: an engine may outlive its turns, and
    would outlive a reload, too.
    """

    path: str
    text: str
    digest: str
    listed: tuple[str, ...]
    commands: Mapping[str, str]
    secrets: tuple[Credential, ...]
    launches: tuple[Launch, ...]
    sleeps: bool
    values: Mapping[str, Any]

    @property
    def trial(self) -> str:
        """Return the same configuration without what would act, and with what makes its start be told."""
        return document(_trial(self.values))

    @property
    def files(self) -> tuple[ConfigFile, ...]:
        """Return the files that its engines read."""
        return tuple(file for one in self.launches for file in one.files)


@remembered(4)
def config(rack: Rack, host: Host, swap: LlamaSwap) -> Config:
    """Return the configuration of a llama-swap of ``host``.

    Raises:
        LabctlError: an engine has no build that fits, or asks for a card whose UUID is not known.
    """
    mine, others = served(rack, swap), peers(rack, host, swap)
    starts = [_launch(rack, host, swap, one) for one in mine]
    models = {one.id: _model(rack, host, (swap, one), start) for one, start in zip(mine, starts, strict=True)}
    wanted = _top(rack, host, swap, models)
    if others:
        wanted["peers"] = {peer.id: _peer(rack, swap, peer) for peer in others}
    for name, value in swap.settings.items():
        if name != "routing":
            wanted[name] = deepcopy(value)
    head = _head(host, swap, starts)
    digest = hashlib.sha256(f"{head}{document(wanted)}".encode()).hexdigest()[:16]
    for model in models.values():
        model["metadata"] = {**model.get("metadata", {}), MARK: digest}
    return Config(
        f"{FOLDER}/{swap.name}.yaml",
        f"{head}{document(wanted)}",
        digest,
        _listed(rack, swap, mine, others),
        {name: model["cmd"] for name, model in models.items()},
        _secrets(swap, others),
        tuple(starts),
        any(one.sleep for one in swap.models),
        wanted,
    )


def _head(host: Host, swap: LlamaSwap, starts: list[Launch]) -> str:
    marks = dict.fromkeys(mark for start in starts for mark in start.marks)
    return "".join(
        f"{line}\n"
        for line in (HEADER, f"# llama-swap {swap.name} of {host.name}", *(f"# {m}" for m in marks))
    )


def _top(rack: Rack, host: Host, swap: LlamaSwap, models: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "healthCheckTimeout": health_check_s(rack, host, swap),
        "startPort": swap.start_port,
    }
    if (ttl := seconds(swap.global_ttl)) is not None:
        found["globalTTL"] = ttl
    if swap.macros:
        found["macros"] = dict(swap.macros)
    if swap.api_key is not None:
        found["apiKeys"] = [f"${{env.{KEY}}}"]
    found["routing"] = {**deepcopy(swap.settings.get("routing", {})), "router": _router(swap)}
    if swap.preload:
        found["hooks"] = {"on_startup": {"preload": list(swap.preload)}}
    found["models"] = models
    return found


def _router(swap: LlamaSwap) -> dict[str, Any]:
    if swap.matrix is not None:
        matrix: dict[str, Any] = {"vars": dict(swap.matrix.vars)} if swap.matrix.vars else {}
        if swap.matrix.evict_costs:
            matrix["evict_costs"] = dict(swap.matrix.evict_costs)
        return {"use": "matrix", "settings": {"matrix": {**matrix, "sets": dict(swap.matrix.sets)}}}
    if not swap.groups:
        return {"use": "group"}
    groups = {
        group.name: {
            "swap": group.swap,
            "exclusive": group.exclusive,
            "persistent": group.persistent,
            "members": list(group.members),
        }
        for group in swap.groups
    }
    return {"use": "group", "settings": {"groups": groups}}


def _launch(rack: Rack, host: Host, swap: LlamaSwap, one: Served) -> Launch:
    port = sleeper_port(swap, one.place)
    return launch(rack, host, one.swapped.engine, port=PORT if port is None else str(port))


def _model(rack: Rack, host: Host, which: tuple[LlamaSwap, Served], start: Launch) -> dict[str, Any]:
    swap, one = which
    swapped = one.swapped
    env = dict(start.env)
    argv = list(start.argv)
    found: dict[str, Any] = {}
    if (port := sleeper_port(swap, one.place)) is not None:
        env["VLLM_SERVER_DEV_MODE"] = "1"
        upstream = f"http://127.0.0.1:{port}"
        wait = f"{load_s(rack, host, swapped.engine)}s"
        serve = ["serve", "--vllm-url", upstream, "--listen", f"127.0.0.1:{PORT}", "--wait-timeout", wait]
        argv = [swap.macros[WRAPPER], *serve, "--", *argv]
        sleep = ["sleep", "--vllm-url", upstream, "--stop-pid"]
        found["cmdStop"] = f"{command([swap.macros[WRAPPER], *sleep])} ${{PID}}"
    argv, plain = with_environment(argv, env)
    found = {"cmd": command(argv), **found, "proxy": f"http://127.0.0.1:{PORT}"}
    found["checkEndpoint"] = HEALTH.get(swapped.engine.kind, "/health")
    if plain:
        found["env"] = plain
    if one.aliases:
        found["aliases"] = list(one.aliases)
    return {**found, **_stated(swapped), **deepcopy(_settings(swapped.engine, swapped.settings))}


def _settings(engine: Swappable, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the further keys; what only a Command may say of itself goes for no other engine."""
    if isinstance(engine, Command):
        return dict(given)
    return {name: value for name, value in given.items() if name not in ("proxy", "checkEndpoint")}


def _stated(swapped: Swapped) -> dict[str, Any]:
    stated = {
        "ttl": seconds(swapped.ttl),
        "concurrencyLimit": swapped.concurrency_limit,
        "unlisted": swapped.unlisted or None,
        "sendLoadingState": swapped.send_loading_state,
        "unloadTimeout": seconds(swapped.unload_timeout),
    }
    if isinstance(swapped.engine, Vllm) and swapped.sleep and stated["unloadTimeout"] is None:
        stated["unloadTimeout"] = 60  # the cache goes to main memory first
    return {name: value for name, value in stated.items() if value is not None}


def _peer(rack: Rack, swap: LlamaSwap, peer: Peer) -> dict[str, Any]:
    found: dict[str, Any] = {"proxy": peer.url}
    if peer.swap.api_key is not None:
        found["apiKey"] = f"${{env.{_variable(peer)}}}"
    found["models"] = [name for one in served(rack, peer.swap) for name in one.names]
    connect = max(_CONNECT_S, WAKE_S[peer.host.wake.kind])
    found["timeouts"] = {"connect": connect, "responseHeader": peer_timeout_s(rack, swap, peer)}
    return found


def _variable(peer: Peer) -> str:
    """Return the variable with a peer's key; what no variable may bear is written by its code."""
    name = "".join(char if char.isalnum() else f"_{ord(char):X}_" for char in peer.id)
    return f"LABCTL_PEER_{name.upper()}_KEY"


def _secrets(swap: LlamaSwap, others: tuple[Peer, ...]) -> tuple[Credential, ...]:
    found = []
    if swap.api_key is not None:
        found.append(Credential(swap.name, "api-key", swap.api_key, f"{KEY}={{secret}}\n", environment=True))
    for peer in others:
        if peer.swap.api_key is not None:
            form = f"{_variable(peer)}={{secret}}\n"
            found.append(Credential(swap.name, f"peer-{peer.id}", peer.swap.api_key, form, environment=True))
    return tuple(found)


def _trial(wanted: Mapping[str, Any]) -> dict[str, Any]:
    quiet = {name: value for name, value in wanted.items() if name not in ("hooks", "store")}
    return {**quiet, "performance": {"disabled": True}, "logToStdout": "proxy", "logLevel": "info"}


def _listed(
    rack: Rack, swap: LlamaSwap, mine: tuple[Served, ...], others: tuple[Peer, ...]
) -> tuple[str, ...]:
    with_aliases = swap.settings.get("includeAliasesInList") is True
    names = [
        name
        for one in mine
        if not one.swapped.unlisted
        for name in (one.names if with_aliases else (one.id,))
    ]
    names += [f"{peer.id}/{name}" for peer in others for one in served(rack, peer.swap) for name in one.names]
    selectors = swap.settings.get("selectors", {})
    names += [name for name, selector in selectors.items() if not selector.get("unlisted")]
    return tuple(sorted(names))
