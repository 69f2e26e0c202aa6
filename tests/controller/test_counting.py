"""What the controller counts of hosts, beside the log that the store keeps of the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from lying_rack import Sim

from labctl.controller.answers import Counts
from labctl.controller.tally import WAKES_S, Tally
from labctl.domain.sleep.lifecycle import NEXT, Event, Mode

Rack = Callable[..., Sim]


def _counts(sim: Sim, host: str = "gpu1") -> Counts:
    return next(one.counts for one in sim.service.status().hosts if one.host == host)


def test_every_move_that_the_store_logs_is_counted_by_what_brought_it_about(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    sim.service.wake(["gpu1"], why="a demo", by="anna")
    sim.until("gpu1", Mode.READY)
    logged = [
        one.text.partition(":")[0] for one in sim.service.events(host="gpu1", most=1000) if one.kind == "mode"
    ]
    moves = _counts(sim).moves
    assert sum(moves.values()) == len(logged)
    # Each event with the moves that the table has for it.
    told = Counter(logged)
    for event, count in moves.items():
        ways = [f"{mode} -> {after}" for (mode, by), after in NEXT.items() if by == event]
        assert sum(told[way] for way in ways) >= count, event
    assert {event: moves.get(event, 0) for event in (Event.ORDERED, Event.DARK, Event.WISHED)} == {
        Event.ORDERED: 1,
        Event.DARK: 1,
        Event.WISHED: 1,
    }


def test_a_wake_is_counted_with_the_seconds_that_the_store_learns_from(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    before = _counts(sim)
    assert sum(before.wakes) == 0
    sim.service.wake(["gpu1"], why="a demo", by="anna")
    sim.until("gpu1", Mode.READY)
    now, learnt = _counts(sim), sim.row("gpu1").came_up_s
    assert sum(now.wakes) == 1
    assert now.wakes_s == pytest.approx(learnt[-1])


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (5.0, 0), (5.1, 1), (1200.0, len(WAKES_S) - 1), (1200.1, len(WAKES_S))]
)
def test_a_wake_falls_into_the_first_bound_that_it_does_not_exceed(seconds: float, place: int) -> None:
    tally = Tally()
    tally.came_up("rig", seconds)
    counts = tally.of("rig")
    assert counts.wakes.index(1) == place
    assert (sum(counts.wakes), counts.wakes_s, counts.bounds) == (1, seconds, WAKES_S)


def test_a_host_of_which_nothing_happened_has_zeros() -> None:
    counts = Tally().of("rig")
    assert counts.moves == {}
    assert sum(counts.wakes) == 0
