"""From what the store has of hosts to what the gateway says of them.

How long a wake takes is what it usually took, else what its proof took, else what the rack file allows for a
boot. How much of it is left is counted from the first packet, as far as we saw that wake begin; of a host
that is being looked at and that we did not see begin, from when that began. It is a guess for people, so it
is never negative and never more than the whole, whatever clocks do.

The store returns the same object for a host as long as nothing of it changed; so does this.
"""

from __future__ import annotations

from collections.abc import Mapping

from labctl.domain.gateway.table import Host
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Known, KnownHost
from labctl.domain.sleep.waking import usual_s
from labctl.gateway.terms import HostNow

_COMING = frozenset({Mode.WAKING, Mode.VERIFYING})


class Sight:
    """Sees hosts; keeps when each began to wake (wall)."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._began: dict[str, float] = {}
        self._made: dict[str, tuple[KnownHost | None, str, HostNow]] = {}

    def never(self) -> dict[str, HostNow]:
        """Return what is said of hosts before the store was looked at."""
        because = "the store was not looked at yet"
        return {
            name: HostNow(name, Mode.UNKNOWN, 0.0, because, host.boot_s, refused=_without_row(host))
            for name, host in self._hosts.items()
        }

    def look(self, known: Known, wall: float) -> dict[str, HostNow]:
        """Return all hosts of the table as the store has them."""
        return {name: self._one(host, known, wall) for name, host in self._hosts.items()}

    def _one(self, host: Host, known: Known, wall: float) -> HostNow:
        row = known.hosts.get(host.name)
        made = self._made.get(host.name)
        same = made is not None and made[0] is row and made[1] == known.paused
        if made is not None and same and made[2].mode not in _COMING:
            return made[2]
        seen = _unknown(host) if row is None else self._seen(host, row, known.paused, wall)
        self._made[host.name] = (row, known.paused, seen)
        return seen

    def _seen(self, host: Host, row: KnownHost, paused: str, wall: float) -> HostNow:
        usual = usual_s(row)
        comes_s = host.boot_s if usual is None else usual
        return HostNow(
            row.name,
            row.mode,
            row.since,
            row.because,
            comes_s,
            left_s=min(comes_s, max(0.0, comes_s - (wall - self._began_at(row)))),
            refused=_refused(host, row, paused),
            leases=row.claims.leases,
        )

    def _began_at(self, row: KnownHost) -> float:
        """Return when its wake began; of a host that does not come, so long ago that nothing is left."""
        if row.mode not in _COMING:
            self._began.pop(row.name, None)
            return float("-inf")
        if row.attempt is not None:
            self._began[row.name] = row.attempt.began
        return self._began.setdefault(row.name, row.since)


def _unknown(host: Host) -> HostNow:
    because = "the controller does not know it; it will with: labctl apply --only controller"
    return HostNow(host.name, Mode.UNKNOWN, 0.0, because, host.boot_s, refused=because)


def _refused(host: Host, row: KnownHost, paused: str) -> str:
    if row.quarantined:
        return f"it is quarantined: {row.quarantined}"
    if row.paused:
        return f"it is paused: {row.paused}"
    if paused:
        return f"the rack is paused: {paused}"
    return _without_row(host)


def _without_row(host: Host) -> str:
    return "" if host.wakeable else "nothing wakes it"
