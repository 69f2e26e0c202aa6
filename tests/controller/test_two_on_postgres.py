"""Two controllers on one PostgreSQL: one leads, and a frozen one that comes back can do nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from lying_rack import Sim, doors_of, host_policy, policy_of, proven, world_of

from labctl.adapters.store import open_store
from labctl.controller.leader import NotLeadingError
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.ports.store import StaleError

sys.path.append(str(Path(__file__).parent.parent / "store"))

from pg_kit import postgres_kit


def test_one_leads_the_other_takes_over_and_the_old_one_is_fenced() -> None:
    policy = policy_of(host_policy("gpu1", quiet_s=60))
    world = world_of(policy)
    with postgres_kit() as kit:
        address = kit.address(kit.database())
        first = open_store(address, create=True)
        first.enlist(policy.hosts, now=world.wall)
        proven(first, policy.hosts, world.wall)
        one = Sim(world, policy, doors_of(world, first), "one")
        two = Sim(world, policy, doors_of(world, open_store(address, create=False)), "two")
        one.until("gpu1", Mode.READY)
        two.tick()
        assert one.leader.leads() and not two.leader.leads()
        term, version = one.leader.term(), one.row("gpu1").version
        assert two.run(120, two.leader.leads)  # one is frozen all the while
        with pytest.raises(StaleError):
            first.move("gpu1", Event.WENT_QUIET, "old news", version=version, term=term, now=world.wall)
        with pytest.raises(NotLeadingError):
            one.leader.term()
        one.tick()
        assert one.service.status().leader == "two"
        two.until("gpu1", Mode.ASLEEP)
        for sim in (one, two):
            sim.doors.store.close()
