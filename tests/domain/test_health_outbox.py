"""What is still to be told: nothing is lost, nothing grows without end, and a second copy can be known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.health.flaps import Kind
from labctl.domain.health.outbox import LONGEST_S, MOST, Box, Line, add, delivered, due, failed, seal
from labctl.domain.health.terms import Level


def line(number: int, at: float = 0.0, kind: Kind = Kind.BEGAN, level: Level = Level.CRIT) -> Line:
    return Line(("disk-space", "rig", str(number)), kind, level, f"{kind} {number}", at)


def test_an_empty_box_is_never_due_and_never_sealed() -> None:
    assert not due(Box(), 0.0)
    assert seal(Box(), "a") == Box()


def test_what_waits_becomes_one_letter_and_what_comes_later_another() -> None:
    box = seal(add(Box(), [line(1), line(2)]), "a")
    assert box.sealed is not None and [one.key[2] for one in box.sealed.lines] == ["1", "2"]
    later = seal(add(box, [line(3)]), "a")
    assert later.sealed == box.sealed and [one.key[2] for one in later.waiting] == ["3"]
    assert seal(delivered(later), "b").sealed != box.sealed


def test_of_one_thing_only_the_newest_line_waits() -> None:
    box = add(add(Box(), [line(1, 1.0)]), [line(1, 2.0, Kind.OVER, Level.OK)])
    assert [(one.kind, one.at) for one in box.waiting] == [(Kind.OVER, 2.0)]


def test_a_letter_that_certainly_did_not_arrive_is_joined_with_what_came_meanwhile() -> None:
    box = add(seal(add(Box(), [line(1)]), "a"), [line(2, 1.0)])
    box = failed(box, "it cannot be reached", 10.0, certain=True)
    assert box.sealed is None and [one.key[2] for one in box.waiting] == ["1", "2"]
    assert (box.tries, box.why, box.failing_since) == (1, "it cannot be reached", 10.0)


def test_a_letter_that_perhaps_arrived_stays_as_it_is() -> None:
    box = seal(add(Box(), [line(1)]), "a")
    assert failed(box, "no answer", 10.0, certain=False).sealed == box.sealed


def test_tries_grow_rarer_up_to_an_hour_and_begin_anew_after_a_delivery() -> None:
    box, now, pauses = seal(add(Box(), [line(1)]), "a"), 1000.0, []
    for _ in range(12):
        box = failed(box, "dead", now, certain=False)
        assert not due(box, now) and due(box, box.next_at)
        pauses.append(box.next_at - now)
        now = box.next_at
    assert pauses[:3] == [60.0, 120.0, 240.0] and pauses[-1] == LONGEST_S
    assert box.failing_since == 1000.0
    assert delivered(box) == Box()


def test_a_clock_that_was_far_ahead_does_not_keep_letters() -> None:
    box = failed(seal(add(Box(), [line(1)]), "a"), "dead", 5e9, certain=False)
    assert due(box, 1.8e9)


@given(st.lists(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(Kind)), max_size=150), max_size=12))
def test_a_dead_courier_never_makes_the_box_grow_and_what_is_left_out_is_counted(
    runs: list[list[tuple[int, Kind]]],
) -> None:
    box, keys = Box(), set()
    for at, run in enumerate(runs):
        lines = [line(number, float(at), kind) for number, kind in run]
        keys |= {one.key for one in lines}
        box = failed(seal(add(box, lines), "a"), "dead", at * 1e4, certain=True)
        assert len(box.waiting) <= MOST
        assert len(box.waiting) + box.more >= len(keys)


def test_reminders_are_left_out_first() -> None:
    lines = [line(number, 0.0, Kind.STILL) for number in range(MOST)] + [line(1000, 0.0, Kind.OVER, Level.OK)]
    box = add(Box(), lines)
    assert box.more == 1 and any(one.kind is Kind.OVER for one in box.waiting)
