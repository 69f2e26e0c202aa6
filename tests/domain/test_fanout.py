"""Who fetches what from whom: the rules as tables, and what must hold whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain import fanout
from labctl.domain.fanout import WIDEST, Board, Copy

F = "/srv/models/m"


def board(copies: dict[str, Copy], **more: object) -> Board:
    serving = more.pop("serving", set(copies))
    made = Board({F: dict(copies)}, serving=set(serving), measured={F})  # type: ignore[call-overload]
    return replace(made, **more)  # type: ignore[arg-type]


def ordered(made: Board) -> list[tuple[str, str]]:
    return [(order.host, order.supplier) for order in fanout.orders(made)]


WANTS, HAS, GETS = Copy("wants"), Copy("has", 100), Copy("gets", 10)


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        # A holder and a chain behind it; each hands on to one.
        ({"a": HAS, "b": WANTS, "c": WANTS, "d": WANTS}, [("b", "a"), ("c", "b"), ("d", "c")]),
        # Nobody has it: one downloads, the others go behind it.
        ({"a": WANTS, "b": WANTS, "c": WANTS}, [("a", ""), ("b", "a"), ("c", "b")]),
        # Two holders share.
        ({"a": HAS, "b": HAS, "c": WANTS, "d": WANTS}, [("c", "a"), ("d", "b")]),
        # Whoever has most goes first.
        ({"a": HAS, "b": WANTS, "c": Copy("wants", 50)}, [("c", "a"), ("b", "c")]),
        ({"a": Copy("wants", 5), "b": Copy("wants", 50)}, [("b", ""), ("a", "b")]),
        # While a file is being hashed nobody downloads it.
        ({"a": Copy("checks"), "b": WANTS}, []),
        # A holder that failed once is asked again where there is no other, and after any other.
        ({"a": HAS, "b": Copy("wants", failures={"a": 1})}, [("b", "a")]),
        ({"a": HAS, "b": Copy("wants", failures={"a": 1}), "c": HAS}, [("b", "c")]),
        # One that failed twice is not; a download is the way then.
        ({"a": HAS, "b": Copy("wants", failures={"a": 2})}, [("b", "")]),
        # Who waits for a host that itself has nobody left is sent to somebody else, and frees that one.
        ({"a": HAS, "b": Copy("wants", failures={"a": 2}, downloaded=True), "c": Copy("gets", 0, "b")},
         [("c", "a"), ("b", "c")]),
        # A download that failed here is not tried here again.
        ({"a": Copy("wants", downloaded=True), "b": WANTS}, [("b", ""), ("a", "b")]),
        # Both are busy already.
        ({"a": HAS, "b": Copy("gets", 3, "a"), "c": Copy("gets", 2, "b")}, []),
    ],
)  # fmt: skip
def test_orders(copies: dict[str, Copy], expected: list[tuple[str, str]]) -> None:
    assert ordered(board(copies)) == expected


def test_a_successor_of_a_dead_host_goes_to_the_one_before_it() -> None:
    made = board(
        {"a": HAS, "b": Copy("gets", 40, "a"), "c": Copy("gets", 30, "b"), "d": Copy("gets", 20, "c")}
    )
    fanout.lost(made, "b")
    fanout.stuck(made, F, "c", "b is gone")
    # Not to d, which gets it from c itself.
    assert ordered(made) == [("c", "a")]
    assert not fanout.stands_still(made)
    assert made.files[F]["c"].there == 30


def test_a_host_that_cannot_hand_on_is_nobodys_supplier() -> None:
    made = board({"a": HAS, "b": WANTS, "c": WANTS}, serving={"b"})
    assert ordered(made) == [("b", ""), ("c", "b")]


def test_nobody_takes_parts_of_a_file_whose_size_is_not_known() -> None:
    made = board({"a": WANTS, "b": WANTS})
    made.measured.clear()
    assert ordered(made) == [("a", "")]
    made.measured.add(F)
    assert ordered(made) == [("b", "a")]


def test_with_from_nothing_is_downloaded() -> None:
    made = board({"a": HAS, "b": Copy("wants", failures={"a": 2})}, download=False)
    assert ordered(made) == []
    fanout.give_up(made)
    assert made.files[F]["b"].state == "failed"


def test_a_file_that_is_wrong_at_its_address_is_wrong_for_all() -> None:
    made = board({"a": Copy("gets", 9), "b": Copy("gets", 5, "a"), "c": WANTS})
    fanout.wrong(made, F, "a", "refused: it has another sha256")
    assert {copy.state for copy in made.files[F].values()} == {"failed"}
    assert made.over()


def test_what_came_wrong_from_a_host_is_tried_once_more() -> None:
    made = board({"a": HAS, "b": Copy("gets", 100, "a")})
    fanout.wrong(made, F, "b", "another file")
    assert made.files[F]["b"].state == "wants" and made.files[F]["b"].there == 0
    assert ordered(made) == [("b", "a")]
    fanout.wrong(made, F, "b", "another file")
    assert made.files[F]["b"].state == "failed"


def test_a_host_works_on_one_file_at_a_time_in_order() -> None:
    made = Board({"x": {"a": HAS, "b": WANTS}, "y": {"a": HAS, "b": WANTS}}, {"a", "b"}, {"x", "y"})
    assert [(order.file, order.host) for order in fanout.orders(made)] == [("x", "b")]
    made.note("x", "b", state="has", supplier="")
    assert [(order.file, order.host) for order in fanout.orders(made)] == [("y", "b")]


HOSTS = "abcdefgh"
STEP = st.tuples(st.sampled_from(["more", "done", "stuck", "wrong", "lost", "failed"]), st.integers(0, 7))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from([WANTS, HAS, Copy("wants", 7)]), min_size=2, max_size=8),
    st.lists(STEP, max_size=60),
)
def test_whatever_happens_nobody_waits_for_itself_and_it_ends(
    copies: list[Copy], steps: list[tuple[str, int]]
) -> None:
    made = board(dict(zip(HOSTS, copies, strict=False)))
    for what, number in steps:
        list(fanout.orders(made))
        _invariants(made)
        host = HOSTS[number % len(copies)]
        copy = made.files[F][host]
        if what == "lost":
            fanout.lost(made, host)
        elif copy.state == "gets" and host not in made.gone:
            _happens(made, host, copy, what)
    _finish(made)
    assert made.over()
    lacking = [c for h, c in made.files[F].items() if h not in made.gone and c.state != "has"]
    assert all(copy.state == "failed" and copy.reason for copy in lacking)
    if "lost" not in (happened := {what for what, _ in steps}) and happened <= {"more", "done"}:
        assert not lacking, "nothing went wrong, and yet somebody lacks it"


def _happens(made: Board, host: str, copy: Copy, what: str) -> None:
    if what == "more":
        made.note(F, host, there=copy.there + 1)
    elif what == "done":
        made.note(F, host, state="has", supplier="", there=100)
    elif what == "stuck":
        fanout.stuck(made, F, host, "it broke off")
    elif what == "wrong":
        fanout.wrong(made, F, host, "another file")
    else:
        made.note(F, host, state="failed", supplier="", reason="its disk is full")


def _invariants(made: Board) -> None:
    copies = made.files[F]
    for host, copy in copies.items():
        if copy.state != "gets":
            continue
        seen: set[str] = set()
        at = host
        while at:
            assert at not in seen, f"{host} waits for itself"
            seen.add(at)
            at = copies[at].supplier if copies[at].state == "gets" else ""
    for host in copies:
        takers = [
            c for h, c in copies.items() if c.state == "gets" and c.supplier == host and h not in made.gone
        ]
        assert len(takers) <= WIDEST
    downloads = [h for h, c in copies.items() if c.state == "gets" and not c.supplier and h not in made.gone]
    assert len(downloads) <= 1


def _finish(made: Board) -> None:
    """Let everything that is left go well; who waits for a host that gives nothing hears nothing."""
    for _ in range(100):
        list(fanout.orders(made))
        _invariants(made)
        if fanout.stands_still(made):
            fanout.give_up(made)
            return
        moved = False
        for host, copy in list(made.files[F].items()):
            if copy.state != "gets" or host in made.gone:
                continue
            supplier = made.files[F].get(copy.supplier)
            if copy.supplier in made.gone or (supplier is not None and supplier.state == "failed"):
                _happens(made, host, copy, "stuck")
                moved = True
            elif supplier is None or supplier.state == "has":
                _happens(made, host, copy, "done")
                moved = True
        assert moved, f"all wait for ever: {made.files[F]}"
    raise AssertionError("it never ends")
