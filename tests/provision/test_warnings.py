"""What a deploy warns of reaches the person: once for each host, without pyinfra's own noise."""

from __future__ import annotations

import logging

import pytest

from labctl.provision.events import Event, Log
from labctl.provision.worker import planning
from labctl.provision.worker.planning import LogTap


class Rig:
    """The host in whose context something is logged."""

    name = "rig"
    in_op = True
    current_op_hash = "x"


def record(level: int, text: str, path: str = "/deploys/nvidia.py") -> logging.LogRecord:
    return logging.LogRecord("pyinfra", level, path, 1, text, None, None)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> tuple[LogTap, list[Event]]:
    events: list[Event] = []
    monkeypatch.setattr(planning.ctx_host, "get", lambda: Rig)
    return LogTap(events.append), events


def test_a_warning_is_told_once_for_each_host(heard: tuple[LogTap, list[Event]]) -> None:
    tap, events = heard
    for _ in range(3):
        tap.emit(record(logging.WARNING, "rig: needs a reboot"))
    assert events == [Log("warning", "needs a reboot", "rig")]


def test_what_pyinfra_itself_warns_of_and_what_is_no_warning_stays_inside(
    heard: tuple[LogTap, list[Event]],
) -> None:
    tap, events = heard
    tap.emit(record(logging.WARNING, "[rig] Error (ignored)", f"{planning._PYINFRA}/api/operations.py"))
    tap.emit(record(logging.INFO, "rig: noop"))
    tap.emit(record(logging.ERROR, "rig: it failed"))
    assert events == []
