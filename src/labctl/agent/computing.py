"""Which processes compute on this host's cards, and how much video memory is in use.

Asked in a process of its own, since a driver that hangs must not hold up who asks; what is late or fails is a
finding, never "nobody". A card in runtime suspend has no such process and is not woken.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import nvml
from .host import text
from .sections import Finding, gather

_ASKED_S = 8.0
_KFD = "sys/class/kfd/kfd/proc"


class Use(NamedTuple):
    """Who computes, as process and name, and the bytes in use on NVIDIA cards."""

    who: tuple[tuple[int, str], ...]
    used_bytes: int


def use(root: Path) -> Use:
    """Return who computes.

    Raises:
        Finding: a driver does not say.
    """
    values, findings = gather({"computing": partial(_look, root)}, _ASKED_S)
    if findings:
        found = findings["computing"]
        raise Finding(found["what"], found.get("hint", ""), found.get("code", ""))
    pids, used = values["computing"]
    return Use(tuple((pid, name_of(pid, root)) for pid in pids), used)


def name_of(pid: int, root: Path) -> str:
    """Return a process's name, "?" where it is gone."""
    return text(root / f"proc/{pid}/comm") or "?"


def _look(root: Path) -> Any:
    pids, used = _nvidia(root)
    return sorted({*pids, *_amd(root)}), used


def _nvidia(root: Path) -> tuple[set[int], int]:
    awake = [card for card in nvml.cards(root) if not card.asleep and card.driver == "nvidia"]
    if not awake:
        return set(), 0
    pynvml = nvml.opened()
    pids: set[int] = set()
    used = 0
    for card in awake:
        values = nvml.Values(pynvml)
        handle = values.read("card", pynvml.nvmlDeviceGetHandleByPciBusId, card.pci.encode())
        here = values.read("who", pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
        if here is None and "who" not in values.errors:  # drivers before 510 have the older question only
            here = values.read("who", pynvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
        memory = values.read("memory", pynvml.nvmlDeviceGetMemoryInfo, handle)
        if handle is None or here is None:
            why = next(iter(values.errors.values()), "it has no such answer")
            what = f"the card at {card.pci} does not say who computes on it: {why}"
            raise Finding(what, nvml.hint_of(values.code or ""), values.code or "")
        pids |= {int(one.pid) for one in here}
        used += int(memory.used) if memory else 0
    return pids, used


def _amd(root: Path) -> set[int]:
    """Return the processes that ROCm's driver knows; Vulkan ones are not among them."""
    folder = root / _KFD
    if not folder.is_dir():
        return set()
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}
