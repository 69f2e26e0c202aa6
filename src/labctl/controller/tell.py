"""Say what happened, one sentence at a time: a host when its mode or reason changed, an act when it failed.

Lines go to the log of the process, as ``host=gpu-box mode=waking because="..."``: a person reads them in the
journal, and a program can. What stays as it is is not said again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from labctl.domain.sleep.terms import Known

log = logging.getLogger("labctl.controller")


_IN_TURNS = 8


class Teller:
    """Remembers what was said last; may be used by any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._said: dict[str, str] = {}
        self._hosts: dict[str, tuple[object, deque[str]]] = {}

    def hosts(self, known: Known, waits: Mapping[str, str]) -> None:
        """Say each host whose mode or reason is not as it was; what is said in turns is said once."""
        self.store("")
        for name, row in known.hosts.items():
            stay, because = (row.mode, row.since), waits.get(name, row.because)
            before = self._hosts.get(name)
            if before is None or before[0] != stay:
                before = self._hosts[name] = (stay, deque(maxlen=_IN_TURNS))
            if because not in before[1]:
                before[1].append(because)
                log.info("host=%s mode=%s because=%s", name, row.mode, json.dumps(because))

    def act(self, host: str, text: str) -> None:
        """Say how an act failed, or what was done besides."""
        self._once(f"act {host}", f"{f'host={host} ' if host else ''}note={json.dumps(text)}")

    def stale(self, host: str, text: str) -> None:
        """Say that a decision was overtaken: somebody was quicker."""
        log.debug("host=%s overtaken=%s", host, json.dumps(text))

    def bug(self, host: str, error: BaseException) -> None:
        """Say that something failed in a way that nobody foresaw, and where."""
        trace, place = error.__traceback__, ""
        while trace is not None:
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        text = f"labctl failed, which is a bug: {type(error).__name__}: {error} at {place}"
        with self._guard:
            log.error("%snote=%s", f"host={host} " if host else "", json.dumps(text))

    def store(self, text: str) -> None:
        """Say what is wrong with the store, and when it is well again."""
        if text:
            self._once("store", f"store={json.dumps(text)} (nothing is put to sleep)")
        elif self._said.get("store"):
            self._once("store", "")
            log.info('store="it can be used again"')

    def leads(self, name: str, *, ours: bool) -> None:
        """Say who leads."""
        text = "this controller leads" if ours else f"{name or 'nobody'} leads; this controller stands by"
        self._once("leader", f"note={json.dumps(text)}")

    def _once(self, key: str, text: str) -> None:
        with self._guard:
            if self._said.get(key) == text:
                return
            self._said[key] = text
        if text:
            log.info(text)
