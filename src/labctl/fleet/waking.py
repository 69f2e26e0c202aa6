"""Wake hosts without a controller: send, wait until their agents report, look whether all is there.

The first round goes out at once, further ones ever more slowly, since packets get lost and a card that is
just going to sleep hears none. Nothing but the host's own report counts as awake: a machine that answers
pings may hang at boot. A host that answers and refuses us (its key changed, say) will not do better by
waiting, so that ends it.

This is the way around the controller: it knows no budget, no dependencies and no resume gate.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.domain.sleep.lifecycle import Mode
from labctl.fleet import reports
from labctl.inventory import LoadedRack
from labctl.ports import Remote
from labctl.ports.power import PowerError, Switch

GAPS_S = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the first rounds; from then on the last of them."""
_ASK_S = 8.0
ASK_AGAIN_S = 1.0
_NO_USE = frozenset({"host-key", "auth", "no-sudo", "no-shell"})

Verify = Callable[[str, dict[str, Any]], tuple[str, ...]]
"""Returns what is broken on a host by its report."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a host; ``ok`` is None on the way."""

    host: str
    mode: Mode
    because: str
    ok: bool | None = None


class Waking:
    """One attempt to wake some hosts of a rack."""

    def __init__(
        self, loaded: LoadedRack, switches: Mapping[str, Switch], remote: Remote, verify: Verify
    ) -> None:
        self._loaded = loaded
        self._switches = switches
        self._remote = remote
        self._verify = verify
        self._news: queue.SimpleQueue[Change | BaseException] = queue.SimpleQueue()
        self._over = {host: threading.Event() for host in switches}

    def send_once(self) -> dict[str, Change]:
        """Send one round to each host and wait for nothing."""
        return {host: self._round(host) for host in self._switches}

    def run(
        self, *, timeout_s: float, monotonic: Callable[[], float], on_change: Callable[[Change], None]
    ) -> dict[str, Change]:
        """Wake the hosts, and return the last change of each; Ctrl-C ends it as a ``KeyboardInterrupt``."""
        end = monotonic() + timeout_s
        latest: dict[str, Change] = {}
        for host in self._switches:
            for what in (self._send, self._ask):
                threading.Thread(target=self._safely, args=(what, host), daemon=True).start()
        try:
            while not all(host in latest and latest[host].ok is not None for host in self._switches):
                try:
                    change = self._news.get(timeout=max(0.0, end - monotonic()))
                except queue.Empty:
                    break
                if isinstance(change, BaseException):
                    raise change
                known = latest.get(change.host)
                if known is None or known.ok is None:
                    latest[change.host] = change
                    on_change(change)
        finally:
            for over in self._over.values():
                over.set()
            self._remote.stop()
        late = Change("", Mode.WAKING, "nothing was heard of it")
        return {host: latest.get(host, late) for host in self._switches}

    def _safely(self, what: Callable[[str], None], host: str) -> None:
        try:
            what(host)
        except BaseException as bug:
            self._news.put(bug)

    def _tell(self, change: Change) -> None:
        if change.ok is not None:
            self._over[change.host].set()
        self._news.put(change)

    def _send(self, host: str) -> None:
        """Send rounds until it is over; a back-end that can do nothing ends it."""
        number = 0
        while not self._over[host].is_set():
            number += 1
            self._tell(self._round(host))
            self._over[host].wait(GAPS_S[min(number, len(GAPS_S)) - 1])

    def _round(self, host: str) -> Change:
        try:
            self._switches[host].wake()
        except PowerError as error:
            hint = f" ({error.hint})" if error.hint else ""
            ok = None if error.transient else False
            mode = Mode.WAKING if error.transient else Mode.FAILED
            return Change(host, mode, f"it could not be woken: {error}{hint}", ok)
        kind = self._switches[host].kind
        return Change(host, Mode.WAKING, f"its wake was sent ({kind}); waiting for its agent to report")

    def _ask(self, host: str) -> None:
        while not self._over[host].is_set():
            answer = reports.ask(self._loaded, [host], _ASK_S, self._remote)[host]
            if isinstance(answer, reports.Report):
                broken = self._verify(host, answer.document)
                if broken:
                    self._tell(Change(host, Mode.FAILED, f"it answers, but {'; '.join(broken)}", False))
                else:
                    self._tell(Change(host, Mode.READY, "its agent reports, and nothing is missing", True))
                return
            failure = answer.failure
            if failure.code == "interrupted":
                return
            if failure.code in _NO_USE or not failure.unreachable:
                hint = f" ({failure.hint})" if failure.hint else ""
                self._tell(Change(host, Mode.FAILED, f"it answers, but {failure.reason}{hint}", False))
                return
            self._over[host].wait(ASK_AGAIN_S)
