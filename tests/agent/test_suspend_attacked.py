"""What else may go wrong while a host is put to sleep: it never says one thing and does another."""

from __future__ import annotations

import json
import os
from typing import Any

from sleeping_host import SleepingHost

from labctl.agent import suspend


def overheard(host: SleepingHost) -> list[dict[str, Any]]:
    """Return what is said to a second controller that orders the same."""
    said: list[dict[str, Any]] = []
    reader, writer = os.pipe()
    os.write(writer, json.dumps({"how": "suspend", "lasts_s": 120}).encode() + b"\n")
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert suspend.converse(stream, said.append, host.root) == 1
    return said


def test_of_two_orders_at_once_one_is_talked_about(host: SleepingHost) -> None:
    heard: list[dict[str, Any]] = []

    def between(nonce: str) -> bytes:
        heard.extend(overheard(host))
        return json.dumps({"go": nonce}).encode() + b"\n"

    assert host.order(go=between) == 0
    assert heard == [{"refused": "somebody else is talking with this host about putting it to sleep"}]
    assert host.said[-1] == {"going": host.said[0]["nonce"]}
    assert host.log.count("logind SuspendWithFlags") == 1
