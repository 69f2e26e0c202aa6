"""What was seen of a host, as far as it proves anything.

- A host is *silent* when its channel has no fresh line; that proves nothing.
- It is *lost* when it has been silent for 2.5 ticks, or is dark. Then nobody may rely on it.
- It is *dark* when two independent signs or more said so in two ticks, and none said that it is on.
- It *came back* when it says itself that it booted or slept since it was last READY; from an order, only when
  that was after it.
- An order is *dead* when the host says so, or when it speaks so long after the order that by its own clock
  the order cannot be alive any more.
"""

from __future__ import annotations

from labctl.domain.sleep.terms import How, KnownHost, Moment, Order, Policy, Said, Seen, SeenHost, Sign
from labctl.domain.sleep.wording import lasting, listed

GAP_TICKS = 2.5
"""A line that comes later than this many ticks after the one before it makes a gap."""

DARK_SIGNS = 2
"""So many independent signs must say that a host is off; and none may say that it is on."""

APART = 0.8
"""Looks that lie so much of a tick apart are from two ticks."""

MARGIN_S = 30.0
"""How much longer than it lasts an order counts as alive: for the way of a line and the drift of clocks."""

UP_MARGIN_S = 5.0
"""By how much the clocks of a host and of this machine may differ in how long ago an order was."""

SPEECHLESS_S = 300.0
"""How much longer we wait for a sign of a host that got an order, before it counts as failed."""

LASTS_S = 120.0
"""How long an order lasts of which the store has nothing but the mode."""


def look_at(policy: Policy, seen: Seen, now: Moment, host: str) -> SeenHost | None:
    """Return what was seen of a host within the last tick; None when that is nothing."""
    found = seen.hosts.get(host)
    return found if found is not None and abs(now.mono - found.at) <= policy.tick_s else None


def dark_signs(seen: SeenHost) -> tuple[str, ...]:
    """Return the names of the signs that say that a host is off; none when any says that it is on."""
    if seen.talking or seen.old_agent or Sign.ON in seen.signs.values():
        return ()
    return tuple(sorted(name for name, sign in seen.signs.items() if sign is Sign.DARK))


def looks_dark(seen: SeenHost) -> bool:
    """Return whether enough signs say that a host is off, and none that it is on."""
    if seen.talking or seen.old_agent:
        return False
    signs = list(seen.signs.values())
    return signs.count(Sign.DARK) >= DARK_SIGNS and Sign.ON not in signs


def dark_because(seen: SeenHost, now: Moment, tick_s: float) -> str:
    """Return which signs say that a host is dark, and for how long; empty when it is not known to be."""
    signs = dark_signs(seen)
    if len(signs) < DARK_SIGNS or seen.dark_since is None or now.mono - seen.dark_since < APART * tick_s:
        return ""
    return f"{listed(signs)} say that {seen.name} is off, for {lasting(now.mono - seen.dark_since)}"


def off_because(seen: SeenHost, now: Moment, tick_s: float, *, has_meter: bool) -> str:
    """Return that no power flows into a host, as a sentence; empty when no meter says so."""
    if not has_meter or seen.signs.get("power") is not Sign.DARK:
        return ""
    return dark_because(seen, now, tick_s)


def lost_because(seen: SeenHost, now: Moment, tick_s: float) -> str:
    """Return why a host cannot be relied on any more; empty when it can, or it is too early to say."""
    if seen.talking or seen.old_agent:
        return ""
    if dark := dark_because(seen, now, tick_s):
        return dark
    silent_s = silence_s(seen, now)
    if silent_s < GAP_TICKS * tick_s:
        return ""
    why = f": {seen.silent_because}" if seen.silent_because else ""
    return f"{seen.name} has said nothing for {lasting(silent_s)}{why}"


def silence_s(seen: SeenHost, now: Moment) -> float:
    """Return for how many seconds at least a host has said nothing; 0 while it talks."""
    if seen.talking:
        return 0.0
    # One that said nothing yet has been silent for as long as somebody has listened.
    listened_s = min(now.steady_s, now.mono - seen.watched)
    return now.mono - seen.report.at if seen.report is not None else listened_s


def came_back(known: KnownHost, seen: SeenHost) -> str:
    """Return how a host says that it slept or booted since it was last READY; empty when it did not."""
    report = seen.report
    if not seen.talking or report is None or not known.boot_id:
        return ""
    if report.boot_id != known.boot_id:
        return f"{seen.name} booted {lasting(report.up_s)} ago"
    if report.resumes != known.resumes:
        return f"{seen.name} woke up {lasting(report.up_s)} ago"
    return ""


def up_since_before(order: Order, seen: SeenHost, now: Moment) -> bool:
    """Return whether a host says that it has been up since before its order: that may still be obeyed.

    Whatever it slept or booted then, it did before, and only the order's own end opens admission.
    """
    report = seen.report
    if report is None or not seen.talking:
        return False
    made = max(0.0, now.wall - order.at) - max(0.0, now.mono - report.at)
    return report.up_s > made + UP_MARGIN_S


def word_against(order: Order, seen: SeenHost) -> str:
    """Return how a host says itself that it does not obey this order; empty when it does not say so."""
    word = seen.report.order if seen.talking and seen.report is not None else None
    if word is None or word.nonce != order.nonce or word.said is Said.GOING:
        return ""
    does = "refused to sleep" if word.said is Said.REFUSED else "failed to sleep"
    return f"{seen.name} {does}: {word.because or 'it does not say why'}"


def order_of(known: KnownHost) -> Order:
    """Return the order that a host is SUSPENDING by; one that nobody can ever answer where there is none."""
    return known.order or Order("", How.SUSPEND, known.since, LASTS_S)


def dead_because(order: Order, seen: SeenHost, now: Moment) -> str:
    """Return that a host spoke after an order died by the host's own clock; empty when it did not.

    The order died ``lasts_s`` after it was made, and the line was made no later than it was heard.
    """
    report = seen.report
    if not seen.talking or report is None or now.jumped:
        return ""
    heard_s = now.sure_s(order.at) - max(0.0, now.mono - report.at)
    if heard_s <= order.lasts_s + MARGIN_S:
        return ""
    return f"{seen.name} still talks {lasting(heard_s)} after an order that lasts {lasting(order.lasts_s)}"


def speechless_because(order: Order, seen: SeenHost, now: Moment) -> str:
    """Return that nothing can be said of a host long after its order; empty when it is too early."""
    passed = now.sure_s(order.at)
    if seen.talking or now.jumped or passed <= order.lasts_s + MARGIN_S + SPEECHLESS_S:
        return ""
    signs = ", ".join(f"{name} {sign}" for name, sign in sorted(seen.signs.items())) or "no sign at all"
    return f"{seen.name} got an order {lasting(passed)} ago, and neither talks nor is seen dark ({signs})"
