"""What the controller says of hosts: a sentence for each change, and nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from labctl.controller.tell import Teller
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Known, KnownHost


class Kept(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the controller says; its logger may have been set up by a controller that ran in this process."""
    kept, log = Kept(), logging.getLogger("labctl.controller")
    monkeypatch.setattr(log, "handlers", [kept])
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "disabled", False)
    before = log.level
    log.setLevel(logging.INFO)
    yield kept.messages
    log.setLevel(before)


def test_what_is_said_in_turns_is_said_once_and_each_change_of_mode_anew(said: list[str]) -> None:
    teller, waking = Teller(), KnownHost("box", Mode.WAKING, since=1.0, because="anna wants it")
    for _ in range(5):
        teller.hosts(Known({"box": waking}), {})
        teller.hosts(Known({"box": waking}), {"box": "2 s are usual"})
    teller.hosts(Known({"box": replace(waking, mode=Mode.READY, since=2.0, because="it passed")}), {})
    teller.hosts(Known({"box": replace(waking, since=3.0)}), {})
    assert said == [
        'host=box mode=waking because="anna wants it"',
        'host=box mode=waking because="2 s are usual"',
        'host=box mode=ready because="it passed"',
        'host=box mode=waking because="anna wants it"',
    ]
