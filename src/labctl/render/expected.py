"""What is checked on a host and in the rack, from the rack file alone: no file beside it is read.

A card's label is its one name, which the power budget uses too. Where nothing tells a card from others of its
model, its slot stands for it in the budget, and no finding says that it is that one.
"""

from __future__ import annotations

import hashlib
import posixpath
from datetime import UTC, datetime, time
from pathlib import PurePosixPath

import labctl
from labctl.domain.health.expected import Expected, ExpectedEngine, ExpectedGpu, ExpectedRack
from labctl.domain.health.thresholds import USUAL, Thresholds
from labctl.inventory import (
    Gpu,
    Host,
    LlamaServer,
    LlamaSwap,
    LoadedRack,
    NoWake,
    Ollama,
    Rack,
    WakeOnLan,
    profiles,
)
from labctl.inventory.builds import cards_of
from labctl.inventory.gatewaying import FOLDER as GATEWAY
from labctl.inventory.services import Engine, each_engine
from labctl.inventory.wanted import models
from labctl.inventory.watts import power_of
from labctl.render.caps import card
from labctl.render.gateway_table import CERTIFICATE
from labctl.render.llamaswap import config

_ASKED = ("nvidia", "amd")


def expected(loaded: LoadedRack, host: Host) -> Expected:
    """Return what a host is to be.

    Raises:
        LabctlError: llama-swap's configuration cannot be rendered, as for ``labctl plan``.
    """
    rack = loaded.rack
    idle, wakeable = host.idle, not isinstance(host.wake, NoWake)
    # One that only unloads its models stays on, so it has no reason to be dark.
    sleeps = idle.suspend and idle.how != "unload" and "always-on" not in host.roles and wakeable
    return Expected(
        host=host.name,
        gpus=tuple(_gpu(host, gpu) for gpu in host.gpus if profiles.of(gpu).vendor in _ASKED),
        engines=tuple(_engines(rack, host)),
        model_mount=_model_mount(rack, host),
        sleeps=sleeps,
        wakeable=wakeable,
        armed=isinstance(host.wake, WakeOnLan),
        controlled=rack.controller is not None,
        agent=labctl.__version__,
        certificates=certificates(rack, host),
        thresholds=thresholds(rack),
    )


def expected_rack(loaded: LoadedRack) -> ExpectedRack:
    """Return what all hosts share."""
    rack = loaded.rack
    days = {} if rack.health is None else rack.health.replace_by
    return ExpectedRack(
        power=power_of(rack),
        controlled=rack.controller is not None,
        replace_by={
            name: datetime.combine(day, time.min, tzinfo=UTC).timestamp() for name, day in days.items()
        },
        thresholds=thresholds(rack),
    )


def thresholds(rack: Rack) -> Thresholds:
    """Return the limits of a rack: its own, and labctl's where it states none."""
    return USUAL if rack.health is None else rack.health.limits.thresholds()


def certificates(rack: Rack, host: Host) -> tuple[str, ...]:
    """Return the files on a host whose certificates are watched: the gateway's, and those it names."""
    gateway = rack.gateway
    own = gateway is not None and gateway.host == host.name and gateway.certificate is not None
    return tuple(dict.fromkeys((*((f"{GATEWAY}/{CERTIFICATE}",) if own else ()), *host.certificates)))


def _gpu(host: Host, gpu: Gpu) -> ExpectedGpu:
    profile, cap = profiles.of(gpu), profiles.cap_of(host, gpu)
    return ExpectedGpu(
        label=label(gpu),
        uuid=gpu.uuid,
        model=gpu.model,
        vendor=profile.vendor,
        cap_w=None if cap is None else float(cap.watts),
        width=gpu.pcie_width,
        gen=gpu.pcie_gen,
        linked=not profile.unified,
        counted_w=float(profiles.draw_w(host, gpu)),
        declared=card(host, gpu),
    )


def label(gpu: Gpu) -> str:
    """Return the one name of a card, as the power budget calls it."""
    return gpu.slot or gpu.uuid or gpu.pci or gpu.model


def _engines(rack: Rack, host: Host) -> list[ExpectedEngine]:
    found = []
    for service in host.services:
        digest = sha256 = ""
        own: list[Engine | Ollama]
        if isinstance(service, LlamaSwap):
            own = [one for _, one in each_engine(service) if isinstance(one, Engine)]
            rendered = config(rack, host, service)
            # Models bear the digest, so one that only passes on to others shows none.
            digest = rendered.digest if service.models else ""
            sha256 = hashlib.sha256(rendered.text.encode()).hexdigest()
        elif isinstance(service, Engine | Ollama):
            own = [service]
        else:
            continue
        labels = dict.fromkeys(label(gpu) for one in own for gpu in _cards(host, one))
        found.append(ExpectedEngine(service.name, service.kind, tuple(labels), digest, sha256))
    return found


def _cards(host: Host, engine: Engine | Ollama) -> tuple[Gpu, ...]:
    """Return the cards that hold an engine; none where it runs on the processor by the rack file."""
    layers = engine.n_gpu_layers if isinstance(engine, LlamaServer) else None
    return () if host.backend == "none" or layers in (0, "0") else cards_of(host, engine)


def _model_mount(rack: Rack, host: Host) -> str:
    """Return the deepest folder that holds all models of a host; empty where it has none."""
    paths = [PurePosixPath(placed.path).parent for model in models(rack, host) for placed in model.layout()]
    return posixpath.commonpath([str(path) for path in paths]) if paths else ""
