"""Tell the controller that there is something new in the store, so that it need not wait for its next tick.

It is asked over its unix socket (the verb ``nudge``, the only one that the gateway's user may use), best
effort: a controller that is not there, stands by or is slow finds the wish at its next tick anyway. Whatever
is wished for while it is being told is told right after, once for all.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

PATIENCE_S = 3.0
"""For the whole of a nudge; nobody waits for it."""
_LONGEST = 64 * 1024
_VERSION = 1


class Nudger:
    """Nudges a controller; ``ring`` never waits or fails; ``trouble`` is why the last did not get there."""

    def __init__(self, socket: str, *, patience_s: float = PATIENCE_S) -> None:
        """Contact nobody yet; ``socket`` is the controller's, empty where it is on another machine."""
        self._socket, self._patience_s = socket, patience_s
        self._due: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""

    def ring(self, host: str) -> None:
        """Tell it, in the background of the running event loop, that a host is wished for."""
        if not self._socket:
            return
        self._due.add(host)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Give up what was not told yet."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._due:
                hosts = sorted(self._due)
                self._due.clear()
                try:
                    async with asyncio.timeout(self._patience_s):
                        self.trouble = await self._tell(hosts)
                except TimeoutError:
                    self.trouble = f"the controller did not answer within {self._patience_s:g} s"
                except (OSError, ValueError) as error:
                    self.trouble = f"the controller was not reached: {error}"
        finally:
            self._task = None

    async def _tell(self, hosts: list[str]) -> str:
        """Return why it was not nudged; empty: it was."""
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LONGEST)
        try:
            greeting = _line(await reader.readline())
            if "error" in greeting:
                return _reason(greeting)
            writer.write(msgspec.json.encode({"v": _VERSION, "do": "nudge", "hosts": hosts}) + b"\n")
            while True:
                said = _line(await reader.readline())
                if "error" in said:
                    return _reason(said)
                if said.get("done"):
                    return ""
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _line(line: bytes) -> dict[str, Any]:
    """Return what a line says.

    Raises:
        ValueError: it hung up, or the line is no JSON object.
    """
    if not line.endswith(b"\n"):
        raise ValueError("it hung up")
    said = msgspec.json.decode(line)
    if not isinstance(said, dict):
        raise ValueError("what it said is no JSON object")
    return said


def _reason(said: dict[str, Any]) -> str:
    error = said["error"]
    reason = error.get("reason") if isinstance(error, dict) else None
    return f"the controller refused the nudge: {reason or 'it does not say why'}"
