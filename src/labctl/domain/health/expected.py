"""What the rack file wants of a host, as far as it can be checked; made by ``render.expected``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ExpectedGpu:
    """A declared card; ``width`` is the PCIe width that its slot has, None: as wide as the card can."""

    label: str
    uuid: str | None
    model: str
    vendor: str
    cap_w: float | None
    width: int | None = None
    gen: int | None = None


@dataclass(frozen=True, slots=True)
class ExpectedEngine:
    """A service that serves models; ``gpus`` are labels of its cards, empty: it runs on the processor."""

    service: str
    kind: str
    gpus: tuple[str, ...]
    config: str = ""  # the digest of llama-swap's configuration as the rack file renders it
    config_sha256: str = ""  # of that configuration's whole text


@dataclass(frozen=True, slots=True)
class Feed:
    """A PSU or circuit that this host draws from: its name, its budget in W, and who else draws from it."""

    name: str
    kind: Literal["psu", "circuit"]
    budget_w: float
    gpus: tuple[str, ...]  # labels on this host that it feeds
    others_w: float  # what else the budget counts on it: base load, and hosts that were not measured


@dataclass(frozen=True, slots=True)
class Expected:
    """A host as it should be; see ``terms.Case``."""

    host: str
    gpus: tuple[ExpectedGpu, ...] = ()
    engines: tuple[ExpectedEngine, ...] = ()
    feeds: tuple[Feed, ...] = ()
    model_mount: str = ""
    sleeps: bool = False
    wakeable: bool = False
    armed: bool = False  # Wake-on-LAN must be armed on it
    certificates: tuple[str, ...] = ()
