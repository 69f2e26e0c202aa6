"""All that one decision rests on, in one value, so that it is worked out once for the whole rack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labctl.domain.sleep import evidence, wanting
from labctl.domain.sleep.terms import Known, KnownHost, Moment, Policy, Seen, SeenHost


@dataclass(frozen=True, slots=True)
class Sight:
    """What is wanted, known and seen now; ``wants`` names the hosts that are wanted awake, and why."""

    policy: Policy
    known: Known
    seen: Seen
    now: Moment
    wants: Mapping[str, wanting.Want]

    def row(self, host: str) -> KnownHost | None:
        """Return the store's row of a host."""
        return self.known.hosts.get(host)

    def look(self, host: str) -> SeenHost | None:
        """Return what was seen of a host within the last tick."""
        return evidence.look_at(self.policy, self.seen, self.now, host)


def sight_of(policy: Policy, known: Known, seen: Seen, now: Moment) -> Sight:
    """Return all that a decision rests on."""
    return Sight(policy, known, seen, now, wanting.wants(policy, known, now))
