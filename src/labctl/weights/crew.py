"""The programs of one run on its hosts: start them all, tell them things, hear what they say in one queue.

A thread for each host starts the program and listens; whoever uses the crew hears everything in its own
thread. All are told every few seconds that somebody is still here, since a program that hears nothing for a
minute ends by itself.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labctl.domain.failures import Failure, HostError
from labctl.ports import Conversation, Talker
from labctl.weights import program

STILL_HERE_S = 10.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What a host said; or in ``failure`` why it says no more. ``here``: the program began to listen."""

    host: str
    said: Mapping[str, Any] | None = None
    failure: Failure | None = None

    @property
    def event(self) -> str:
        """Return what kind of news it is: ``here`` at the beginning, ``gone`` at the end."""
        if self.failure is not None:
            return "gone"
        return str((self.said or {}).get("event", ""))


class Crew:
    """The hosts of one run; used as a context, at the end of which no program runs any more."""

    def __init__(self, talker: Talker, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        self._talker, self._hosts = talker, hosts
        self._talks: dict[str, Conversation] = {}
        self._news: queue.SimpleQueue[Heard | BaseException] = queue.SimpleQueue()
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._ended: set[str] = set()
        self.peers: dict[str, str] = {}

    def __enter__(self) -> Crew:
        for host in self._hosts:
            threading.Thread(target=self._listen, args=(host,), daemon=True, name=f"crew {host}").start()
        threading.Thread(target=self._stay, daemon=True, name="crew").start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        with self._guard:
            talks = list(self._talks.values())
        for talk in talks:
            talk.close()
        self._talker.stop()

    def _listen(self, host: str) -> None:
        try:
            talk = self._talker.talk(host, self._hosts[host], program.ARGV, root=True)
            with self._guard:
                self._talks[host] = talk
            if self._over.is_set():
                talk.close()
                return
            talk.send(program.preamble())
            self.peers[host] = talk.peer
            self._news.put(Heard(host, {"event": "here"}))
            for line in talk.lines():
                if line.strip():
                    self._news.put(Heard(host, self._understood(line)))
            self._end(
                host, Failure("connection-lost", "labctl's program ended there", "run it again; it resumes")
            )
        except HostError as error:
            self._end(host, error.failure)
        except BaseException as bug:
            self._news.put(bug)

    def _end(self, host: str, failure: Failure) -> None:
        with self._guard:
            self._ended.add(host)
        self._news.put(Heard(host, failure=failure))

    def _understood(self, line: bytes) -> Mapping[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            shown = line[:200].decode("utf-8", "replace")
            raise HostError(Failure("op-failed", f"labctl's program says what cannot be read: {shown}"))
        return found

    def _stay(self) -> None:
        while not self._over.wait(STILL_HERE_S):
            with self._guard:
                hosts = list(self._talks)
            for host in hosts:
                self.tell(host, {"do": "ping"})

    def tell(self, host: str, order: Mapping[str, Any]) -> None:
        """Tell a host an order; where it is gone already, its end is heard soon."""
        with self._guard:
            talk = self._talks.get(host)
        if talk is None:
            return
        try:
            talk.send(json.dumps(order).encode() + b"\n")
        except HostError:
            return

    def dismiss(self, within_s: float = 10.0) -> list[Heard]:
        """Let every program end in good order, and return what they still had to say."""
        with self._guard:
            left = set(self._talks) - self._ended
        for host in left:
            self.tell(host, {"do": "end"})
        found: list[Heard] = []
        until = threading.Event()
        clock = threading.Timer(within_s, until.set)
        clock.daemon = True
        clock.start()
        while left and not until.is_set():
            heard = self.hear(0.5)
            if heard is not None:
                found.append(heard)
                if heard.failure is not None:
                    left.discard(heard.host)
        clock.cancel()
        return found

    def hear(self, timeout_s: float | None = None) -> Heard | None:
        """Return the next news, or None when there is none for so long; raise what a thread died of."""
        try:
            found = self._news.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found
