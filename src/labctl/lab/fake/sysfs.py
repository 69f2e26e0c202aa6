"""Fake /sys, /proc and module files of a host with graphics cards, as plain files below one folder.

The plain tree *is* the state: who changes a file there changes what the host sees. What refuses writes as
the kernel does is laid over it (``manners``). The folder holds ``sys/`` (bus/pci, devices/pci0000:00,
class/drm, class/hwmon, class/kfd, module) and ``proc/`` (driver, modules); a host gets its parts bound over
the real ones.

NVIDIA cards are on the PCI bus and nothing more until a driver's module is loaded; amdgpu comes with the
kernel, so AMD cards are complete from the boot on. hwmon numbers are not stable and start above 0 on purpose.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from labctl.lab.fake.boards import AmdBoard, Board, Card
from labctl.lab.fake.programs import kmod

_DEVICES = kmod.DEVICES
_FIRST_HWMON = 3
_FIRST_RENDER = 128
_GPU_ID = 51001
_COMPUTE_BRANDS = (2, 14)
_UW = 1_000_000
AMDGPU = "6.12.12"


def build(root: Path, cards: Iterable[Card], *, memory_mib: int = 131072) -> None:
    """Write the tree of these cards below ``root``, as after a boot; what was there before is gone."""
    present = tuple(cards)
    for part in ("sys", "proc"):
        shutil.rmtree(root / part, ignore_errors=True)
    for folder in ("bus/pci/devices", "bus/pci/drivers", "devices/pci0000:00", "module"):
        (root / "sys" / folder).mkdir(parents=True)
    for folder in ("drm", "hwmon"):
        (root / "sys/class" / folder).mkdir(parents=True)
    (root / "proc/driver").mkdir(parents=True)
    (root / "proc/modules").touch(0o444)
    for card in present:
        _pci(root, card)
    amd = [card for card in present if isinstance(card.board, AmdBoard)]
    if amd:
        kmod.show(root, "amdgpu", AMDGPU)
        kmod.show(root, "ttm")
        _put(root / "sys/module/ttm/parameters/pages_limit", memory_mib * 256 // 2, writable=True)
        _put(root / "sys/module/ttm/parameters/page_pool_size", memory_mib * 256 // 2, writable=True)
        _put(root / "sys/module/amdgpu/parameters/gttsize", -1)
        _kfd(root, amd)
    for number, card in enumerate(amd):
        _amdgpu(root, card, number)


def remove(root: Path, card: Card) -> None:
    """Take a card off the bus, with all that its driver made of it."""
    device = root / _DEVICES / card.pci
    for kind in ("drm", "hwmon"):
        for link in (root / "sys/class" / kind).iterdir():
            if device.resolve() in link.resolve().parents:
                link.unlink()
    for driver in (root / "sys/bus/pci/drivers").iterdir():
        (driver / card.pci).unlink(missing_ok=True)
    (root / "sys/bus/pci/devices" / card.pci).unlink(missing_ok=True)
    shutil.rmtree(device, ignore_errors=True)
    for node in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"):
        if f"location_id {_location(card)}\n" in node.read_text():
            shutil.rmtree(node.parent)


def _put(path: Path, value: object, *, writable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    path.chmod(0o644 if writable else 0o444)


def _fill(folder: Path, values: Mapping[str, object], writable: Iterable[str] = ()) -> None:
    for name, value in values.items():
        _put(folder / name, value, writable=name in writable)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def _pci(root: Path, card: Card) -> None:
    device = root / _DEVICES / card.pci
    board = card.board
    subsystem = ("0x1002", "0x0e3b") if isinstance(board, AmdBoard) else ("0x3842", "0x4037")
    number = f"{card.vendor[2:].upper()}:{board.device:04X}"
    gen, width = (4, 16) if isinstance(board, AmdBoard) else board.pcie
    driver = "DRIVER=amdgpu\n" if isinstance(board, AmdBoard) else ""
    kind = _pci_class(board)
    speed = {1: "2.5", 3: "8.0", 4: "16.0", 5: "32.0"}[gen]
    _fill(
        device,
        {
            "vendor": card.vendor,
            "device": f"0x{board.device:04x}",
            "subsystem_vendor": subsystem[0],
            "subsystem_device": subsystem[1],
            "revision": "0xc8" if isinstance(board, AmdBoard) else "0xa1",
            "class": kind,
            "uevent": f"{driver}PCI_CLASS={kind[2:].lstrip('0').upper()}\nPCI_ID={number}\n"
            f"PCI_SUBSYS_ID={subsystem[0][2:].upper()}:{subsystem[1][2:].upper()}\nPCI_SLOT_NAME={card.pci}",
            "current_link_speed": f"{speed} GT/s PCIe",
            "max_link_speed": f"{speed} GT/s PCIe",
            "current_link_width": width,
            "max_link_width": width,
            "numa_node": -1,
            "local_cpulist": "0-15",
            "boot_vga": 0,
            "enable": 1,
        },
    )
    _link(root / "sys/bus/pci/devices" / card.pci, device)
    _link(device / "subsystem", root / "sys/bus/pci")


def _pci_class(board: Board) -> str:
    """Return VGA, or for what has no display plug "3D" (NVIDIA) or "display" (AMD)."""
    if isinstance(board, AmdBoard):
        return "0x038000" if board.apu else "0x030000"
    return "0x030200" if board.brand in _COMPUTE_BRANDS else "0x030000"


def _amdgpu(root: Path, card: Card, number: int) -> None:
    """Write what the amdgpu driver shows of a card; ``number`` counts the AMD cards that are there."""
    board = card.board
    assert isinstance(board, AmdBoard)
    device = root / _DEVICES / card.pci
    kmod.bind(root, "amdgpu", card.vendor)
    steps = (500, board.clock_mhz * 3 // 4, board.clock_mhz)
    said: dict[str, object] = {
        "vbios_version": "113-D7020100-102",
        "mem_info_vram_total": board.vram_mib << 20,
        "mem_info_vram_used": 26 << 20,
        "mem_info_vis_vram_total": board.vram_mib << 20,
        "mem_info_vis_vram_used": 26 << 20,
        "mem_info_gtt_total": board.gtt_mib << 20,
        "mem_info_gtt_used": 20 << 20,
        "mem_info_vram_vendor": "samsung",
        "gpu_busy_percent": 0,
        "mem_busy_percent": 0,
        "power_dpm_force_performance_level": "auto",
        "power_dpm_state": "performance",
        "pp_dpm_sclk": "\n".join(f"{i}: {mhz}Mhz {'*' if not i else ''}" for i, mhz in enumerate(steps)),
        "pp_dpm_mclk": "0: 96Mhz *\n1: 1249Mhz ",
        "pp_dpm_pcie": "0: 2.5GT/s, x16 619Mhz \n1: 16.0GT/s, x16 619Mhz *",
        "pcie_replay_count": 0,
        "thermal_throttling_logging": f"{card.pci}: thermal throttling logging enabled",
    }
    if not board.apu:
        said["unique_id"] = unique_id(card)
        said["product_name"] = board.name
    _fill(device, said, {"power_dpm_force_performance_level"})
    hwmon = device / f"hwmon/hwmon{_FIRST_HWMON + number}"
    _fill(hwmon, _sensors(board), {"power1_cap"})
    _link(hwmon / "device", device)
    _link(root / "sys/class/hwmon" / hwmon.name, hwmon)
    for name, minor in (
        (f"card{number}", number),
        (f"renderD{_FIRST_RENDER + number}", _FIRST_RENDER + number),
    ):
        _put(device / "drm" / name / "dev", f"226:{minor}")
        _link(device / "drm" / name / "device", device)
        _link(root / "sys/class/drm" / name, device / "drm" / name)


def unique_id(card: Card) -> str:
    """Return the number by which amdgpu knows a card: 16 hexadecimal digits."""
    return card.uuid.replace("-", "")[:16]


def _sensors(board: AmdBoard) -> dict[str, object]:
    """Return the hwmon files; one of an APU has neither a cap nor sensors of junction, memory and fan."""
    common: dict[str, object] = {
        "name": "amdgpu",
        "temp1_input": 41000,
        "temp1_label": "edge",
        "in0_input": 750,
        "in0_label": "vddgfx",
        "freq1_input": 500_000_000,
        "freq1_label": "sclk",
        "power1_label": "PPT",
    }
    if board.default_w is None or board.min_w is None or board.max_w is None:
        return common | {"power1_input": 9 * _UW}
    return common | {
        "power1_average": 16 * _UW,
        "power1_cap": board.default_w * _UW,
        "power1_cap_default": board.default_w * _UW,
        "power1_cap_min": board.min_w * _UW,
        "power1_cap_max": board.max_w * _UW,
        "temp1_crit": 100000,
        "temp2_input": 44000,
        "temp2_label": "junction",
        "temp2_crit": 110000,
        "temp3_input": 48000,
        "temp3_label": "mem",
        "temp3_crit": 108000,
        "fan1_input": 0,
        "fan1_min": 0,
        "fan1_max": 3300,
        "fan1_enable": 0,
        "pwm1": 0,
        "pwm1_min": 0,
        "pwm1_max": 255,
        "pwm1_enable": 2,
        "freq2_input": 96_000_000,
        "freq2_label": "mclk",
    }


def _location(card: Card) -> int:
    return int(card.pci[5:7], 16) << 8


def _kfd(root: Path, cards: list[Card]) -> None:
    """Write the topology that ROCm reads: node 0 is the processor, each card is a node."""
    top = root / "sys/class/kfd/kfd/topology"
    _put(top / "generation_id", 2)
    _put(top / "system_properties", "platform_oem 35322351972929\nplatform_id 0\nplatform_rev 1")
    (root / "sys/class/kfd/kfd/proc").mkdir(parents=True)
    _node(top, 0, 0, "", {"cpu_cores_count": 16, "simd_count": 0, "location_id": 0})
    for number, card in enumerate(cards):
        board = card.board
        assert isinstance(board, AmdBoard)
        own = {
            "cpu_cores_count": 0,
            "simd_count": board.units * 2,
            "vendor_id": int(card.vendor, 16),
            "device_id": board.device,
            "location_id": _location(card),
            "drm_render_minor": _FIRST_RENDER + number,
            "unique_id": 0 if board.apu else int(unique_id(card), 16),
            "gfx_target_version": board.gfx,
            "num_xcc": 1,
        }
        _node(top, number + 1, _GPU_ID + number, "ip discovery", own)


def _node(top: Path, number: int, gpu: int, name: str, own: dict[str, int]) -> None:
    node = top / "nodes" / str(number)
    _put(node / "gpu_id", gpu)
    _put(node / "name", name)
    shared = {"simd_per_cu": 2, "hive_id": 0, "array_count": 12, "simd_arrays_per_engine": 2}
    properties = own | shared | {"cu_per_simd_array": 8, "domain": 0}
    _put(node / "properties", "\n".join(f"{key} {value}" for key, value in properties.items()))
    link = {"type": 2, "node_from": number, "node_to": 0 if number else 1, "weight": 20, "flags": 1}
    zeros = ("version_major", "version_minor", "min_latency", "max_latency", "min_bandwidth", "max_bandwidth")
    more = (*zeros, "recommended_transfer_size", "recommended_sdma_engine_id_mask")
    lines = [f"{key} {value}" for key, value in (link | dict.fromkeys(more, 0)).items()]
    _put(node / "io_links/0/properties", "\n".join(lines))
