"""The rack as sleep and wake see it: the rack file's fields, each host on its own, in seconds and watts."""

from __future__ import annotations

from labctl.domain.sleep import terms
from labctl.inventory.rack import Rack


def policy_of(rack: Rack) -> terms.Policy:
    """Return what the rack file wants of every host's sleep; a host that nothing can wake never sleeps."""
    raise NotImplementedError
