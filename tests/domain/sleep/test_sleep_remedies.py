"""What a person may do about each thing that keeps a host awake."""

from __future__ import annotations

import inspect
import re

import pytest

from labctl.cli.main import COMMANDS
from labctl.domain.sleep import idle, remedies

KINDS = sorted(set(re.findall(r'Against\(\s*"([a-z-]+)"', inspect.getsource(idle))))
ONLY_TIME = {"again", "clock", "stale", "store"}


def test_each_kind_has_a_remedy_or_only_time_helps() -> None:
    assert len(KINDS) > 15
    assert {kind for kind in KINDS if not remedies.remedy(kind, "rig")} == ONLY_TIME
    assert set(remedies._REMEDIES) <= set(KINDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ONLY_TIME])
def test_a_remedy_names_a_command_that_exists_and_the_host(kind: str) -> None:
    said = remedies.remedy(kind, "rig")
    assert "{" not in said
    commands = re.findall(r"labctl ([a-z-]+)", said)
    assert set(commands) <= COMMANDS.keys()
    assert all(" rig" in said for _ in commands)


def test_what_nothing_wakes_is_not_to_be_put_to_sleep() -> None:
    said = {kind: remedies.remedy(kind, "rig", wakes=False) for kind in KINDS}
    assert not [kind for kind, words in said.items() if "labctl suspend" in words or "sleep-test" in words]
    assert said["wake"] and said["hold"]


@pytest.mark.parametrize("kind", ["leases", "hold", "wish", "paused"])
def test_no_remedy_offers_to_skip_a_claim_by_force(kind: str) -> None:
    assert "--force" not in remedies.remedy(kind, "rig")
