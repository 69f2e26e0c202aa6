"""Ask an upstream what it has loaded, by a question that loads nothing.

llama-swap tells it at GET /running, Ollama at GET /api/ps; others have one model, or do not tell. It is asked
only while its host is awake, only where a choice depends on it, at most every ``EVERY_S``, and nobody waits
for the answer: the next choice is made by it. Whatever goes wrong leaves what was known.
"""

from __future__ import annotations

import asyncio
import re

import msgspec

from labctl.domain.gateway.table import Kind
from labctl.gateway.desk.lanes import Lane

EVERY_S = 10.0
WITHIN_S = 2.0
MOST_BYTES = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d{1,12})\r\n", re.IGNORECASE)
PATHS = {Kind.LLAMA_SWAP: "/running", Kind.OLLAMA: "/api/ps"}


class _Running(msgspec.Struct):
    model: str = ""
    state: str = "ready"


class _Swap(msgspec.Struct):
    running: list[_Running] = []


class _Loaded(msgspec.Struct):
    name: str = ""
    model: str = ""


class _Ollama(msgspec.Struct):
    models: list[_Loaded] = []


class Running:
    """Asks upstreams, each by one question at a time."""

    def __init__(self) -> None:
        self._asking: set[asyncio.Task[None]] = set()

    def look(self, lane: Lane, now: float) -> None:
        """Have an upstream asked, if it can be and it is time."""
        path = PATHS.get(lane.upstream.kind)
        if path is None or lane.upstream.tls or now < lane.asked_at + EVERY_S:
            return
        lane.asked_at = now
        task = asyncio.get_running_loop().create_task(_ask(lane, lane.upstream.base_path + path))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def close(self) -> None:
        """Ask no more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


async def _ask(lane: Lane, path: str) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            said = await _get(lane, path)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return
    lane.loaded = said


async def _get(lane: Lane, path: str) -> frozenset[str]:
    upstream = lane.upstream
    reader, writer = await asyncio.open_connection(upstream.address, upstream.port, limit=MOST_BYTES)
    try:
        key = f"Authorization: Bearer {lane.key}\r\n" if lane.key else ""
        # HTTP/1.0: its answer has no chunks; it ends where it says, or with the connection.
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {upstream.address}:{upstream.port}\r\n{key}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != b"200":
            raise ValueError("it does not tell")
        length = _LENGTH.search(head)
        size = min(int(length[1]), MOST_BYTES) if length else MOST_BYTES
        body = bytearray()
        while len(body) < size and (piece := await reader.read(size - len(body))):
            body += piece
    finally:
        writer.close()
    return loaded_by(upstream.kind, bytes(body))


def loaded_by(kind: Kind, body: bytes) -> frozenset[str]:
    """Return what an upstream says that it has loaded, by its own names.

    Raises:
        ValueError: it says something else.
    """
    if kind is Kind.LLAMA_SWAP:
        swap = msgspec.json.decode(body, type=_Swap)
        return frozenset(one.model for one in swap.running if one.state in ("ready", "starting"))
    names = {
        name
        for one in msgspec.json.decode(body, type=_Ollama).models
        for name in (one.name, one.model)
        if name
    }
    return frozenset(names | {name.removesuffix(":latest") for name in names})
