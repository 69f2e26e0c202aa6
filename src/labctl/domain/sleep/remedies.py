"""Say for each thing that keeps a host awake what a person can do about it, if anything.

Nothing here weakens a rule: what protects a request or a person's word has an end or an owner, and that is
what is named. ``--force`` skips what a host's signals say and nothing else.
"""

from __future__ import annotations

import re

_NOW = "labctl suspend {host} --force --why ... skips what its signals say"
_REMEDIES = {
    "paused": "labctl resume {host} ends its pause, labctl resume the rack's",
    "quarantined": "labctl resume {host}, once it is mended",
    "policy": "idle=IdlePolicy(suspend=True) in the rack file lets it; labctl suspend {host} does it once",
    "wake": "say in the rack file how it is woken: wake=WakeOnLan(mac=...)",
    "leases": "they end with the requests; nothing skips them",
    "hold": "labctl release {host} ends holds; nothing skips them",
    "wish": "labctl release {host} --all takes it back",
    "dependant": "put that host to sleep first",
    "agent": "labctl apply --limit {host} brings its agent up to date",
    "silent": "labctl status {host} --ask says whether it answers",
    "busy": _NOW,
    "unreadable": f"labctl apply --limit {{host}} may mend it; {_NOW}",
    "wol": "labctl apply --limit {host} arms it",
    "proof": "labctl sleep-test {host} proves it",
    "min-up": "labctl suspend {host} does not wait for it",
    "quiet": "labctl suspend {host} does not wait for it",
    "window": "labctl suspend {host} does not heed it",
    "only-in": "labctl suspend {host} does not heed it",
}
_TO_SLEEP = re.compile("labctl (?:suspend|sleep-test)")


def remedy(kind: str, host: str, *, wakes: bool = True) -> str:
    """Return what changes something of that kind (``idle.Against.kind``); empty: only time does.

    ``wakes``: something can wake the host; one that would not come back is not to be put to sleep.
    """
    words = _REMEDIES.get(kind, "")
    return "" if not wakes and _TO_SLEEP.search(words) else words.format(host=host)
