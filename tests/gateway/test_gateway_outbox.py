"""Writes that go out together go out in order, whole, and before their connection is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from labctl.gateway.proxy.outbox import LARGE, OFTEN, REST_S, SAMPLE, TOGETHER, Line, Outbox


class Loop:
    """A loop whose time stands still, and that runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.now = 1.0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Wire:
    """What a transport was told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def is_closing(self) -> bool:
        return "close" in self.told or "abort" in self.told

    def write(self, data: bytes) -> None:
        assert not self.is_closing(), "a transport that is closed was written to"
        self.told.append(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")


class Rig:
    """An outbox in which there is much to do."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.outbox = Outbox(self.loop, self.loop.time)  # type: ignore[arg-type]
        for _ in range(2 * SAMPLE):
            self.line()[0].write(b"-")
        assert self.outbox.gathers
        self.loop.turn()

    def line(self) -> tuple[Line, Wire]:
        wire = Wire()
        return Line(wire, self.outbox), wire  # type: ignore[arg-type]


def test_when_there_is_little_to_do_bytes_go_out_at_once() -> None:
    loop = Loop()
    outbox = Outbox(loop, loop.time)  # type: ignore[arg-type]
    wire = Wire()
    line = Line(wire, outbox)  # type: ignore[arg-type]
    for number in range(4 * SAMPLE):
        loop.now += 0.0005  # two writes in each millisecond
        line.write(b"%d" % number)
        assert wire.told[-1] == b"%d" % number
    assert not loop.soon


def test_when_there_is_much_to_do_bytes_go_out_together_in_order_and_in_one_piece_for_each_line() -> None:
    rig = Rig()
    (one, first), (other, second) = rig.line(), rig.line()
    one.write(b"a")
    other.write(b"x")
    one.write(b"b")
    assert (first.told, second.told) == ([], [])
    rig.loop.turn()
    assert (first.told, second.told) == ([b"ab"], [b"x"])
    rig.loop.turn()
    assert (first.told, second.told) == ([b"ab"], [b"x"])


def test_a_large_burst_does_not_wait_for_its_last_line() -> None:
    rig = Rig()
    made = [rig.line() for _ in range(TOGETHER + 1)]
    for line, _ in made:
        line.write(b"a")
    assert [wire.told for _, wire in made] == [[b"a"]] * TOGETHER + [[]]
    rig.loop.turn()
    assert made[-1][1].told == [b"a"]


@pytest.mark.parametrize(
    ("end", "told"),
    [("close", [b"ab", "close"]), ("write_eof", [b"ab", "eof"]), ("abort", ["abort"])],
)
def test_what_was_written_goes_out_before_the_line_ends_but_for_an_abort(end: str, told: list[Any]) -> None:
    rig = Rig()
    line, wire = rig.line()
    line.write(b"a")
    line.write(b"b")
    getattr(line, end)()
    assert wire.told == told
    rig.loop.turn()
    assert wire.told == told


def test_what_is_large_goes_out_at_once_behind_what_was_written_before() -> None:
    rig = Rig()
    line, wire = rig.line()
    line.write(b"head")
    line.write(b"b" * LARGE)
    assert wire.told == [b"head", b"b" * LARGE]
    line.write(b"tail")
    rig.loop.turn()
    assert wire.told[2:] == [b"tail"]


def test_a_line_keeps_no_more_than_what_would_go_out_at_once() -> None:
    rig = Rig()
    line, wire = rig.line()
    for _ in range(10):
        line.write(b"x" * (LARGE // 4))
    assert b"".join(wire.told) == b"x" * 2 * LARGE
    rig.loop.turn()
    assert b"".join(wire.told) == b"x" * (10 * LARGE // 4)


def test_a_connection_that_is_lost_meanwhile_is_not_written_to() -> None:
    rig = Rig()
    line, wire = rig.line()
    line.write(b"a")
    wire.told.append("close")  # by its peer
    rig.loop.turn()
    line.write(b"b" * LARGE)
    assert wire.told == ["close"]


def test_when_there_is_little_to_do_again_bytes_go_out_at_once_again() -> None:
    rig = Rig()
    line, wire = rig.line()
    for _ in range(OFTEN):
        rig.loop.now += 1
        line.write(b"a")
        rig.loop.turn()
    rig.loop.now += 1
    line.write(b"b")
    assert wire.told == [b"a"] * OFTEN + [b"b"]


def test_what_was_not_worth_it_is_tried_again_a_little_later() -> None:
    rig = Rig()
    line, _ = rig.line()
    while rig.outbox.gathers:
        line.write(b"a")
        rig.loop.turn()
    for _ in range(4 * SAMPLE):
        line.write(b"a")
    assert not rig.outbox.gathers
    rig.loop.now += 2 * REST_S
    for _ in range(2 * SAMPLE):
        line.write(b"a")
    assert rig.outbox.gathers


def test_bytes_of_a_real_connection_arrive_in_order_whatever_the_outbox_does() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        outbox = Outbox(loop, loop.time)
        whole = b"".join(b"%d," % number for number in range(5000))
        got = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.extend(await reader.read(-1))
            writer.close()
            done.set()

        done = asyncio.Event()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        line = Line(transport, outbox)
        for number in range(5000):
            line.write(b"%d," % number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        line.close()
        await asyncio.wait_for(done.wait(), 10)
        server.close()
        assert bytes(got) == whole

    asyncio.run(run())
