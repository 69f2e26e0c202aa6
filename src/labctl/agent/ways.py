"""Whether this host can sleep the way that is asked for, and come back whole.

Asked are the kernel (its files), systemd (whose configuration may forbid what the kernel can), and the NVIDIA
driver. What lies in video memory does not outlive a sleep by itself. When nothing computes, nothing of worth
is there, so a driver that is not told to preserve it is safe after the engines are gone. A driver that *is*
told to must be able to: by its own units or the kernel's notifiers, into a folder on a real disk with room.
A driver that fails at that fails the whole sleep, or comes back with broken cards.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from . import nvml
from .calls import call
from .host import text
from .kernel import kernel

MANAGER = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_ASKED_S = 10.0
_CAN = {"suspend": "CanSuspend", "hibernate": "CanHibernate", "power-off": "CanPowerOff"}
MEMORY = ("deep", "s2idle", "shallow")
_MEM_SLEEP = "sys/power/mem_sleep"
_STATES = {"suspend": ("mem", "freeze", "standby"), "hibernate": ("disk",)}
_UNITS = {
    "suspend": ("nvidia-suspend.service", "nvidia-resume.service"),
    "hibernate": ("nvidia-hibernate.service", "nvidia-resume.service"),
}
_PARAMETERS = "proc/driver/nvidia/params"
_IN_MEMORY = ("tmpfs", "ramfs")
_ROOM = 1.05  # NVIDIA asks for 5 % more than there is to write


def against(how: str, mem_sleep: str | None, root: Path) -> str | None:
    """Return what is against sleeping that way, None where nothing is; asked before any lock is taken."""
    if how == "unload":
        return None
    known = (text(root / _MEM_SLEEP) or "").replace("[", "").replace("]", "").split()
    if mem_sleep is not None and mem_sleep not in known:
        return (
            f"the kernel cannot sleep to {mem_sleep}: /sys/power/mem_sleep has {' '.join(known) or 'nothing'}"
        )
    return _kernel(how, root) or _systemd(how) or _driver(how, root)


def memory(root: Path) -> str | None:
    """Return how the kernel would sleep to memory now."""
    found = re.search(r"\[([a-z0-9]+)\]", text(root / _MEM_SLEEP) or "")
    return found[1] if found else None


def choose_memory(how: str, root: Path) -> None:
    """Choose how the kernel sleeps to memory.

    Raises:
        OSError: it does not take that.
    """
    (root / _MEM_SLEEP).write_text(how)


def _kernel(how: str, root: Path) -> str | None:
    wanted = _STATES.get(how)
    if wanted is None:
        return None
    states = (text(root / "sys/power/state") or "").split()
    if not set(wanted) & set(states):
        return f"the kernel cannot {how}: /sys/power/state has {' '.join(states) or 'nothing'}"
    if how == "hibernate" and not _swap_kib(root):
        return "there is no swap on a disk to hibernate to"
    return None


def _swap_kib(root: Path) -> int:
    """Return KiB of swap that outlive the power; what lies in memory does not."""
    lines = (text(root / "proc/swaps") or "").splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(int(row[2]) for row in rows if len(row) > 2 and "/zram" not in row[0] and row[2].isdigit())


def _systemd(how: str) -> str | None:
    answer = call("busctl", "call", *MANAGER, _CAN[how], within_s=_ASKED_S)
    said = answer.out.strip().removeprefix("s ").strip('"')
    if not answer.ok:
        return f"logind does not say whether it can {how}: {answer.why}"
    # That somebody holds a lock right now is for the look at locks to say, and by whom.
    if said not in ("yes", "challenge") and not said.startswith("inhibit"):
        return f"systemd does not {how} here (logind says {said!r}): look at /etc/systemd/sleep.conf"
    return None


# --- NVIDIA ---


def parameters(root: Path) -> dict[str, str]:
    """Return the loaded driver's options, by name."""
    lines = (text(root / _PARAMETERS) or "").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip().strip('"') for name, colon, value in pairs if colon}


def preserves(found: dict[str, str]) -> bool:
    """Return whether the driver writes all of video memory away before a sleep."""
    asked = found.get("PreserveVideoMemoryAllocations", "0")
    # 2 is "as it fits": it preserves where the kernel itself tells the driver of the sleep.
    return asked == "1" or (asked == "2" and _notified(found))


def _notified(found: dict[str, str]) -> bool:
    return found.get("UseKernelSuspendNotifiers", "0") == "1"


def _driver(how: str, root: Path) -> str | None:
    if how not in _UNITS or not nvml.cards(root):
        return None
    versions = kernel(root)
    loaded, library = versions["nvidia_module"], versions["nvidia_library"]
    if loaded is None:
        return None  # nothing of it runs, so nothing of it can break the sleep
    if library is not None and library != loaded:
        return f"the NVIDIA driver {loaded} is loaded and its library is {library}: reboot it first"
    found = parameters(root)
    if not found:
        return f"the NVIDIA driver's options cannot be read (/{_PARAMETERS})"
    if not preserves(found):
        return None
    if not _notified(found):
        for unit in _UNITS[how]:
            state = call("systemctl", "is-enabled", unit, within_s=_ASKED_S)
            if state.out.strip() not in ("enabled", "enabled-runtime", "static"):
                return (
                    f"the NVIDIA driver preserves video memory and {unit} is not enabled, so it could not: "
                    f"systemctl enable {unit}"
                )
    folder = found.get("TemporaryFilePath") or "/tmp"
    return _place(folder, root)


def _place(folder: str, root: Path) -> str | None:
    path = root / folder.lstrip("/")
    if not path.is_dir():
        return f"the NVIDIA driver would write video memory to {folder}, which is no folder"
    kind = _kind_of(folder, root)
    if kind in _IN_MEMORY:
        return f"the NVIDIA driver would write video memory to {folder}, which is in memory ({kind})"
    return None


def _kind_of(folder: str, root: Path) -> str | None:
    """Return the type of the file system that a folder is on, by the longest mount point above it."""
    best, kind = "", None
    for line in (text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        point = words[4]
        if f"{folder}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def room_against(used_bytes: int, root: Path) -> str | None:
    """Return why video memory in use would not fit where the driver writes it, None where it does.

    Args:
        used_bytes: what is in use on all cards together once the engines left.
        root: where the host's file system begins.
    """
    found = parameters(root)
    if not nvml.cards(root) or not preserves(found):
        return None
    folder = found.get("TemporaryFilePath") or "/tmp"
    try:
        state = os.statvfs(root / folder.lstrip("/"))
    except OSError as error:
        return f"{folder}, where video memory is written to, cannot be looked at: {error.strerror}"
    free = state.f_bavail * state.f_frsize
    if free < used_bytes * _ROOM:
        return (
            f"{folder} has {free >> 20} MiB free, and the video memory in use needs "
            f"{int(used_bytes * _ROOM) >> 20} MiB"
        )
    return None
