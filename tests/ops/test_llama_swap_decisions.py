# ruff: noqa: E501 - one case a line reads best
"""When a llama-swap is reloaded or restarted, and when it is left alone: a table of what may be seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from labctl.ops.facts import PathInfo
from labctl.ops.facts_systemd import UnitInfo
from labctl.ops.files import Wanted
from labctl.ops.llamaswap import Live, Seen, Swap, _act

SWAP = Swap(
    unit="labctl-swap.service",
    unit_content="[Unit]\n",
    path="/etc/labctl/llama-swap/swap.yaml",
    content="models: {}\n",
    trial="models: {}\n",
    program="/opt/swap",
    url="http://127.0.0.1:8080",
    digest="d1",
    listed=("a", "peer/b"),
    commands={"a": "/bin/a"},
)
UNIT = Wanted("/etc/systemd/system/labctl-swap.service", b"[Unit]\n")
FILE = PathInfo("file", sha256=Wanted(SWAP.path, SWAP.content.encode()).sha256)
RUNNING = UnitInfo(PathInfo("file", sha256=UNIT.sha256), active="active", sub="running")
WELL = Seen(FILE, "active", models={"a": "d1", "peer/b": ""}, loaded={"a": ("ready", "/bin/a")})

CASES = [
    ("all is as rendered", SWAP, RUNNING, WELL, ("", "")),
    ("it does not run", SWAP, UnitInfo(), WELL, ("", "starts with its new configuration")),
    ("its unit changed", SWAP, replace(RUNNING, file=PathInfo("file", sha256="x")), WELL, ("", "restarts, since its unit changed")),
    ("a restart is owed", SWAP, replace(RUNNING, stale=True), WELL, ("", "restarts, since its unit changed")),
    ("a drop-in changed", SWAP, replace(RUNNING, needs_reload=True), WELL, ("", "restarts, since its unit changed")),
    ("its configuration changed", SWAP, RUNNING, replace(WELL, file=PathInfo("file", sha256="x")), ("reload", "its configuration changed")),
    ("its configuration is not there", SWAP, RUNNING, replace(WELL, file=PathInfo()), ("reload", "its configuration changed")),
    ("a reload is owed", SWAP, RUNNING, replace(WELL, owed=True), ("reload", "its configuration changed")),
    ("engines would outlive a reload", replace(SWAP, sleeps=True), RUNNING, replace(WELL, owed=True), ("restart", "its configuration changed")),
    ("it lists too few", SWAP, RUNNING, replace(WELL, models={"a": "d1"}), ("reload", "it does not list the models that were rendered")),
    ("it runs another configuration", SWAP, RUNNING, replace(WELL, models={"a": "d0", "peer/b": ""}), ("reload", "it serves another configuration than the one that lies there")),
    # A doubt stops nobody's model.
    ("it does not answer", SWAP, RUNNING, replace(WELL, models=None, loaded=None), ("", "it runs and did not answer")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("swap", "unit", "seen", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_is_done_follows_from_what_is_seen(
    swap: Swap, unit: UnitInfo, seen: Seen, expected: tuple[str, str]
) -> None:
    assert _act(swap, seen, unit, UNIT) == expected


LOOKED = "absent"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "silent URLError: refused",
        "live {",
        "live []",
        'live {"models": 1, "running": {}}',
        'live {"models": {}, "running": {"a": []}}',
    ],
)
def test_an_answer_that_is_none_counts_as_silence(line: str) -> None:
    seen = Live().process([LOOKED, "active active", line])
    assert (seen.models, seen.loaded, seen.active) == (None, None, "active")


def test_loaded_models_are_named_with_their_states() -> None:
    live = {"models": {"a": "d1"}, "running": {"b": ["starting", "/b"], "a": ["ready", "/a"]}}
    seen = Live().process([LOOKED, "active active", "owed reload", f"live {json.dumps(live)}"])
    assert seen.states == "a (ready), b (starting)"
    assert seen.owed
