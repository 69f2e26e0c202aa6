"""``report``: what this host is and how it is, as one JSON document.

Each key but ``agent`` and ``errors`` is a section, null when it could not be had; then ``errors`` says under
the same name what is wrong and what to do. Fields may be added; none changes its meaning without ``format``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from .. import __version__
from . import amd, host, nics, nvidia
from .sections import Section, gather

FORMAT = 1
_FOR_ITSELF_S = 1.0

SECTIONS: dict[str, Section] = {
    "system": host.system,
    "sessions": host.sessions,
    "nics": nics.nics,
    "nvidia": nvidia.nvidia,
    "amd": amd.amd,
    "upkeep": host.upkeep,
    "clock": host.clock,
}


def collect(deadline_s: float) -> dict[str, Any]:
    """Return the whole report within ``deadline_s``, whatever hangs or fails."""
    values, errors = gather(SECTIONS, max(deadline_s - _FOR_ITSELF_S, _FOR_ITSELF_S))
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "agent": {"version": __version__, "format": FORMAT, "python": python},
        **values,
        "errors": errors,
    }


def as_json(report: dict[str, Any], *, pretty: bool = False) -> str:
    """Return the report as JSON: one line, or indented for people."""
    return json.dumps(report, indent=2 if pretty else None, sort_keys=pretty)
