"""AMD graphics, as the amdgpu driver shows them in sysfs; no library and no privilege is needed.

What a card does not have is null: a Strix Halo has no power cap, and 0 W would read like one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .host import ROOT, number, text

_AMD = "0x1002"
_CARD = re.compile(r"card[0-9]+")


def amd(root: Path = ROOT) -> dict[str, Any]:
    """Return the AMD cards of this host, by PCI address."""
    folder = root / "sys/class/drm"
    cards = [path for path in folder.iterdir() if _CARD.fullmatch(path.name)] if folder.is_dir() else []
    found = [_card(path) for path in cards if text(path / "device/vendor") == _AMD]
    return {"gpus": sorted(found, key=lambda gpu: gpu["pci"] or "")}


def _card(path: Path) -> dict[str, Any]:
    device = path / "device"
    sensors = next(iter(sorted((device / "hwmon").glob("hwmon*"))), device / "hwmon/none")
    uevent = dict(line.partition("=")[::2] for line in (text(device / "uevent") or "").splitlines())
    draw_uw = number(sensors / "power1_average")
    return {
        "card": path.name,
        "pci": uevent.get("PCI_SLOT_NAME"),
        "driver": uevent.get("DRIVER"),
        "device_id": text(device / "device"),
        "name": text(device / "product_name") or None,
        "unique_id": text(device / "unique_id") or None,
        "vram_mib": _mib(number(device / "mem_info_vram_total")),
        "vram_used_mib": _mib(number(device / "mem_info_vram_used")),
        "gtt_mib": _mib(number(device / "mem_info_gtt_total")),
        "busy_percent": number(device / "gpu_busy_percent"),
        "power_w": _watts(number(sensors / "power1_input") if draw_uw is None else draw_uw),
        "cap_w": _watts(number(sensors / "power1_cap")),
        "cap_default_w": _watts(number(sensors / "power1_cap_default")),
        "cap_min_w": _watts(number(sensors / "power1_cap_min")),
        "cap_max_w": _watts(number(sensors / "power1_cap_max")),
    }


def _mib(size: int | None) -> int | None:
    return None if size is None else size >> 20


def _watts(microwatts: int | None) -> float | None:
    return None if microwatts is None else round(microwatts / 1e6, 1)
