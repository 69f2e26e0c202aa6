"""AMD graphics, as the amdgpu driver shows them in sysfs; no library and no privilege is needed.

What a card does not have is null: a Strix Halo has no power cap, and 0 W would read like one. The numbers of
cards and sensors change from boot to boot, so a card goes by its unique id and PCI address. Each is looked at
with a deadline, since a hung one keeps its readers in the kernel.

A card in runtime suspend is ``asleep`` and its sensors are left alone: reading them would wake it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..domain.pci import address
from .host import ROOT, number, text
from .sections import HANG, More

_AMD = "0x1002"
_CARD = re.compile(r"card[0-9]+")
_GENERATIONS = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "32.0": 5, "64.0": 6}
_CLOCK_IN_USE = re.compile(r"^\d+:\s*(\d+)\s*mhz.*\*", re.IGNORECASE | re.MULTILINE)
_NAMES = "usr/share/libdrm/amdgpu.ids"
_AWAKE_ONLY = (
    *("vram_used_mib", "busy_percent", "power_w", "cap_w", "cap_default_w", "cap_min_w", "cap_max_w"),
    *("pcie", "clocks"),
)


def amd(root: Path = ROOT, deeper: Callable[[Path], Any] | None = None) -> More:
    """Return the AMD cards of this host as further sections, ``amd/card0`` and so on.

    Args:
        root: where the host's file system begins.
        deeper: what else to ask a card that is awake; it is the card's ``health`` then.
    """
    paths = cards(root)
    targets = _targets(root) if paths else {}
    look = partial(_card, targets=targets, root=root, deeper=deeper)
    return More({"gpus": []}, {f"amd/{path.name}": partial(look, path) for path in paths})


def assembled(
    gpus: Mapping[str, Any], findings: Mapping[str, Mapping[str, str]], root: Path = ROOT
) -> dict[str, Any]:
    """Return the section with its cards in it, by PCI address, those that hung included."""
    known = [
        gpu or _silent(root / "sys/class/drm" / name.partition("/")[2], findings[name])
        for name, gpu in gpus.items()
    ]
    return {"gpus": sorted(known, key=lambda gpu: gpu["pci"] or "")}


def cards(root: Path) -> list[Path]:
    """Return the folders of AMD's cards under ``/sys/class/drm``."""
    folder = root / "sys/class/drm"
    found = [path for path in folder.iterdir() if _CARD.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(path for path in found if text(path / "device/vendor") == _AMD)


def pci_of(path: Path) -> str | None:
    """Return a card's PCI address."""
    return address(_uevent(path).get("PCI_SLOT_NAME"))


def unique_id_of(path: Path) -> str | None:
    """Return the number that is burnt into a card, or None where it has none."""
    return text(path / "device/unique_id") or None


def name_of(path: Path, root: Path) -> str | None:
    """Return what a card is called: by itself, which few do, else by the list that comes with libdrm."""
    own = text(path / "device/product_name")
    if own:
        return own
    device, revision = (text(path / "device" / file) or "" for file in ("device", "revision"))
    wanted = (device[2:].lower(), revision[2:].lower())
    for line in (text(root / _NAMES) or "").splitlines():
        fields = [field.strip() for field in line.split(",", 2)]
        if len(fields) == 3 and (fields[0].lower(), fields[1].lower()) == wanted:
            return fields[2]
    return None


def device_of(path: Path) -> str | None:
    """Return the PCI ids of a card, ``1002:744c``, by which cards without a name are known."""
    device = text(path / "device/device") or ""
    return f"1002:{device[2:].lower()}" if device.startswith("0x") else None


def is_asleep(path: Path) -> bool:
    """Return whether the card is in runtime suspend."""
    return text(path / "device/power/runtime_status") == "suspended"


def sensors_of(path: Path) -> Path:
    """Return the folder of the card's own sensors; there may be others beside it, and none at all."""
    found = sorted((path / "device/hwmon").glob("hwmon*"))
    own = [folder for folder in found if text(folder / "name") == "amdgpu"]
    return next(iter(own or found), path / "device/hwmon/none")


def watts(microwatts: int | None) -> float | None:
    """Return watts, to one decimal."""
    return None if microwatts is None else round(microwatts / 1e6, 1)


def _uevent(path: Path) -> dict[str, str]:
    lines = (text(path / "device/uevent") or "").splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def _known(path: Path) -> dict[str, Any]:
    """Return what the kernel knows of a card without asking it."""
    unique = unique_id_of(path)
    return {
        "card": path.name,
        "pci": pci_of(path),
        "driver": _uevent(path).get("DRIVER"),
        "device_id": text(path / "device/device"),
        "uuid": unique,
        "unique_id": unique,
        "asleep": is_asleep(path),
        "code": None,
        "errors": {},
    }


def _silent(path: Path, finding: Mapping[str, str]) -> dict[str, Any]:
    """Return what is known of a card whose process hung or died."""
    known = _known(path)
    nothing = dict.fromkeys((*_AWAKE_ONLY, "name", "gfx", "vram_mib", "gtt_mib"))
    return {**known, **nothing, "code": finding.get("code", HANG), "errors": {"card": finding["what"]}}


def _card(
    path: Path, targets: dict[str, str], root: Path, deeper: Callable[[Path], Any] | None
) -> dict[str, Any]:
    device = path / "device"
    known = _known(path)
    still = {
        **known,
        "name": name_of(path, root),
        "gfx": targets.get(known["pci"] or ""),
        "vram_mib": _mib(number(device / "mem_info_vram_total")),
        "gtt_mib": _mib(number(device / "mem_info_gtt_total")),
    }
    if known["asleep"]:
        return {**still, **dict.fromkeys(_AWAKE_ONLY)}
    sensors = sensors_of(path)
    draw_uw = number(sensors / "power1_average")
    return {
        **still,
        "vram_used_mib": _mib(number(device / "mem_info_vram_used")),
        "busy_percent": number(device / "gpu_busy_percent"),
        "power_w": watts(number(sensors / "power1_input") if draw_uw is None else draw_uw),
        "cap_w": watts(number(sensors / "power1_cap")),
        "cap_default_w": watts(number(sensors / "power1_cap_default")),
        "cap_min_w": watts(number(sensors / "power1_cap_min")),
        "cap_max_w": watts(number(sensors / "power1_cap_max")),
        "pcie": link_of(device),
        "clocks": _clocks(device),
        **({} if deeper is None else {"health": deeper(path)}),
    }


def link_of(device: Path) -> dict[str, Any] | None:
    """Return a device's link now and at best, as the device itself sees it."""
    link = {
        "gen": _generation(text(device / "current_link_speed")),
        "width": number(device / "current_link_width"),
        "gen_max": _generation(text(device / "max_link_speed")),
        "width_max": number(device / "max_link_width"),
    }
    return None if all(value is None for value in link.values()) else link


def _generation(speed: str | None) -> int | None:
    return _GENERATIONS.get((speed or "").partition(" ")[0])


def _clocks(device: Path) -> dict[str, Any] | None:
    clocks = {
        "graphics_mhz": _in_use(text(device / "pp_dpm_sclk")),
        "memory_mhz": _in_use(text(device / "pp_dpm_mclk")),
    }
    return None if all(value is None for value in clocks.values()) else clocks


def _in_use(levels: str | None) -> int | None:
    found = _CLOCK_IN_USE.search(levels or "")
    return int(found[1]) if found else None


def _targets(root: Path) -> dict[str, str]:
    """Return LLVM's name of each card's target by PCI address, as the compute driver tells it."""
    found = {}
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for path in nodes.iterdir() if nodes.is_dir() else ():
        lines = (text(path / "properties") or "").splitlines()
        node = {
            name: int(value) for name, _, value in (line.partition(" ") for line in lines) if value.isdigit()
        }
        version, place = node.get("gfx_target_version", 0), node.get("location_id", 0)
        if version:
            pci = f"{node.get('domain', 0):04x}:{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}"
            found[pci] = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    return found


def _mib(size: int | None) -> int | None:
    return None if size is None else size >> 20
