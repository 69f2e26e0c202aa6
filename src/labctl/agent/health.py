"""``health``: all that a host can say of how well it is, as one JSON document; for root.

It is ``report``'s document, in which every section means what it means there, and more:

- ``at``: the host's wall time when it had looked (seconds since 1970), just before this was printed.
- ``nvidia.gpus[]`` and ``amd.gpus[]``: each card that was asked has ``health``, in which null is what it does
  not have::

    {"throttle": ["power-cap"], "hotspot_c": null, "memory_c": 62, "slowdown_c": 95,
     "replays": 0, "slot": {"gen": 4, "width": 16, "gen_max": 4, "width_max": 16},
     "rows": {"corrected": 0, "uncorrected": 0, "pending": false, "failed": false},
     "retired_pending": false, "recovery": "none",
     "processes": [{"pid": 812, "mib": 20480, "unit": "labctl-chat.service"}]}

- ``xids``: ``[{"pci": "0000:01:00.0", "code": 79, "last": 1764400000.1, "count": 2, "text": "..."}]``
- ``memory``: ``{"total_mib", "available_mib", "swap_total_mib", "swap_free_mib", "stall_percent",
  "oom_kills"}``
- ``mounts``: ``[{"path", "device", "kind", "total_mib", "free_mib", "inodes_free_percent", "read_only"}]``;
  one that does not answer (a dead NFS server) is ``{"name", "error"}``.
- ``smart``: ``[{"device", "passed", "wear_percent", "media_errors", "pending_sectors", "spare_percent",
  "temperature_c", "asleep"}]``; one that does not answer is ``{"name", "error"}``. A disk that sleeps is
  not asked.
- ``clock`` also has ``offset_s``: how far off the kernel thinks that it is, null where it does not know.
- ``failed_units``: names of systemd's units.
- ``updates``: ``{"pending", "security", "age_s"}`` by apt's lists as they are; null where there is no apt.
- ``certificates``: ``[{"path", "subject", "not_after"}]`` of the files that the agent's configuration names;
  one that cannot be read is ``{"name", "error"}``.
- ``wol_armed``: whether a magic packet would wake this host; null: it cannot be told.
- ``caps_wanted_w``: by UUID (else PCI address) the watts that the inventory, an order or a step wants.
- ``engines[]`` also have what their own metrics tell; see ``enginemetrics``.

``domain/health/reading.py`` reads it. Nothing here changes, wakes, loads or spins up anything: a card in
runtime suspend is not asked, a disk that stands still is left alone, an automount point is not touched, and
engines are asked on pages alone that cost them nothing. It ends within ``DEADLINE_S``, whatever hangs.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from . import (
    amd,
    caps,
    config,
    disks,
    enginemetrics,
    kernellog,
    maintenance,
    nvidia,
    report,
    vitals,
    wellness,
)
from .host import ROOT
from .sections import Finding, More

DEADLINE_S = 20.0
_CAPPED = ("unchanged", "would-change")


def collect(deadline_s: float = DEADLINE_S, root: Path = ROOT) -> dict[str, Any]:
    """Return the whole document within ``deadline_s``, whatever hangs or fails."""
    sections: dict[str, report.Section] = {
        **report.SECTIONS,
        "nvidia": _nvidia,
        "amd": partial(amd.amd, deeper=wellness.of_amd),
        "engines": enginemetrics.engines,
        "memory": maintenance.memory,
        "wol_armed": _wol_armed,
        "caps_wanted_w": _caps_wanted,
        "xids": kernellog.xids,
        "failed_units": lambda root: maintenance.failed_units(),
        "certificates": maintenance.certificates,
        "mounts": disks.mounts,
        "smart": disks.smart,
        "updates": maintenance.updates,
    }
    return {**report.collect(deadline_s, root, sections), "at": time.time()}


def _nvidia(root: Path) -> dict[str, Any] | More:
    return nvidia.nvidia(root, lambda values, card: wellness.of_nvidia(values, card, root))


def _wol_armed(root: Path) -> bool | None:
    return vitals.wol_armed(root, config.read(root).sleep)


def _caps_wanted(root: Path) -> dict[str, float]:
    """Return the watts that each card should have, of those for which anything wants some.

    Raises:
        Finding: what is declared cannot be read.
    """
    answer = caps.show(root)
    if "error" in answer:
        raise Finding(answer["error"]["what"], answer["error"]["hint"], answer["error"]["code"])
    return {
        str(one["uuid"] or one["pci"]): float(one["after_w"])
        for one in answer["cards"]
        if one["source"] and one["after_w"] is not None and one["status"] in _CAPPED
    }
