"""What the controller says of hosts: a sentence for each change, and nothing twice."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from labctl.controller.tell import Teller
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Known, KnownHost


def test_what_is_said_in_turns_is_said_once_and_each_change_of_mode_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("labctl.controller"), "propagate", True)
    caplog.set_level(logging.INFO, "labctl.controller")
    teller, waking = Teller(), KnownHost("box", Mode.WAKING, since=1.0, because="anna wants it")
    for _ in range(5):
        teller.hosts(Known({"box": waking}), {})
        teller.hosts(Known({"box": waking}), {"box": "2 s are usual"})
    teller.hosts(Known({"box": replace(waking, mode=Mode.READY, since=2.0, because="it passed")}), {})
    teller.hosts(Known({"box": replace(waking, since=3.0)}), {})
    assert caplog.messages == [
        'host=box mode=waking because="anna wants it"',
        'host=box mode=waking because="2 s are usual"',
        'host=box mode=ready because="it passed"',
        'host=box mode=waking because="anna wants it"',
    ]
