"""Nudges reach the controller's real door, and nothing happens where it is away, full, slow or mad."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from labctl.controller.api.peers import Allowed
from labctl.gateway.nudge import Nudger

from scripted_service import Scripted, serving  # isort: skip


async def told(nudger: Nudger) -> str:
    """Wait until all is told; return the trouble that there was."""
    while nudger._task is not None:
        await asyncio.sleep(0.001)
    return nudger.trouble


def test_the_controller_hears_which_hosts_are_wished_for(tmp_path: Path) -> None:
    service = Scripted()

    async def run() -> None:
        nudger = Nudger(str(tmp_path / "socket"))
        nudger.ring("gpu-box")
        nudger.ring("nas")
        nudger.ring("nas")
        assert await told(nudger) == ""
        nudger.ring("nas")
        assert await told(nudger) == ""

    with serving(tmp_path / "socket", service):
        asyncio.run(run())
    assert [given["host"] for given in service.called("nudge")] == ["gpu-box", "nas", "nas"]


def test_who_may_not_nudge_says_so_and_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        nudger = Nudger(str(tmp_path / "socket"))
        nudger.ring("nas")
        assert "may give no orders to this controller" in await told(nudger)

    with serving(tmp_path / "socket", Scripted(), who=Allowed(frozenset())):
        asyncio.run(run())


def test_a_host_that_it_does_not_know_is_a_trouble_that_the_next_nudge_ends(tmp_path: Path) -> None:
    async def run() -> None:
        nudger = Nudger(str(tmp_path / "socket"))
        nudger.ring("gpu-bux")
        assert "has no host gpu-bux" in await told(nudger)
        nudger.ring("nas")
        assert await told(nudger) == ""

    with serving(tmp_path / "socket", Scripted()):
        asyncio.run(run())


def test_where_there_is_no_controller_nobody_is_nudged(tmp_path: Path) -> None:
    async def run() -> None:
        elsewhere = Nudger("")
        elsewhere.ring("nas")
        assert await told(elsewhere) == ""
        away = Nudger(str(tmp_path / "socket"))
        away.ring("nas")
        assert "the controller was not reached" in await told(away)

    asyncio.run(run())


Says = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await closed(writer)


def saying(*lines: bytes) -> Says:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line)
        await closed(writer)

    return says


@pytest.mark.parametrize(
    ("says", "trouble"),
    [
        (silent, "did not answer within 0.05 s"),
        (saying(b"hello\n"), "was not reached: JSON is malformed"),
        (saying(b"[1]\n"), "what it said is no JSON object"),
        (saying(b"{}"), "it hung up"),
        (saying(b"{}\n", b'{"error":1}\n'), "it does not say why"),
        (saying(b"x" * 100_000 + b"\n"), "was not reached"),
    ],
)
def test_whatever_listens_there_a_nudge_ends_and_says_what_was_wrong(
    tmp_path: Path, says: Says, trouble: str
) -> None:
    async def run() -> None:
        server = await asyncio.start_unix_server(says, str(tmp_path / "s"))
        async with server:
            nudger = Nudger(str(tmp_path / "s"), patience_s=0.05)
            nudger.ring("nas")
            assert trouble in await told(nudger)

    asyncio.run(run())


def test_who_ends_does_not_wait_for_the_controller(tmp_path: Path) -> None:
    async def run() -> None:
        server = await asyncio.start_unix_server(silent, str(tmp_path / "s"))
        async with server:
            nudger = Nudger(str(tmp_path / "s"))
            await nudger.close()
            nudger.ring("nas")
            await asyncio.sleep(0)
            await asyncio.wait_for(nudger.close(), 5)
            assert nudger._task is None

    asyncio.run(run())
