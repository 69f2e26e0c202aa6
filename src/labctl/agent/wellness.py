"""How well a card is, beyond what its report says: heat, what holds it down, its link, its memory, its users.

A value that a card does not have is null, as everywhere; one that failed has its reason under the card's
``errors``. ``throttle`` has a word for each kind of reason, the same for both makers. Of AMD's bits the one
for the hot spot is left out, since RDNA 3 nearly always shows it; how hot that spot is says more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import nvml
from .amd import link_of, sensors_of
from .host import number, text
from .signals.processes import unit_of

# NVML's clocks event reasons.
_NVIDIA_REASONS = {
    0x4: "power-cap",
    0x8: "hw-slowdown",
    0x20: "sw-thermal",
    0x40: "hw-thermal",
    0x80: "power-brake",
    0x200: "board-limit",
    0x400: "reliability",
}
# amdgpu's throttler bits that do not depend on the chip: from, to, word.
_AMD_REASONS = (
    (0, 8, "power-cap"),
    (16, 24, "board-limit"),
    (32, 36, "sw-thermal"),
    (37, 44, "sw-thermal"),
    (44, 48, "hw-thermal"),
    (57, 58, "reliability"),
)
_AMD_STATUS_AT = {(1, 3): 112, (2, 2): 120, (2, 3): 120, (2, 4): 120}
_NOT_TOLD = (1 << 64) - 1
_MEMORY_TEMP, _RECOVERY = 82, 230
_RECOVERIES = (
    *("none", "reset", "reboot", "drain-p2p", "drain-and-reset", "recover-imex", "bus-reset"),
    "system-reboot",
)
_AMD = "0x1002"
_BRIDGE = "0x0604"


# --- NVIDIA ---


def of_nvidia(values: nvml.Values, card: Any, root: Path) -> dict[str, Any]:
    """Return how well a card is whose handle this is."""
    read, pynvml = values.read, values.pynvml
    fields = _fields(values, card)
    pending = read("retired_pages", pynvml.nvmlDeviceGetRetiredPagesPendingStatus, card)
    recovery = fields.get(_RECOVERY)
    slowdown = pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    return {
        "throttle": _reasons(values, card),
        "hotspot_c": None,
        "memory_c": fields.get(_MEMORY_TEMP) or None,  # 0 is what cards without that sensor say
        "slowdown_c": read("slowdown_c", pynvml.nvmlDeviceGetTemperatureThreshold, card, slowdown),
        "replays": read("replays", pynvml.nvmlDeviceGetPcieReplayCounter, card),
        "slot": None,
        "rows": _rows(read("rows", pynvml.nvmlDeviceGetRemappedRows, card)),
        "retired_pending": None if pending is None else bool(pending),
        "recovery": _RECOVERIES[recovery] if recovery is not None and recovery < len(_RECOVERIES) else None,
        "processes": _holders(values, card, root),
    }


def _reasons(values: nvml.Values, card: Any) -> list[str] | None:
    pynvml = values.pynvml
    bits = values.read("throttle", pynvml.nvmlDeviceGetCurrentClocksEventReasons, card)
    if bits is None:  # as drivers before 535 call it
        bits = values.read("throttle", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, card)
    return None if bits is None else [word for bit, word in _NVIDIA_REASONS.items() if bits & bit]


def _fields(values: nvml.Values, card: Any) -> dict[int, int]:
    pynvml = values.pynvml
    found = values.read("fields", pynvml.nvmlDeviceGetFieldValues, card, [_MEMORY_TEMP, _RECOVERY])
    return {one.fieldId: int(one.value.uiVal) for one in found or () if one.nvmlReturn == 0}


def _rows(found: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    corrected, uncorrected, pending, failed = found
    return {
        "corrected": corrected,
        "uncorrected": uncorrected,
        "pending": bool(pending),
        "failed": bool(failed),
    }


def _holders(values: nvml.Values, card: Any, root: Path) -> list[dict[str, Any]] | None:
    """Return the processes on a card with the MiB that they hold and their units; null: it does not say."""
    pynvml = values.pynvml
    computing = values.read("processes", pynvml.nvmlDeviceGetComputeRunningProcesses, card)
    drawing = values.read("processes", pynvml.nvmlDeviceGetGraphicsRunningProcesses, card)  # Vulkan's
    if computing is None:
        return None
    held = {int(one.pid): int(one.usedGpuMemory or 0) for one in (*computing, *(drawing or ()))}
    return [{"pid": pid, "mib": size >> 20, "unit": unit_of(root, pid)} for pid, size in held.items()]


# --- AMD ---


def of_amd(path: Path) -> dict[str, Any]:
    """Return how well a card is that is awake and whose folder in sysfs this is."""
    heat = dict(_heat(sensors_of(path)))
    return {
        "temperature_c": heat.get(("edge", "input")),
        "throttle": _amd_reasons(path / "device/gpu_metrics"),
        "hotspot_c": heat.get(("junction", "input")),
        "memory_c": heat.get(("mem", "input")),
        "slowdown_c": heat.get(("edge", "crit")),
        "replays": number(path / "device/pcie_replay_count"),
        "slot": link_of(slot_of((path / "device").resolve())),
        "rows": None,
        "retired_pending": None,
        "recovery": None,
        "processes": None,
    }


def _heat(sensors: Path) -> Iterator[tuple[tuple[str, str], float]]:
    for file in sorted(sensors.glob("temp*_label")):
        for kind in ("input", "crit"):
            milli = number(file.with_name(file.name.replace("label", kind)))
            if milli is not None:
                yield (text(file) or "", kind), milli / 1000


def _amd_reasons(file: Path) -> list[str] | None:
    """Return why the driver holds the card down, null where its table has another form."""
    try:
        table = file.read_bytes()
    except OSError:
        return None
    at = _AMD_STATUS_AT.get((table[2], table[3])) if len(table) > 3 else None
    if at is None or len(table) < at + 8:
        return None
    (bits,) = struct.unpack_from("<Q", table, at)
    if bits == _NOT_TOLD:
        return None
    found = (word for low, high, word in _AMD_REASONS if bits >> low & (1 << high - low) - 1)
    return list(dict.fromkeys(found))


def slot_of(device: Path) -> Path:
    """Return whose link is the one to the slot: a bridge of AMD's own on the card, else the card's.

    Bigger cards have a bridge on them, and the link between that and the chip is always as wide as it can.
    """
    above = device.parent
    while text(above / "vendor") == _AMD and (text(above / "class") or "").startswith(_BRIDGE):
        if text(above.parent / "vendor") is None:
            break  # it is the processor's own port, not on the card
        device, above = above, above.parent
    return device
