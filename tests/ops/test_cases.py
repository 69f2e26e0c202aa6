"""Every case file: what the host's facts print goes in, the commands and the diff must come out."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ops_hosts import Diffs, described
from pyinfra.api.exceptions import OperationValueError

CASES = sorted((Path(__file__).parent / "cases").rglob("*.json"))


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def test_there_are_cases_for_every_operation_of_ours() -> None:
    tested = {json.loads(path.read_text())["op"] for path in CASES}
    ours = {
        *("files.put", "files.directory", "files.absent_own", "files.link"),
        *("apt.packages", "apt.source", "users.user", "users.program", "users.group", "download.file"),
        *("clock.timezone", "firewall.loaded", "hostname.hostname", "leftovers.files", "leftovers.units"),
        *("caps.applied", "caps.forgotten"),
        *("wol.armed", "reboot.needed", "reboot.if_needed"),
        *("systemd.unit", "systemd.service", "systemd.restart", "systemd.reload", "systemd.daemon_reload"),
    }
    assert tested == ours


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path, canned: Callable[..., Any], diffs: Diffs) -> None:
    case = json.loads(path.read_text())
    unknown = set(case) - {"op", "why", "args", "facts", "commands", "diff", "error"}
    assert not unknown
    module, _, name = case["op"].partition(".")
    operation = getattr(importlib.import_module(f"labctl.ops.{module}"), name)
    given = (case.get("facts", {}), operation, _arguments(case.get("args", {})))
    if "error" in case:
        with pytest.raises(OperationValueError, match=case["error"]):
            canned(*given)
        assert diffs.texts == []
        return
    assert [described(command) for command in canned(*given)] == case["commands"]
    assert "\n".join(diffs.texts).splitlines() == case.get("diff", [])
