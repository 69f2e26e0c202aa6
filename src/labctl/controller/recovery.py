"""What a controller that ended left behind: effects of which nobody knows whether they were carried out.

Nothing is guessed and nothing is repeated. An unfinished intent stays open until its host has been seen by
this process; then it is closed with what was seen, and the tick, which decides from what is known and seen
alone, goes on from there. One thing is done besides: a host whose power was being cut is wished awake, since
the cut may have happened and nobody would give the power back.
"""

from __future__ import annotations

from labctl.controller.acts.mend import COLD
from labctl.controller.means import Means
from labctl.domain.sleep.terms import Known, Moment, Seen, SeenHost, Sign, Wish
from labctl.ports.store import Intent

AWAKE_S = 900.0
BY = "controller"


class Recovery:
    """The intents that an earlier controller, or an earlier term of this one, left open."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._left: list[Intent] = []
        self._since = float("-inf")

    def begin(self, now: Moment) -> None:
        """Read what is open at the begin of a term.

        Raises:
            StoreError: the store cannot be used.
        """
        ours = self._means.ledger.ours()
        self._left = [intent for intent in self._means.doors.store.unfinished() if intent.id not in ours]
        self._since = now.mono
        for intent in self._left:
            if intent.action == COLD and intent.host in self._means.policy.hosts:
                self._give_power_back(intent.host, now)

    def resolve(self, known: Known, seen: Seen, now: Moment) -> None:
        """Close what can be closed by what was seen since the term began.

        Raises:
            StoreError: the store cannot be used; the rest stays open.
        """
        store = self._means.doors.store
        while self._left:
            open_ones = [intent for intent in self._left if self._judged(intent, seen) is not None]
            if not open_ones:
                return
            intent = open_ones[0]
            mode = known.hosts[intent.host].mode if intent.host in known.hosts else "gone"
            outcome = f"unknown, its controller ended; the host is {mode}, and {self._judged(intent, seen)}"
            store.outcome(intent.id, outcome, now=now.wall)
            store.happen(intent.host, "recovery", f"{intent.action}: {outcome}", now=now.wall)
            self._left.remove(intent)

    def _judged(self, intent: Intent, seen: Seen) -> str | None:
        """Return what was seen of its host since the term began; None: nothing yet."""
        host = seen.hosts.get(intent.host)
        if host is None:
            return "nobody watches it any more"
        return _seen(host) if host.at >= self._since else None

    def _give_power_back(self, host: str, now: Moment) -> None:
        why = "its power was being cut when the controller ended"
        wish = Wish(0, host, BY, why, now.wall, now.wall + AWAKE_S)
        self._means.doors.store.wish(wish, now=now.wall)


def _seen(host: SeenHost) -> str:
    if host.talking:
        return "talks"
    dark = [name for name, sign in host.signs.items() if sign is Sign.DARK]
    return f"looks dark ({', '.join(sorted(dark))})" if dark else "does not talk"
