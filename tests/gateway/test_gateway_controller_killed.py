"""Streams through a whole gateway while controllers are killed, again and again, amid their work."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from assembled_kit import Rack, assembled, table_for, upstream
from upstream_double import Double

from labctl.domain.gateway.table import Host

HAMMER = Path(__file__).parents[1] / "store" / "hammer.py"
BOXES = tuple(f"box{number}" for number in range(12))  # those that it puts to sleep
SERVING = BOXES[:2]
CLIENTS = 20
KILLS = 3
PATIENCE_S = 30
WORDS = tuple(f" {number}" for number in range(40))
ASKED = {"model": "qwen", "stream": True, "messages": [{"role": "user", "content": "count"}]}


async def kills(rack: Rack, path: Path) -> None:
    """Start a controller that suspends whatever it may, and kill it when it has done some of it."""
    for _ in range(KILLS):
        until = rack.store.happenings(most=1)[-1].id + 20
        controller = await asyncio.create_subprocess_exec(
            *(sys.executable, str(HAMMER), "-", str(path), "controller"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                while rack.store.happenings(most=1)[-1].id < until:
                    await asyncio.sleep(0.01)
        finally:
            controller.kill()
            await controller.wait()


async def listens(rack: Rack, over: asyncio.Event) -> list[str]:
    """Have one stream after the other; return what was said in each."""
    heard = []
    while not over.is_set():
        reply = await rack.post("/v1/chat/completions", ASKED)
        assert reply.status == 200, reply.body
        events = [line[6:] for line in reply.body.decode().split("\n\n") if line.startswith("data: {")]
        deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
        heard.append("".join(delta.get("content") or "" for delta in deltas))
    return heard


def test_no_stream_is_hurt_when_controllers_are_killed(tmp_path: Path) -> None:
    async def run() -> list[str]:
        over = asyncio.Event()
        async with Double(words=WORDS, pace_s=0.02) as double:
            hosts = tuple(Host(name, True, True, 60.0) for name in BOXES)
            serving = (upstream(double, name) for name in SERVING)
            table = table_for(*serving, folder=tmp_path, hosts=hosts)
            async with assembled(tmp_path, table) as rack:
                clients = asyncio.gather(*(listens(rack, over) for _ in range(CLIENTS)))
                try:
                    await kills(rack, tmp_path / "store.db")
                finally:
                    over.set()
                    heard = await clients
        return [text for texts in heard for text in texts]

    heard = asyncio.run(run())
    assert len(heard) >= CLIENTS
    assert set(heard) == {"".join(WORDS)}
