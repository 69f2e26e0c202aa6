"""What a host draws and does right now: the key ``telemetry`` of a line of ``report --watch``.

It costs the host next to nothing and wakes nothing: a card in runtime suspend is ``asleep`` and not asked,
an engine is asked on loopback for its counters only. Counters (``energy_mj``, ``rapl_uj``, ``tokens``) only
rise; they begin anew with a boot, a driver's load or an engine's start, and whoever takes differences must
see to it.

The value, as the agent writes it (null: not known)::

    {"wall": 1764400000.1,
     "gpus": [{"uuid": "GPU-...", "pci": "0000:01:00.0", "name": "RTX 3090", "asleep": false, "power_w": 27.1,
               "energy_mj": 812345678, "cap_w": 280.0, "busy_percent": 0, "temperature_c": 31.0,
               "vram_mib": 24576, "vram_used_mib": 1200}],
     "rapl_uj": {"package-0": 123456789}, "rapl_max_uj": {"package-0": 262143328850},
     "engines": [{"service": "chat", "kind": "llama-server", "active": true, "models": ["qwen"],
                  "running": 0, "waiting": 0, "tokens": 81230.0}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GpuNow:
    """A card: watts, mJ since the driver was loaded, cap in W, percent, degrees Celsius, MiB."""

    uuid: str
    pci: str
    name: str
    asleep: bool
    power_w: float | None = None
    energy_mj: int | None = None
    cap_w: float | None = None
    busy_percent: int | None = None
    temperature_c: float | None = None
    vram_mib: int | None = None
    vram_used_mib: int | None = None


@dataclass(frozen=True, slots=True)
class EngineNow:
    """An engine: the models it has loaded, its requests, and the tokens that it made since it started."""

    service: str
    kind: str
    active: bool
    models: tuple[str, ...] = ()
    running: int | None = None
    waiting: int | None = None
    tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A host at the wall time ``wall`` by its own clock."""

    wall: float
    gpus: tuple[GpuNow, ...] = ()
    rapl_uj: Mapping[str, int] = field(default_factory=dict)
    rapl_max_uj: Mapping[str, int] = field(default_factory=dict)
    engines: tuple[EngineNow, ...] = ()
