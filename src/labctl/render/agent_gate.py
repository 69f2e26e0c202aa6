"""What a host must know to sleep, and to look after a wake whether it works: two sections of ``agent.json``.

``sleep``: how, and the network card that a magic packet calls; null where another back-end wakes the host,
for then no card needs to be armed.

``gate``: the cards by UUID or place; how computing is tried where the rack file names no command of its own;
and which engines have a model loaded at their start and so have to make a token. Each program is tried once
for each set of cards, with the variables and as the user of its unit, since what root can compute on says
nothing of the engine. Below llama-swap only what it loads at its start is asked for: the gate loads no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labctl.inventory import (
    Gpu,
    Host,
    LlamaServer,
    LlamaSwap,
    Rack,
    WakeOnLan,
)
from labctl.inventory.builds import backends, cards_of, vendor_of
from labctl.inventory.engines import LlamaCpp
from labctl.inventory.services import Engine, each_engine
from labctl.render import places
from labctl.render.launch import launch
from labctl.render.units import unit_name

_WHAT = {"embedding": "embedding", "rerank": "rerank"}


def sleep(rack: Rack, host: Host) -> dict[str, Any]:
    """Return how the host sleeps, and by which card it is woken."""
    card = host.wake if isinstance(host.wake, WakeOnLan) else None
    wol = None if card is None else {"mac": card.mac, "secureon": card.secureon_file is not None}
    return {"how": host.idle.how, "wol": wol}


def gate(rack: Rack, host: Host) -> dict[str, Any]:
    """Return what must be true of the host before it serves."""
    wanted = host.gate
    return {
        "gpus": [_card(gpu) for gpu in host.gpus if vendor_of(gpu) in ("nvidia", "amd")],
        "command": list(wanted.command),
        "smoke": [] if wanted.command else _smoke(rack, host),
        "decode": list(_decode(rack, host)) if wanted.decode else [],
        "timeout_s": wanted.timeout.total_seconds(),
        "reload_driver": wanted.reload_driver,
        "reboot": wanted.reboot,
    }


def _card(gpu: Gpu) -> dict[str, Any]:
    return {"uuid": gpu.uuid, "pci": gpu.pci, "vendor": vendor_of(gpu)}


def _smoke(rack: Rack, host: Host) -> list[dict[str, Any]]:
    """Return how computing is tried: each program once, on the most cards that an engine of it sees."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for engine in _engines(host):
        if not _backends(rack, host, engine):
            continue
        cards = cards_of(host, engine)
        start = launch(rack, host, engine, port="0")
        how = "list" if isinstance(engine, LlamaServer) else "sum"
        program = start.argv[0] if how == "list" else f"{start.argv[0].rpartition('/')[0]}/python"
        test = {
            "service": engine.name,
            "how": how,
            "argv": [program],
            "env": dict(sorted(start.env.items())),
            "user": engine.user,
            "cards": len(cards),
        }
        key = (how, program, engine.user)
        if key not in found or found[key]["cards"] < len(cards):
            found[key] = test
    return list(found.values())


def _decode(rack: Rack, host: Host) -> Iterator[dict[str, Any]]:
    """Yield which engine has to make a token with which model."""
    for service in host.services:
        for below, engine in each_engine(service):
            loaded = not below or (isinstance(service, LlamaSwap) and engine.model in service.preload)
            if not isinstance(engine, Engine) or not loaded:
                continue
            yield {
                "unit": unit_name(service),
                "model": engine.model,
                "what": _WHAT.get(rack.model(engine.model).kind, "completion"),
                # Of Vulkan no driver tells who computes by it.
                "cards": _backends(rack, host, engine) in ({"cuda"}, {"rocm"}),
            }


def _engines(host: Host) -> Iterator[Engine]:
    for service in host.services:
        for _, engine in each_engine(service):
            if isinstance(engine, Engine):
                yield engine


def _backends(rack: Rack, host: Host, engine: Engine) -> set[str]:
    """Return what an engine may compute with on cards; none where it does not, or nobody knows."""
    cards = cards_of(host, engine)
    if not cards or (isinstance(engine, LlamaServer) and engine.n_gpu_layers == 0):
        return set()
    on_cards = {one for one in backends(host, cards) if one != "cpu"}
    if not isinstance(engine, LlamaServer):
        return on_cards & {"cuda", "rocm"}
    found = places.choice(rack, host, engine)
    if found is None:
        # Of a program of the distribution nobody says what it computes with; of one's own, the cards say it.
        return on_cards if engine.binary is not None else set()
    chosen: set[str] = {build.backend for build in found.builds if isinstance(build, LlamaCpp)}
    return chosen - {"cpu"}
