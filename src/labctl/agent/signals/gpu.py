"""Whether a graphics card computes, or a program holds one.

Nothing here wakes a card or keeps one from falling asleep. A card in runtime suspend (sysfs says so without
asking it) is quiet, and while all NVIDIA cards are, their library is not even opened. A card that may fall
asleep by itself is asked once a minute as long as it is quiet, and the library is closed after each question,
so that it can; others are asked at each look and their library stays open, since opening it costs more.

A compute context counts as use, with two exceptions: programs that the inventory names, and engines that say
themselves what they do (the signal ``engines``): those keep a context as long as their model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ...domain.pci import address
from .. import amd, nvml
from ..sections import Finding
from ..telemetry import Meter
from . import processes
from .terms import Host, Signal, Unreadable, Verdict, listed, plain, read

_DOZING_S = 60.0
_KFD = "sys/class/kfd/kfd/proc"


class Gpu(Signal):
    """A card computes, or a program holds a compute context on one."""

    name = "gpu"
    deadline_s = 10.0

    def __init__(
        self,
        host: Host,
        percent: int,
        idle_programs: Collection[str],
        units: Collection[str],
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter
        self._root = host.root
        self._percent = percent
        self._idle_programs = frozenset(idle_programs)
        self._units = frozenset(units)
        self._library: Any = None
        self._quiet_at: float | None = None

    def look(self) -> Verdict:
        """Return busy where a card is in use; of one that does not answer nothing is known."""
        said = self._nvidia() or self._amd()
        if said:
            return Verdict(True, plain(said))
        return Verdict(False, "no card is in use")

    # --- NVIDIA ---

    def _nvidia(self) -> str:
        cards = [card for card in nvml.cards(self._root) if card.driver == "nvidia"]
        awake = [card for card in cards if not card.asleep]
        if not awake:
            self._close()
            return ""
        dozes = any(
            (read(self._root / "sys/bus/pci/devices" / card.pci / "power/control") or "").strip() == "auto"
            for card in cards
        )
        now = time.monotonic()
        if dozes and self._quiet_at is not None and now - self._quiet_at < _DOZING_S:
            return ""
        self._quiet_at = None
        try:
            said = self._asked(awake, every=len(awake) == len(cards))
        finally:
            if dozes:
                self._close()
        if not said:
            self._quiet_at = now
        return said

    def _asked(self, awake: list[nvml.Card], *, every: bool) -> str:
        try:
            if self._library is None:
                if not nvml.is_installed():
                    raise nvml.missing(awake)
                self._library = nvml.opened()
            pynvml = self._library
            count = nvml.count(pynvml) if every else len(awake)
        except Finding as finding:
            self._close()
            raise Unreadable(plain(str(finding))) from None
        if count < len(awake):
            raise Unreadable(f"the driver has {count} of {len(awake)} NVIDIA cards")
        # Each is asked, also after one that is busy: what they draw is noted beside.
        return next(filter(None, [self._nvidia_card(nvml.Values(pynvml), card) for card in awake]), "")

    def _nvidia_card(self, values: nvml.Values, card: nvml.Card) -> str:
        pynvml = values.pynvml
        handle = values.read("card", pynvml.nvmlDeviceGetHandleByPciBusId, card.pci.encode())
        name = nvml.word(values.read("uuid", pynvml.nvmlDeviceGetUUID, handle)) if handle is not None else ""
        where = str(name or address(card.pci))
        load = values.read("load", pynvml.nvmlDeviceGetUtilizationRates, handle) if name else None
        held = values.read("held", pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle) if name else None
        if held is None and name and "held" not in values.errors:
            held = values.read("held", pynvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
        if self._meter is not None and name:
            self._meter.note(values, handle, card.pci, load)
        if load is not None and load.gpu > self._percent:
            return f"card {where} is at {load.gpu} %"
        for process in held or ():
            holder = self._holder(int(process.pid))
            if holder:
                return f"{holder} holds card {where}"
        if load is None or held is None:
            # A card that has no such value would never be known to be quiet.
            self._close()
            why = next(iter(values.errors.values()), "it does not say what it does")
            raise Unreadable(plain(f"card {where}: {why}"))
        return ""

    def _close(self) -> None:
        library, self._library = self._library, None
        if library is not None:
            try:
                library.nvmlShutdown()
            except library.NVMLError:
                return

    # --- AMD ---

    def _amd(self) -> str:
        awake = [path for path in amd.cards(self._root) if not amd.is_asleep(path)]
        for path in awake:
            said = self._amd_card(path)
            if said:
                return said
        for number in listed(self._root / _KFD) or () if awake else ():
            holder = self._holder(int(number)) if number.isdigit() else ""
            if holder:
                return f"{holder} holds an AMD card"
        return ""

    def _amd_card(self, path: Path) -> str:
        where = amd.pci_of(path) or path.name
        content = (read(path / "device/gpu_busy_percent") or "").strip()
        if not content.isdigit():
            raise Unreadable(f"card {where} does not say how busy it is")
        return f"card {where} is at {content} %" if int(content) > self._percent else ""

    # --- who ---

    def _holder(self, pid: int) -> str:
        """Return who a process is, or "" where it may hold a card and still be quiet."""
        name, unit = processes.name_of(self._root, pid), processes.unit_of(self._root, pid)
        if name in self._idle_programs or unit in self._units:
            return ""
        # Whoever wants it to sleep has to find it: its number, whose it is, and what started it.
        user = processes.user_of(self._root, pid)
        known = (str(pid), f"of {user}" if user else "", unit)
        return plain(f"{name or 'a process'} ({', '.join(part for part in known if part)})")
