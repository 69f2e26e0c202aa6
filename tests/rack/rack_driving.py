"""Drive labctl against lent hosts: in process, where a test wants to act on events, or as a command."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from labctl import wiring
from labctl.provision import engine
from labctl.provision.events import Event, HostEnded, HostReport
from labctl.provision.process import Crew

LABCTL = str(Path(sys.executable).with_name("labctl"))


def write_deploy(rack_file: Path, text: str) -> Path:
    """Write a deploy beside the inventory, where ``labctl apply`` and pyinfra find it; return its path."""
    folder = rack_file.parent.parent / "deploys"
    folder.mkdir(exist_ok=True)
    path = folder / "tried.py"
    path.write_text("from pyinfra import host\nfrom pyinfra.operations import server\n" + text)
    return path


def drive(
    rack_file: Path,
    deploy: Path,
    hosts: tuple[str, ...],
    on_event: Callable[[Event], None] = lambda event: None,
    **request: object,
) -> dict[str, HostReport]:
    """Plan, and unless ``execute=False`` apply, on ``hosts``; return what is known of each."""
    given = {"execute": True, "wait_for_go": False, "connect_timeout_s": 3.0, "owner": "the test", **request}
    with tempfile.TemporaryDirectory() as logs, Crew(Path(logs), datetime.now(UTC)) as crew:
        wanted = engine.Request(rack_file, (deploy,), hosts, **given)  # type: ignore[arg-type]
        return engine.run(wanted, on_event, lambda reports: True, crew=crew, clock=wiring.clock()).reports


def ends(reports: dict[str, HostReport]) -> dict[str, tuple[str, str]]:
    """Return the status and the code with which each host ended."""
    return {name: (end_of(report).status, end_of(report).code) for name, report in reports.items()}


def end_of(report: HostReport) -> HostEnded:
    """Return the last word on a host, which every run must give."""
    assert report.end is not None
    return report.end


def labctl(*argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, without a terminal."""
    return subprocess.run(
        [LABCTL, *argv], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
