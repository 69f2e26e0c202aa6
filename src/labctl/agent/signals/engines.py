"""Whether an engine of the rack file has something to do.

A unit that does not run is quiet. One that runs and does not say is not readable: it may be starting, stuck,
or in the middle of something. ``asking`` has what each kind is asked. Programs of other kinds are known by
their connections alone, where they have a port; what they do to cards and processors other signals see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import Engine
from . import asking, http, processes
from .sockets import Sockets
from .terms import Host, Signal, Unreadable, Verdict, plain, read, times

ASKED = {
    "llama-server": asking.llama_server,
    "llama-swap": asking.llama_swap,
    "vllm": asking.vllm,
    "sglang": asking.sglang,
}


class Engines(Signal):
    """An engine has a request running or waiting."""

    name = "engines"
    deadline_s = 8.0

    def __init__(self, host: Host, engines: Sequence[Engine], sockets: Sockets) -> None:
        self._root = host.root
        self._engines = engines
        self._sockets = sockets

    def look(self) -> Verdict:
        """Return busy where one is; of one that cannot be asked nothing is known, and so of all."""
        silent = ""
        running = 0
        for engine in self._engines:
            try:
                if not processes.runs(self._root, engine.unit):
                    continue
                running += 1
                said = self._ask(engine)
            except Unreadable as error:
                silent = silent or f"{engine.service}: {error}"
                continue
            if said:
                return Verdict(True, plain(f"{engine.service}: {said}"))
        if silent:
            raise Unreadable(plain(silent))
        return Verdict(
            False, f"{times(running, 'engine')} with nothing to do" if running else "no engine runs"
        )

    def _ask(self, engine: Engine) -> str:
        ask = ASKED.get(engine.kind) if engine.ask else None
        if ask is not None and engine.url:
            return ask(engine.url, self._key(engine))
        if not engine.url:
            return ""
        _, port = http.place_of(engine.url)
        count = len(self._sockets.to(port))
        return f"{times(count, 'connection')} to it" if count else ""

    def _key(self, engine: Engine) -> str:
        if engine.key_file is None:
            return ""
        content = read(self._root / Path(engine.key_file.lstrip("/")))
        if not (content or "").strip():
            raise Unreadable(f"its key is not in {engine.key_file}")
        return (content or "").split()[0]
