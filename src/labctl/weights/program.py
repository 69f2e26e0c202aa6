"""The program for hosts, packed so that the connection which starts it also brings it.

Its modules travel by standard input before the first order; on the command line stands only what reads them.
So nothing is installed, nothing is left behind, and the command line says nothing about models or keys.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import labctl

_BOOT = """\
import json, sys, types
stdin = sys.stdin.buffer
for name, text in json.loads(stdin.read(int(stdin.readline()))):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
    parent, _, own = name.rpartition(".")
    parent and setattr(sys.modules[parent], own, module)
sys.modules["labctl.weights.host.main"].main()
"""
ARGV = ("/usr/bin/python3", "-IS", "-c", _BOOT)
MODULES = (
    "labctl",
    "labctl.domain",
    "labctl.domain.parts",
    "labctl.weights",
    "labctl.weights.host",
    "labctl.weights.host.stamps",
    "labctl.weights.host.incoming",
    "labctl.weights.host.source",
    "labctl.weights.host.shelf",
    "labctl.weights.host.door",
    "labctl.weights.host.fetch",
    "labctl.weights.host.look",
    "labctl.weights.host.main",
)
"""In the order in which each finds what it imports."""


@cache
def preamble() -> bytes:
    """Return what ``ARGV`` reads first: the length of the modules in a line, then the modules."""
    root = Path(labctl.__file__).parent.parent
    packed = []
    for name in MODULES:
        place = root.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        packed.append((name, file.read_text(encoding="utf-8")))
    content = json.dumps(packed).encode()
    return f"{len(content)}\n".encode() + content
