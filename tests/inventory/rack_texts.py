"""Rack files as text, for tests: a small valid one, and a door that tells what loading it says."""

from __future__ import annotations

from pathlib import Path

from labctl.domain.problem import ExitCode, LabctlError, Problem
from labctl.inventory import LoadedRack, load_rack

HEAD = """\
from labctl.inventory import (
    Amd, AptMirror, Circuit, Command, Controller, Gate, Gpu, Host, IdlePolicy, Ipmi, LlamaServer, Model, Nvidia, Psu, Rack, SmartPlug, Ssh, WakeCommand, WakeOnLan, Webhook,
)

"""  # noqa: E501
TAIL = "\nglobals().update(rack.groups())\n"


def rack_text(body: str) -> str:
    """Put the import before and the closing line after; the body starts on line 5."""
    return HEAD + body + TAIL


def write(folder: Path, text: str | bytes, name: str = "rack.py") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(path: Path) -> list[Problem]:
    """Return what is wrong with a file; nothing when it loads. Only exit code 2 is a right answer."""
    try:
        load_rack(path)
    except LabctlError as error:
        assert error.code is ExitCode.BAD_INPUT
        return list(error.problems)
    return []


def loaded(folder: Path, body: str) -> LoadedRack:
    return load_rack(write(folder, rack_text(body)))
