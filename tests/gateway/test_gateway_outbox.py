"""Writes that go out together: every byte, in order, before the connection's end, and at the latest soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as some

from labctl.gateway.proxy.outbox import LARGE, MANY, TOGETHER, Line, Outbox


class Loop:
    """A loop whose time is told, and which runs what was asked for soon when it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        self.now += 0.001


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def lines(count: int) -> tuple[Loop, list[Line], list[Wire]]:
    loop = Loop()
    outbox = Outbox(cast(asyncio.AbstractEventLoop, loop))
    wires = [Wire() for _ in range(count)]
    return loop, [Line(wire, outbox) for wire in wires], wires


SIZES = some.sampled_from([0, 1, 7, 40_000, LARGE - 1, LARGE, LARGE + 1])
STEPS = some.lists(
    some.tuples(some.integers(0, 3), SIZES | some.sampled_from(["close", "turn"])), max_size=60
)


@given(some.booleans(), STEPS)
def test_each_byte_goes_out_in_order_and_before_the_end(busy: bool, steps: list[tuple[int, Any]]) -> None:
    loop, all_lines, wires = lines(4)
    if busy:
        for _ in range(MANY):
            all_lines[0].write(b"-")
    wanted = [b"-" * MANY if busy else b"", b"", b"", b""]
    for number, (at, what) in enumerate(steps):
        if what == "turn":
            loop.turn()
            assert [wire.sent for wire in wires] == wanted
        elif what == "close":
            all_lines[at].close()
            assert wires[at].sent == wanted[at]
        else:
            data = bytes([number]) * what
            if not wires[at].closed:
                wanted[at] += data
            all_lines[at].write(data)
    loop.turn()
    assert [wire.sent for wire in wires] == wanted


def test_a_write_goes_out_at_once_where_little_is_to_do() -> None:
    loop, (line, *_), (wire, *_) = lines(1)
    for _ in range(100):
        line.write(b"a")
        assert wire.sent.endswith(b"a") and not loop.soon
        wire.sent = b""
        loop.turn()


def test_a_burst_does_not_wait_for_its_last_line() -> None:
    _, all_lines, wires = lines(TOGETHER + MANY)
    for line in all_lines:
        line.write(b"a")
    assert sum(len(wire.sent) for wire in wires) >= TOGETHER


def test_what_was_written_is_lost_when_a_connection_is_cut() -> None:
    loop, all_lines, wires = lines(MANY + 1)
    for line in all_lines:
        line.write(b"a")
    assert wires[-1].sent == b""
    all_lines[-1].abort()
    loop.turn()
    assert wires[-1].sent == b""
