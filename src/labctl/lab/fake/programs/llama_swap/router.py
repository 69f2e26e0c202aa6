"""Which engine runs when: one swap at a time, none of an engine that answers somebody.

A request for a model that is ready goes on at once. Otherwise what may not stay beside it is stopped first,
but not before its last request has ended; others for the same model wait for the same start. More than
``concurrencyLimit`` requests for one model are refused. A model that broke at its start has unloaded the
others all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .config import Config
from .process import Failed, Process

DEFAULT_LIMIT = 10
Log = Callable[[str, str], None]


class TooMany(Exception):
    """As many requests for the model as it may have are there already."""


class Router:
    """The engines of one configuration."""

    def __init__(self, config: Config, log: Log) -> None:
        """Begin with every engine stopped."""
        self.config, self._log = config, log
        self.processes = {id_: Process(id_, model, config.timeout) for id_, model in config.models.items()}
        self._waiting = dict.fromkeys(config.models, 0)
        self._turn = threading.Condition()
        self._swapping = False
        self.closed = False

    def running(self) -> dict[str, str]:
        """Return the state of every model that is not stopped."""
        states = {id_: process.state for id_, process in self.processes.items()}
        return {id_: state for id_, state in states.items() if state != "stopped"}

    def enter(self, id_: str) -> Process:
        """Return a model's engine, ready, for one request; ``leave`` must follow.

        Raises:
            TooMany: too many requests for it are there.
            Failed: it did not start.
        """
        limit = self.config.models[id_].get("concurrencyLimit") or 0
        with self._turn:
            if self._waiting[id_] >= (limit if limit > 0 else DEFAULT_LIMIT):
                raise TooMany
            self._waiting[id_] += 1
        try:
            self._swap(id_)
        except BaseException:
            with self._turn:
                self._waiting[id_] -= 1
                self._turn.notify_all()
            raise
        return self.processes[id_]

    def leave(self, process: Process) -> None:
        """Say that a request has ended."""
        with self._turn:
            self._waiting[process.id] -= 1
            process.busy -= 1
            process.last_use = time.monotonic()
            self._turn.notify_all()

    def _swap(self, id_: str) -> None:
        wanted = self.processes[id_]
        while True:
            with self._turn:
                evicted = self._evicted(id_)
                if self.closed:
                    raise Failed("group is shutting down")
                if wanted.state == "ready" and not evicted and not self._swapping:
                    wanted.busy += 1
                    return
                if self._swapping or any(self.processes[one].busy for one in evicted):
                    self._turn.wait(0.2)
                    continue
                self._swapping = True
            try:
                for one in evicted:
                    self.processes[one].stop()
                wanted.start()
                self._log("INFO", f"<{id_}> Health check passed on {wanted.model['proxy']}")
            except Failed as error:
                self._log("WARN", f"group: starting {id_} failed: {error}")
                raise
            finally:
                with self._turn:
                    self._swapping = False
                    self._turn.notify_all()

    def _evicted(self, id_: str) -> list[str]:
        running = [one for one in self.running() if one != id_]
        if self.config.matrix is not None:
            ready = self.processes[id_].state != "stopped"
            return [] if ready else self.config.matrix.evicted(id_, running)
        groups, of = self.config.groups, self.config.group_of
        mine = groups[of[id_]]
        return [
            one
            for one in running
            if (of[one] == of[id_] and mine["swap"])
            or (of[one] != of[id_] and mine["exclusive"] and not groups[of[one]]["persistent"])
        ]

    def unload(self, id_: str | None = None) -> None:
        """Stop a model, or all of them, whatever they do."""
        stopping = [
            threading.Thread(target=process.stop)
            for one, process in self.processes.items()
            if id_ in (None, one)
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def close(self) -> None:
        """Let no more requests in, and stop everything."""
        self.closed = True
        self.unload()

    def stop_idle(self) -> None:
        """Stop the models that nobody used for their ``ttl``."""
        for process in self.processes.values():
            idle = time.monotonic() - process.last_use
            if process.state == "ready" and not process.busy and 0 < process.model["ttl"] < idle:
                self._log("INFO", f"<{process.id}> Unloading model, TTL of {process.model['ttl']}s reached")
                process.stop()
