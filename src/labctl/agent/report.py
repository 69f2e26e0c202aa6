"""``report``: what this host is and how it is, as one JSON document.

Each key but ``agent``, ``errors`` and ``findings`` is a section, null when it could not be had; then
``errors`` says under the same name what is wrong and what to do. (Without an error, ``caps`` is null where no
cap was ever set, ``forced`` where nothing was forced.) ``findings`` lists all that is wrong and has a name:
errors with a ``code``, and single cards, each with its section. Fields may be added; none changes its meaning
without ``format``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from . import amd, engines, host, kernel, nics, nvidia, nvml
from .host import ROOT
from .sections import Findings, gather

FORMAT = 1
_FOR_ITSELF_S = 1.0

Section = Callable[[Path], Any]
SECTIONS: dict[str, Section] = {
    "system": host.system,
    "sessions": lambda root: host.sessions(),
    "nics": nics.nics,
    "nvidia": nvidia.nvidia,
    "amd": amd.amd,
    "kernel": kernel.kernel,
    "caps": host.caps,
    "upkeep": host.upkeep,
    "clock": lambda root: host.clock(),
    "forced": engines.forced,
    "engines": engines.engines,
}


def collect(
    deadline_s: float, root: Path = ROOT, sections: Mapping[str, Section] | None = None
) -> dict[str, Any]:
    """Return the whole report within ``deadline_s``, whatever hangs or fails.

    Args:
        deadline_s: seconds.
        root: where the host's file system begins.
        sections: what to look at, with ``nvidia`` and ``amd`` among it; default: a report's.
    """
    asked = {name: partial(section, root) for name, section in (sections or SECTIONS).items()}
    values, errors = gather(asked, max(deadline_s - _FOR_ITSELF_S, _FOR_ITSELF_S))
    parts = {name: values.pop(name) for name in list(values) if "/" in name}
    silent = {name: errors.pop(name) for name in parts if name in errors}
    cards = {name: part for name, part in parts.items() if name.startswith(("nvidia/", "amd/"))}
    for name, part in parts.items():
        section, _, place = name.partition("/")
        if name not in cards and values[section] is not None:
            values[section].append(part or {"name": place, "error": silent[name]["what"]})
    if values["nvidia"] is not None:
        values["nvidia"] = nvidia.assembled(values["nvidia"], _of("nvidia/", cards), silent)
    if values["amd"] is not None:
        values["amd"] = amd.assembled(_of("amd/", cards), silent, root)
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "agent": {"version": __version__, "format": FORMAT, "python": python},
        **values,
        "errors": errors,
        "findings": _findings(values, errors),
    }


def _of(prefix: str, cards: dict[str, Any]) -> dict[str, Any]:
    return {name: card for name, card in cards.items() if name.startswith(prefix)}


def _findings(values: dict[str, Any], errors: Findings) -> list[dict[str, Any]]:
    """Return all that is wrong and has a name, of sections and of single cards."""
    found = [
        {
            "section": name,
            "card": None,
            "code": error["code"],
            "what": error["what"],
            "hint": error.get("hint", ""),
        }
        for name, error in errors.items()
        if "code" in error
    ]
    for section in ("nvidia", "amd"):
        for gpu in (values.get(section) or {"gpus": []})["gpus"]:
            if gpu["code"]:
                card = gpu["uuid"] or gpu["pci"] or f"index {gpu.get('index')}"
                why = next(iter(gpu["errors"].values()), gpu["code"])
                hint = nvml.hint_of(gpu["code"])
                found.append(
                    {"section": section, "card": card, "code": gpu["code"], "what": why, "hint": hint}
                )
    return found


def as_json(report: dict[str, Any], *, pretty: bool = False) -> str:
    """Return the report as JSON: one line, or indented for people."""
    return json.dumps(report, indent=2 if pretty else None, sort_keys=pretty)
