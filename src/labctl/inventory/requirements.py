"""The requirements files that builds in Python are made of: do they hold a version that is known to be bad?

A file with hashes installs exactly what it pins, malware included; so the names that are refused as a version
are refused here too, wherever they stand as somebody's dependency. A file that is not there is no mistake of
the rack file: it is missed by name when it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.problem import Problem
from labctl.inventory.engines import KNOWN_BAD, PythonEnv
from labctl.inventory.rack import Rack

_PIN = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*===?\s*([A-Za-z0-9.!+_-]+)")
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pin:
    """A package at one version, and the line that says so."""

    line: int
    package: str
    version: str


def pins(text: str) -> Iterator[Pin]:
    """Yield every package that a requirements file pins, by its normalised name (PEP 503)."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _PIN.match(line):
            yield Pin(number, re.sub(r"[-_.]+", "-", found[1]).lower(), found[2])


def refusals(rack: Rack, folder: Path, shown: str = "") -> Iterator[Problem]:
    """Yield the known bad versions that requirements files of a rack pin, each with its file and line.

    ``folder`` is the rack file's; ``shown`` is put before a relative path, as people know that folder.
    """
    for build in rack.engines:
        if not isinstance(build, PythonEnv):
            continue
        path = folder / build.requirements.expanduser()
        try:
            if path.stat().st_size > _LARGEST:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for pin in pins(text):
            if reason := KNOWN_BAD.get((pin.package, pin.version)):
                yield Problem(
                    f"{pin.package} {pin.version} {reason}",
                    "pin another version, and change every secret that a machine with it could read",
                    str(Path(shown) / build.requirements),
                    pin.line,
                )
