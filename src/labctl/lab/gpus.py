"""The graphics cards of one host of the rack: where their state lies, how it gets there, how they break.

A host's cards live in a folder of the sandbox that the host sees as /opt/lab/gpu: the state of the fake NVML,
a plain tree of sysfs (with the kernel's manners laid over it where there are AMD cards), and the program that
is the host's first process and shows all this in /sys, /proc and /dev. Whether the driver is there depends on
what is installed on the host's disk, as on a real one.

A boot is what it is for hardware: caps, locks and modes are forgotten, faults are healed, and the driver's
module is loaded if its file is on the disk. A card that was removed stays away until it is put back, and is
then seen at the next boot. Whatever is done here is done to files, so it works on a host whose tools hang.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError
from labctl.lab.fake import nvml, sysfs
from labctl.lab.fake.boards import AmdBoard, Card, NvidiaBoard, cards
from labctl.lab.fake.mount import serve
from labctl.lab.fake.programs import kmod
from labctl.lab.spec import LabHost

INSIDE = "/opt/lab/gpu"
INIT = f"{INSIDE}/init"
FAULTS = ("lost", "hang", "refuse", "blocked", "mismatch", "unloaded", "nouveau", "heal")
_OF_ONE_CARD = {
    "lost": {"err": 15},
    "hang": {"delay": 600_000},
    "refuse": dict.fromkeys(
        (
            "err.nvmlDeviceSetPowerManagementLimit",
            "err.nvmlDeviceSetPowerManagementLimit_v2",
            "err.nvmlDeviceSetGpuLockedClocks",
        ),
        4,
    ),
}
_BLOCKED = 17
_MODULE_FILE = "usr/lib/modules/*/updates/dkms/nvidia.ko"
_VERSION = re.compile(rb"\0version=([0-9.]+)\0")
_HELD = re.compile(r"^\s*(blacklist\s+nouveau|install\s+nouveau)\b", re.MULTILINE)


def gpu_folder(run: Path, name: str) -> Path:
    """Return the folder of a host's cards, below the sandbox's folder for hosts."""
    return run / name / "gpu"


class HostGpus:
    """The cards of one host, whose files lie in ``folder``; for the sandbox and for who damages them."""

    def __init__(self, host: LabHost, folder: Path) -> None:
        self.cards = cards(host.gpus, host.name)
        self.name, self.sleeps = host.name, host.sleeps
        self.folder = folder
        self.tree, self.state = folder / "tree", folder / "nvidia.state"
        self._manners: subprocess.Popen[bytes] | None = None

    # For the sandbox.

    def prepare(self, root: Path) -> None:
        """Make the files of a host that was never booted, all cards in place; its disk is at ``root``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("removed", "nouveau"):
            (self.folder / name).unlink(missing_ok=True)
        for name, source in (
            ("init", "init.sh"),
            ("modprobe", "programs/kmod.py"),
            ("rmmod", "programs/kmod.py"),
        ):
            (self.folder / name).write_bytes(files("labctl.lab.fake").joinpath(source).read_bytes())
            (self.folder / name).chmod(0o755)
        for name in ("nvidia.log", "nvidia.state.clients"):
            (self.folder / name).touch(0o644)
        # The last two are for hosts that sleep: their power management is shown in this skeleton, too.
        for name in (
            *("class/drm", "class/hwmon", "class/kfd", "bus/pci", "devices/pci0000:00"),
            *(("class/rtc", "devices/virtual/net/eth0/device/power") if self.sleeps else ()),
        ):
            (self.folder / "skeleton" / name).mkdir(parents=True, exist_ok=True)
        self.boot(root)

    def serve(self) -> None:
        """Lay the kernel's manners over the tree, in this mount namespace, if there are AMD cards."""
        if any(isinstance(card.board, AmdBoard) for card in self.cards) and self._manners is None:
            (self.folder / "mnt").mkdir(exist_ok=True)
            self._manners = serve(self.tree, self.folder / "mnt")

    def boot(self, root: Path) -> None:
        """Bring the cards into the state after a boot of the host whose disk is at ``root``."""
        present = [card for card in self.cards if card.pci not in self._removed()]
        before = nvml.parse(self.state.read_text()) if self.state.exists() else {}
        sysfs.build(self.tree, present)
        shutil.rmtree(self.tree / ".faults", ignore_errors=True)
        (self.tree / ".faults").mkdir()
        gone = [card for card in self.cards if card not in present and isinstance(card.board, NvidiaBoard)]
        values: dict[str, Any] = {f"gpu{card.index}.removed": 1 for card in gone}
        values |= {
            key.removesuffix("_pending"): v for key, v in before.items() if key.endswith(".ecc_pending")
        }
        values |= {key: value for key, value in before.items() if key.endswith(".ecc_pending")}
        self.state.write_text(nvml.changed(nvml.state_text(self.cards, driver=None), **values))
        self.state.chmod(0o644)
        if any(isinstance(card.board, NvidiaBoard) for card in present):
            self._load(root)
        nodes = _nodes(present, self.tree)
        (self.folder / "nodes").write_text("".join(f"{line}\n" for line in nodes))

    def _load(self, root: Path) -> None:
        version = _on_disk(root)
        if (self.folder / "nouveau").exists() and not _holds_nouveau(root):
            kmod.load(self.tree, self.state, "nouveau", "")
        elif version:
            kmod.load(self.tree, self.state, "nvidia", version)

    # For those who look at the cards or break them.

    def look(self) -> dict[str, Any]:
        """Return the loaded ``driver`` and each card's place, model, address, identity, watts and faults."""
        state = nvml.parse(self.state.read_text())
        return {
            "driver": state.get("driver"),
            "writes": (self.folder / "nvidia.log").read_text().splitlines(),
            "cards": [self._look_at(card, state) for card in self.cards],
        }

    def _look_at(self, card: Card, state: dict[str, str]) -> dict[str, Any]:
        removed = card.pci in self._removed()
        seen = {
            "model": card.board.model,
            "pci": card.pci,
            "uuid": card.uuid if isinstance(card.board, NvidiaBoard) else sysfs.unique_id(card),
            "removed": removed,
        }
        if isinstance(card.board, NvidiaBoard):
            limit = state.get(f"gpu{card.index}.power_limit_mw")
            persists = state.get(f"gpu{card.index}.persistence") == "1"
            return seen | {"cap_w": int(limit) / 1000 if limit else None, "persistence": persists}
        cap = None if removed else self._file(card, "power1_cap")
        return seen | {"cap_w": int(cap.read_text()) / 1e6 if cap else None}

    def change(self, index: int, **values: str | int | None) -> None:
        """Change what a card says: keys of the fake NVML, or file names of amdgpu's device or hwmon folder.

        Raises:
            LabctlError: there is no such card or file.
        """
        card = self._card(index)
        if isinstance(card.board, NvidiaBoard):
            self._change({f"gpu{card.index}.{key}": value for key, value in values.items()})
            return
        for name, value in values.items():
            file = self._file(card, name)
            if file is None:
                raise LabctlError(f"the card {card.board.model} has no file {name}", host=self.name)
            mode = file.stat().st_mode
            file.chmod(0o644)
            file.write_text(f"{value}\n")
            file.chmod(mode & 0o777)

    def remove(self, index: int) -> None:
        """Pull a card: it is gone at once and stays away over boots, until ``restore``."""
        card = self._card(index)
        (self.folder / "removed").write_text(json.dumps(sorted({*self._removed(), card.pci})))
        sysfs.remove(self.tree, card)
        if isinstance(card.board, NvidiaBoard):
            self._change({f"gpu{card.index}.removed": 1})

    def restore(self) -> None:
        """Put every removed card back; the host sees them from its next boot on."""
        (self.folder / "removed").unlink(missing_ok=True)

    def fault(self, index: int | None, kind: str) -> None:
        """Break a card (lost, hang, refuse), or what concerns all (blocked, mismatch, unloaded, nouveau).

        ``heal`` takes lost, hang, refuse and blocked away; the rest, and those too, go with a boot. A host
        with ``nouveau`` loads that driver at boot, unless something on its disk keeps it from that.

        Raises:
            LabctlError: there is no such card or fault.
        """
        if kind == "heal":
            self._heal()
        elif kind in _OF_ONE_CARD:
            self._break(self._card(0 if index is None else index), kind)
        elif kind == "blocked":
            self._change({"err.nvmlInitWithFlags": _BLOCKED})
        elif kind == "mismatch":
            self._age_module()
        elif kind == "unloaded":
            kmod.hide(self.tree, "nvidia")
            kmod.tell_nvml(self.state, None)
        elif kind == "nouveau":
            (self.folder / "nouveau").touch()
            if not kmod.is_loaded(self.tree, "nvidia"):
                kmod.load(self.tree, self.state, "nouveau", "")
        else:
            raise LabctlError(f"no such fault of cards as {kind!r}", hint=f"there are {', '.join(FAULTS)}")

    def _break(self, card: Card, kind: str) -> None:
        if isinstance(card.board, NvidiaBoard):
            self._change({f"gpu{card.index}.{key}": value for key, value in _OF_ONE_CARD[kind].items()})
        elif kind == "lost":
            sysfs.remove(self.tree, card)
        else:
            (self.tree / ".faults" / card.pci).write_text(kind)

    def _heal(self) -> None:
        keys = {key for values in _OF_ONE_CARD.values() for key in values}
        wrong = {f"gpu{card.index}.{key}" for card in self.cards for key in keys} | {"err.nvmlInitWithFlags"}
        self._change(dict.fromkeys(wrong))
        for fault in (self.tree / ".faults").iterdir():
            fault.unlink()

    def _age_module(self) -> None:
        """Make the loaded module older than what is installed, as after an upgrade without a reboot."""
        loaded = nvml.parse(self.state.read_text()).get("driver")
        if loaded is None:
            raise LabctlError("no driver is loaded that could be older than its library", host=self.name)
        older = f"{int(loaded.split('.')[0]) - 1}.54.03"
        kmod.hide(self.tree, "nvidia")
        kmod.bind(self.tree, "nvidia", kmod.NVIDIA)
        kmod.show(self.tree, "nvidia", older)
        self._change({"driver": older})

    def _card(self, index: int) -> Card:
        if not 0 <= index < len(self.cards):
            known = f"0 to {len(self.cards) - 1}" if self.cards else "none"
            raise LabctlError(f"it has no card {index}", hint=f"there are {known}", host=self.name)
        return self.cards[index]

    def _file(self, card: Card, name: str) -> Path | None:
        device = self.tree / kmod.DEVICES / card.pci
        found = [device / name, *device.glob(f"hwmon/*/{name}")]
        return next((file for file in found if "/" not in name and file.is_file()), None)

    def _removed(self) -> set[str]:
        file = self.folder / "removed"
        return set(json.loads(file.read_text())) if file.exists() else set()

    def _change(self, values: dict[str, Any]) -> None:
        with _locked(self.state) as file:
            text = nvml.changed(file.read(), **values)
            file.seek(0)
            file.truncate()
            file.write(text)


@contextmanager
def _locked(path: Path) -> Iterator[Any]:
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _on_disk(root: Path) -> str | None:
    """Return the version of the NVIDIA module on a host's disk."""
    for file in sorted(root.glob(_MODULE_FILE)):
        found = _VERSION.search(file.read_bytes())
        if found:
            return found[1].decode()
    return None


def _holds_nouveau(root: Path) -> bool:
    folders = ("etc/modprobe.d", "usr/lib/modprobe.d", "run/modprobe.d")
    found = (file for folder in folders for file in (root / folder).glob("*.conf") if file.is_file())
    return any(_HELD.search(file.read_text(errors="replace")) for file in found)


def _nodes(present: list[Card], tree: Path) -> Iterator[str]:
    """Yield the device files that the loaded drivers make: path, mode and group."""
    amd = [card for card in present if isinstance(card.board, AmdBoard)]
    yield from (f"{path} 666 root" for path in kmod.nodes(tree))
    for number in range(len(amd)):
        yield f"/dev/dri/card{number} 660 video"
        yield f"/dev/dri/renderD{128 + number} 660 render"
    if amd:
        yield "/dev/kfd 660 render"
