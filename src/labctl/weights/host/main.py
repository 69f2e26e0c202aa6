"""Hear orders, one JSON object a line, and carry them out; say what happens, likewise.

One file is fetched at a time, in a thread; orders are heard meanwhile. The end of the input is the end of the
program, whatever it is doing: what was received stays to be resumed, everything else goes with the process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from labctl.weights.host import look, stamps
from labctl.weights.host.door import Door
from labctl.weights.host.fetch import Fetch
from labctl.weights.host.incoming import HostFault, Incoming
from labctl.weights.host.shelf import Held, Server, Shelf

SILENCE_S = 60.0
"""Without a word from the operator's side for so long, nobody is there any more."""
TICK_S = 0.5
_STILL_HERE_TICKS = 20


class Program:
    """What one run of labctl has on this host."""

    def __init__(self) -> None:
        self._voice = threading.Lock()
        self._shelf = Shelf()
        self._servers: list[Server] = []
        self._door: Door | None = None
        self._fetches: dict[str, Fetch] = {}
        self._current: Fetch | None = None
        self._thread: threading.Thread | None = None
        self._heard = threading.Event()
        self._verifying: tuple[str, int] | None = None

    def run(self) -> None:
        """Serve until the input ends."""
        threading.Thread(target=self._tick, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            for line in sys.stdin.buffer:
                self._heard.set()
                order = json.loads(line)
                if order["do"] == "end":
                    self._wait_for_work()
                    self.say("progress", file="", there=0, sent=self._shelf.sent)
                    break
                self._obey(order)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._door is not None:
            self._door.close()
        sys.stdout.flush()
        os._exit(0)

    def _watch(self) -> None:
        while self._heard.wait(SILENCE_S):
            self._heard.clear()
        self._leave()

    def say(self, event: str, **more: Any) -> None:
        """Tell the operator's side something."""
        line = json.dumps({"event": event, **more}).encode() + b"\n"
        try:
            with self._voice:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        except OSError:
            self._leave()

    def _tick(self) -> None:
        last: tuple[str, int, int] | None = None
        quiet, pause = 0, threading.Event()
        while not pause.wait(TICK_S):
            fetch, verifying = self._current, self._verifying
            file, there = verifying or ((fetch.file, fetch.there) if fetch is not None else ("", 0))
            now = (file, there, self._shelf.sent)
            quiet += 1
            if now != last or quiet >= _STILL_HERE_TICKS:
                self.say("progress", file=file, there=there, sent=self._shelf.sent)
                last, quiet = now, 0

    def _obey(self, order: dict[str, Any]) -> None:
        verbs: dict[str, Callable[[dict[str, Any]], None]] = {
            "ping": lambda order: None,
            "open": self._open,
            "serve": self._serve,
            "fetch": self._fetch,
            "drop": self._drop,
            "look": lambda order: self.say("looked", **look.look(order["files"], order["folders"])),
            "collect": lambda order: self.say(
                "collected", **look.collect(order["doomed"], order["roots"], really=order["really"])
            ),
            "verify": self._verify,
        }
        verbs[order["do"]](order)

    def _open(self, order: dict[str, Any]) -> None:
        """Begin to hand on: bind the addresses that are this host's, and open the firewall for the guests."""
        guests, why = frozenset(order["guests"]), ""
        for address in order["addresses"]:
            try:
                server = Server(address, self._shelf, order["key"], guests)
            except OSError as error:
                why = f"{address}: {error.strerror or error}"
                continue
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        ports = [server.port for server in self._servers]
        self._door = Door([(guest, port) for guest in sorted(guests) for port in ports])
        try:
            self._door.open()
        except HostFault as fault:
            why = str(fault)
        self.say("ready", places=[[str(s.server_address[0]), s.port] for s in self._servers], why=why)

    def _serve(self, order: dict[str, Any]) -> None:
        """Hand on a file that is complete here."""
        path, sha256 = order["path"], order["sha256"]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self.say("unserved", file=order["file"], reason=error.strerror or str(error))
            return
        status = os.fstat(descriptor)
        if stamps.vouched(path, status) != sha256:
            self.say("unserved", file=order["file"], reason="it is not verified there")
            return
        digests = stamps.digests_of(path, status.st_size)
        self._shelf.put(sha256, Held(descriptor, status.st_size, digests, whole=True))
        self.say("served", file=order["file"], size=status.st_size)

    def _fetch(self, order: dict[str, Any]) -> None:
        """Get a file; a fetch of it that is going on gives way, and goes on as ordered now."""
        if self._current is not None:
            self._current.cancelled.set()
        self._wait_for_work()
        fetch = self._fetches.get(order["file"])
        if fetch is None or fetch.incoming.fileno() < 0:
            incoming = Incoming(order["path"], order["sha256"], order["size"])
            fetch = Fetch(order["file"], incoming, self._shelf, self.say)
            self._fetches[order["file"]] = fetch
        fetch.cancelled.clear()
        self._current = fetch
        self._work(lambda: fetch.run(order))

    def _drop(self, order: dict[str, Any]) -> None:
        """Throw away what came of a file; it was begun by what is now known to be wrong."""
        fetch = self._fetches.pop(order["file"], None)
        if fetch is not None:
            fetch.cancelled.set()
            if fetch is self._current:
                self._wait_for_work()
            fetch.drop()
        else:
            incoming = Incoming(order["path"], order["sha256"], None)
            try:
                incoming.open()
                incoming.close(discard=True)
            except (HostFault, OSError):
                pass
        self.say("dropped", file=order["file"])

    def _verify(self, order: dict[str, Any]) -> None:
        self._wait_for_work()
        self._work(lambda: self._verify_all(order["files"]))

    def _verify_all(self, files: list[dict[str, Any]]) -> None:
        for one in files:

            def note(there: int, path: str = one["path"]) -> None:
                self._verifying = (path, there)

            note(0)
            found = look.verify(one["path"], one["sha256"], note)
            self._verifying = None
            self.say("verified", path=one["path"], **found)

    def _work(self, what: Callable[[], None]) -> None:
        def work() -> None:
            try:
                what()
            except Exception as error:
                self.say("bug", reason=f"{type(error).__name__}: {error}")
                self._leave()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def _wait_for_work(self) -> None:
        if self._thread is not None:
            self._thread.join()


def main() -> None:
    """Be the program."""
    Program().run()
