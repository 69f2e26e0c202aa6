"""Decide whether a host is unused, and say what keeps it awake.

The rule, in one breath: a host may sleep when every signal has been quiet for its quiet time without a gap,
nothing claims it, nobody depends on it, and it has shown that it comes back. What cannot be read counts as
use, so a broken sensor costs electricity, never someone's work.

``fold`` keeps the time since when a host has been quiet. It begins anew with everything that makes a hole in
the chain of evidence: a busy or unreadable signal, a signal that used to be reported and is not any more, a
line that came late, a new watch, a boot or a sleep of the host, a jump of our clock.

Anti-flap: a host that woke three times or more within an hour is wanted more often than its quiet time
assumes. With the third wake in an hour its quiet time doubles, with the fourth it doubles again, up to eight
times. Whoever orders a host to sleep does not wait for any of that; but when the host refused, or was needed,
the same order tries again only after a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from labctl.domain.sleep import evidence, proofs, wanting, windows
from labctl.domain.sleep.evidence import GAP_TICKS
from labctl.domain.sleep.lifecycle import Mode, Verdict
from labctl.domain.sleep.sight import Sight, sight_of
from labctl.domain.sleep.terms import (
    HostPolicy,
    How,
    Known,
    KnownHost,
    Moment,
    Policy,
    Report,
    Seen,
    SeenHost,
    Wish,
)
from labctl.domain.sleep.wording import counted, lasting

FLAPS = 3
"""So many wakes within ``FLAP_S`` make the quiet time longer."""

FLAP_S = 3600.0
LONGEST = 8
"""The quiet time never becomes longer than so many times what the inventory says."""

AGAIN_S = 60.0
"""How long an order to sleep that came to nothing waits before it is tried again."""

NO_WAY_BACK = frozenset({"wake", "proof", "wol"})
"""Kinds of reasons that say that a host might not come back: it may free its cards nevertheless."""


@dataclass(frozen=True, slots=True)
class Against:
    """One thing that keeps a host awake, as a clause.

    ``kind`` is a stable name, ``for_s`` how much longer it surely lasts where that is known.
    """

    kind: str
    because: str
    for_s: float | None = None


# --- since when it has been quiet --------------------------------------------------------------------------


def fold(before: SeenHost | None, fresh: SeenHost, now: Moment, *, tick_s: float) -> SeenHost:
    """Return ``fresh`` with what has been true for a while: quiet since, dark since, caps, unloaded.

    Call it for each line of a report and for each tick; the same line twice is harmless.

    Args:
        before: what this returned last for the host; None at first.
        fresh: what was just observed; it needs none of the four.
        now: the moment of the call.
        tick_s: how often lines come.
    """
    gap_s = GAP_TICKS * tick_s
    quiet = _quiet_since(before, fresh, now, gap_s)
    still = before is not None and quiet is not None and before.quiet_since == quiet
    # Made whole: ``replace`` takes twice as long, and this runs for each line and look of each host.
    return SeenHost(
        name=fresh.name,
        at=fresh.at,
        talking=fresh.talking,
        report=fresh.report,
        silent_because=fresh.silent_because,
        signs=fresh.signs,
        quiet_since=quiet,
        old_agent=fresh.old_agent,
        dark_since=_dark_since(before, fresh, now, gap_s) if fresh.signs else None,
        caps_w=fresh.caps_w or (before.caps_w if before is not None and _same_wake(before, fresh) else {}),
        unloaded=fresh.unloaded or (before is not None and still and before.unloaded),
        watched=fresh.watched,
    )


def _quiet_since(before: SeenHost | None, fresh: SeenHost, now: Moment, gap_s: float) -> float | None:
    report = fresh.report
    if report is None or not fresh.talking or fresh.old_agent or now.jumped:
        return None
    if not report.readings or any(reading.busy is not False for reading in report.readings):
        return None
    if abs(now.mono - report.at) > gap_s:
        return None
    last = before.report if before is not None else None
    if before is None or last is None or before.quiet_since is None or _broken(last, report, gap_s):
        return report.at
    return before.quiet_since


def _broken(last: Report, report: Report, gap_s: float) -> bool:
    """Return whether something may have happened between two lines that nobody saw."""
    return (
        not 0 <= report.at - last.at <= gap_s
        or report.watch != last.watch
        or (report.boot_id, report.resumes) != (last.boot_id, last.resumes)
        or report.up_s < last.up_s
        or not {reading.signal for reading in last.readings} <= {one.signal for one in report.readings}
    )


def _dark_since(before: SeenHost | None, fresh: SeenHost, now: Moment, gap_s: float) -> float | None:
    if not evidence.looks_dark(fresh):
        return None
    if before is None or before.dark_since is None or not 0 <= fresh.at - before.at <= gap_s:
        return now.mono
    return before.dark_since


def _same_wake(before: SeenHost, fresh: SeenHost) -> bool:
    """Return whether a host surely is as it was when its caps were read: it talks, and did not sleep."""
    last, report = before.report, fresh.report
    if not (before.talking and fresh.talking) or last is None or report is None:
        return False
    return (report.boot_id, report.resumes) == (last.boot_id, last.resumes) and report.up_s >= last.up_s


# --- what keeps it awake -----------------------------------------------------------------------------------


def against(
    policy: Policy, known: Known, seen: Seen, now: Moment, host: str, *, wish: Wish | None = None
) -> tuple[Against, ...]:
    """Return every single thing that keeps a host awake, the strongest first.

    With a ``wish`` that it sleep, times, windows and proof do not count, and with one by force neither do
    readings; claims and whoever depends on it always do.
    """
    return reasons(sight_of(policy, known, seen, now), host, wish=wish)


def judge(
    policy: Policy, known: Known, seen: Seen, now: Moment, host: str, *, wish: Wish | None = None
) -> Verdict:
    """Return whether a host may be put to sleep now; the reason is the strongest against it, or for it."""
    return verdict(sight_of(policy, known, seen, now), host, wish=wish)


def reasons(sight: Sight, host: str, *, wish: Wish | None = None) -> tuple[Against, ...]:
    """Return what ``against`` does, where a sight is there already."""
    policy, now = sight.policy.hosts[host], sight.now
    row, look = sight.row(host), sight.look(host)
    if row is None:
        return (Against("store", f"the store has no row of {host}"),)
    found = [*_maintenance(sight.known, row), *_means(policy, row, wish), *_claims(row, now)]
    under = wanting.dependants(sight.policy, sight.known, sight.wants, host)
    found += [Against("dependant", text) for text in under]
    found += _talk(host, look, now)
    if look is not None:
        found += _readings(look, wish)
        found += _coming_back(policy, row, look, wish)
    found += _times(sight.policy, row, now, wish)
    if look is not None and (wish is None or not wish.force):
        found += _quiet(policy, row, look, now, wish)
    return tuple(found)


def verdict(sight: Sight, host: str, *, wish: Wish | None = None) -> Verdict:
    """Return what ``judge`` does, where a sight is there already."""
    found = reasons(sight, host, wish=wish)
    if found:
        return Verdict(False, found[0].because)
    if wish is not None:
        return Verdict(True, wanting.wish_text(wish, host))
    return Verdict(True, quiet_text(sight, host))


def quiet_text(sight: Sight, host: str) -> str:
    """Return how long a host has been quiet, and how long it has to be, as a sentence."""
    row, look = sight.row(host), sight.look(host)
    if row is None or look is None or look.quiet_since is None:
        return f"{host} has been quiet for 0 s"
    wanted, _ = quiet_s(sight.policy.hosts[host], row, sight.now)
    quiet = lasting(sight.now.mono - look.quiet_since)
    return f"{host} has been quiet for {quiet}, and sleeps after {lasting(wanted)}"


def quiet_s(policy: HostPolicy, known: KnownHost, now: Moment) -> tuple[float, str]:
    """Return how long a host has to be quiet, in seconds, and why that is longer than usual (or nothing)."""
    woke = sum(1 for at in known.woke_at if now.wall - FLAP_S < at <= now.wall)
    if woke < FLAPS:
        return policy.quiet_s, ""
    times = min(2 ** (woke - FLAPS + 1), LONGEST)
    why = f"{times} times as long as usual, since {policy.name} woke {woke} times within an hour"
    return policy.quiet_s * times, why


def _maintenance(known: Known, row: KnownHost) -> Iterator[Against]:
    if known.paused:
        yield Against(
            "paused", f"the whole rack of {counted(len(known.hosts), 'host')} is paused: {known.paused}"
        )
    if row.paused or (row.claims.paused and not known.paused):
        yield Against("paused", f"{row.name} is paused: {row.paused or 'it is not said why'}")
    if row.quarantined:
        yield Against("quarantined", f"{row.name} is quarantined: {row.quarantined}")


def _means(policy: HostPolicy, row: KnownHost, wish: Wish | None) -> Iterator[Against]:
    if not policy.sleeps and wish is None:
        yield Against("policy", f"the rack file does not let {policy.name} sleep")
    if not policy.wakeable and policy.how is not How.UNLOAD:
        yield Against("wake", f"nothing can wake {policy.name} again")


def _claims(row: KnownHost, now: Moment) -> Iterator[Against]:
    claims = row.claims
    if claims.leases:
        does = "is" if claims.leases == 1 else "are"
        yield Against("leases", f"{counted(claims.leases, 'lease')} {does} on {row.name}")
    holds = [hold for hold in row.holds if hold.until > now.wall]
    for hold in holds:
        left = hold.until - now.wall
        text = f"{hold.by} holds {row.name} awake for {lasting(left)} more: {hold.why}"
        yield Against("hold", text, left)
    if claims.holds and not holds:
        yield Against("hold", f"{counted(claims.holds, 'hold')} on {row.name}")
    wishes = wanting.awake_wishes(row, now.wall)
    for one in wishes:
        yield Against("wish", wanting.wish_text(one, row.name), one.until - now.wall)
    if claims.wishes and not wishes:
        yield Against("wish", f"{counted(claims.wishes, 'wish')} that {row.name} be awake")


def _talk(host: str, look: SeenHost | None, now: Moment) -> Iterator[Against]:
    if look is None:
        yield Against("stale", f"nothing was seen of {host} within the last tick")
    elif look.old_agent:
        yield Against("agent", f"the agent of {host} is too old to tell whether it is used")
    elif not look.talking or look.report is None:
        why = f": {look.silent_because}" if look.silent_because else ""
        yield Against("silent", f"{host} does not report{why}")
    if now.jumped:
        yield Against("clock", f"the clock jumped, so {host} has to be quiet anew")


def _readings(look: SeenHost, wish: Wish | None) -> Iterator[Against]:
    if look.report is None or not look.talking or (wish is not None and wish.force):
        return
    if not look.report.readings:
        yield Against("unreadable", f"{look.name} reports no signals at all")
    for reading in look.report.readings:
        if reading.busy:
            yield Against("busy", f"{reading.signal} of {look.name}: {reading.because or 'busy'}")
    for reading in look.report.readings:
        if reading.busy is None:
            why = reading.because or "it does not say why"
            text = f"{reading.signal} of {look.name} cannot be read, which counts as use: {why}"
            yield Against("unreadable", text)


def _coming_back(policy: HostPolicy, row: KnownHost, look: SeenHost, wish: Wish | None) -> Iterator[Against]:
    if policy.how is How.UNLOAD or look.report is None or not look.talking:
        return
    if look.report.wol_armed is False:
        yield Against("wol", f"the network card of {policy.name} is not armed to wake it")
    if wish is not None:
        return
    report = look.report
    proof = proofs.judge(policy.name, row.proof, report.fingerprint, policy.how, offers=report.mem_sleeps)
    if not proof:
        yield Against("proof", proof.because)


def _times(policy: Policy, row: KnownHost, now: Moment, wish: Wish | None) -> Iterator[Against]:
    host, passed = policy.hosts[row.name], now.sure_s(row.since)
    if wish is not None:
        # READY since after the wish was made: it refused, was needed, or only just came up.
        if row.mode is Mode.READY and row.since > wish.at and passed < AGAIN_S:
            left = AGAIN_S - passed
            yield Against("again", f"{row.name} is asked again in {lasting(left)}: {row.because}", left)
        return
    if row.mode is Mode.READY and passed < host.min_up_s:
        left = host.min_up_s - passed
        text = f"{row.name} has been ready for {lasting(passed)}, and stays up for {lasting(host.min_up_s)}"
        yield Against("min-up", text, left)
    span = windows.current(host.awake, policy.zone, now.wall)
    if span is not None:
        until = windows.local_text(span.end, policy.zone)
        yield Against("window", f"{row.name} is to be awake {span.text}, until {until}", span.end - now.wall)
    if host.only_in and windows.current(host.only_in, policy.zone, now.wall) is None:
        coming = windows.upcoming(host.only_in, policy.zone, now.wall)
        text = f"{row.name} may fall asleep by itself only {' and '.join(map(windows.text_of, host.only_in))}"
        yield Against("only-in", text, coming.start - now.wall if coming is not None else None)


def _quiet(
    policy: HostPolicy, row: KnownHost, look: SeenHost, now: Moment, wish: Wish | None
) -> Iterator[Against]:
    if not look.talking or look.report is None:
        return
    if any(reading.busy is not False for reading in look.report.readings) or not look.report.readings:
        return  # said already
    if look.quiet_since is None:
        yield Against("quiet", f"{row.name} is quiet for 0 s, in its first line")
        return
    wanted, why = quiet_s(policy, row, now)
    quiet = now.mono - look.quiet_since
    if wish is None and quiet < wanted:
        longer = f" ({why})" if why else ""
        text = f"{row.name} has been quiet for {lasting(quiet)}, and sleeps after {lasting(wanted)}{longer}"
        yield Against("quiet", text, wanted - quiet)
