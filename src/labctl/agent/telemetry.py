"""The key ``telemetry`` of a line of the watch: what this host draws and does.

It asks no NVIDIA card by itself. The signal ``gpu`` asks those that are awake anyway, by rules under which
they may still fall asleep, and notes here what they said beside; where cards may doze, that is once a
minute, and in between they are shown as they said last. Without that signal nothing is known of them but that
they are there. AMD's cards are read in sysfs, where reading costs nothing, unless they sleep.

The processor's energy counters are root's to read, since a fine clock on them can betray what others compute.
The unit of the agent's user may read them where a rule of udev says so; else they are left out.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..domain.pci import address
from . import amd, enginemetrics, nvml
from .config import Engine
from .host import number, text

_KEPT_S = 75.0
_POWERCAP = "sys/class/powercap"
_NAMES = ("power_w", "energy_mj", "cap_w", "busy_percent", "temperature_c", "vram_mib", "vram_used_mib")


class Meter:
    """What NVIDIA's cards said of themselves when they were asked last."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}
        self._names: dict[str, str] = {}

    def name_of(self, path: Path, root: Path) -> str:
        """Return what a card of AMD is called, else its PCI ids; the list of most names is read once."""
        if path.name not in self._names:
            self._names[path.name] = amd.name_of(path, root) or amd.device_of(path) or ""
        return self._names[path.name]

    def note(self, values: nvml.Values, card: Any, pci: str, load: Any) -> None:
        """Ask a card that is being asked anyway, and remember it; ``load`` is its utilisation."""
        read, pynvml = values.read, values.pynvml
        held = read("memory", pynvml.nvmlDeviceGetMemoryInfo, card)
        known = self._said.get(pci, (0.0, {}))[1]
        name = known.get("name") or nvml.word(read("name", pynvml.nvmlDeviceGetName, card))
        heat = read("temperature_c", pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU)
        said = {
            "uuid": nvml.word(read("uuid", pynvml.nvmlDeviceGetUUID, card)) or "",
            "name": name or "",
            "power_w": nvml.watts(read("power_w", pynvml.nvmlDeviceGetPowerUsage, card)),
            "energy_mj": read("energy_mj", pynvml.nvmlDeviceGetTotalEnergyConsumption, card),
            "cap_w": nvml.watts(read("cap_w", pynvml.nvmlDeviceGetEnforcedPowerLimit, card)),
            "busy_percent": load.gpu if load is not None else None,
            "temperature_c": heat,
            "vram_mib": held.total >> 20 if held else None,
            "vram_used_mib": held.used >> 20 if held else None,
        }
        self._said[pci] = (time.monotonic(), said)

    def told(self, card: nvml.Card) -> dict[str, Any]:
        """Return a card as the line shows it."""
        at, said = self._said.get(card.pci, (0.0, {}))
        fresh = not card.asleep and time.monotonic() - at <= _KEPT_S
        return {
            "uuid": said.get("uuid", ""),
            "pci": address(card.pci) or "",
            "name": said.get("name", ""),
            "asleep": card.asleep,
            **{name: said.get(name) if fresh else None for name in _NAMES},
        }


def now(root: Path, meter: Meter, engines: tuple[Engine, ...]) -> dict[str, Any]:
    """Return what this host draws and does now."""
    energy, most = _rapl(root)
    return {
        "wall": round(time.time(), 2),
        "gpus": [meter.told(card) for card in nvml.cards(root)]
        + [_amd(path, meter.name_of(path, root)) for path in amd.cards(root)],
        "rapl_uj": energy,
        "rapl_max_uj": most,
        "engines": enginemetrics.now(engines, root),
    }


def _amd(path: Path, name: str) -> dict[str, Any]:
    device, asleep = path / "device", amd.is_asleep(path)
    known = {
        "uuid": amd.unique_id_of(path) or "",
        "pci": amd.pci_of(path) or "",
        "name": name,
        "asleep": asleep,
    }
    if asleep:
        return {**known, **dict.fromkeys(_NAMES)}
    sensors = amd.sensors_of(path)
    draw, heat = number(sensors / "power1_average"), number(sensors / "temp1_input")
    total, used = number(device / "mem_info_vram_total"), number(device / "mem_info_vram_used")
    return {
        **known,
        "power_w": amd.watts(number(sensors / "power1_input") if draw is None else draw),
        "energy_mj": None,
        "cap_w": amd.watts(number(sensors / "power1_cap")),
        "busy_percent": number(device / "gpu_busy_percent"),
        "temperature_c": None if heat is None else heat / 1000,
        "vram_mib": None if total is None else total >> 20,
        "vram_used_mib": None if used is None else used >> 20,
    }


def _rapl(root: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the processors' energy counters in uJ that may be read, and where they begin anew, by name.

    Packages alone: what lies below one (cores, memory) is counted in it, or is not on every processor.
    """
    energy, most = {}, {}
    folder = root / _POWERCAP
    for zone in sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else ():
        if zone.name.count(":") != 1:
            continue
        count, name = number(zone / "energy_uj"), text(zone / "name") or zone.name
        if count is not None:
            energy[name] = count
            top = number(zone / "max_energy_range_uj")
            if top is not None:
                most[name] = top
    return energy, most
