"""Plan a wake: when to send packets, and when to give up.

The first round goes out at once. Packets get lost, and a card that is just going to sleep hears none, so the
next rounds follow quickly and then ever slower, until the host has had the time that it may need twice over.
All times are counted from the round before, by seconds that are sure to have passed: a jump of the clock
costs one round more, and never a wake. Gaps differ a little from host to host and from round to round, so
that many wakes do not beat in time; the same wake always gets the same gaps.

A host that came up quickly ten times may boot cold the next time (its power was cut while it slept), so what
was learnt makes us wait longer, never shorter, than ``boot_s``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from labctl.domain.sleep.terms import HostPolicy, KnownHost, Moment
from labctl.domain.sleep.wording import lasting

FIRST_GAP_S = 1.0
GROWTH = 1.6
LONGEST_GAP_S = 20.0
JITTER = 0.15
"""By which part a gap may be longer or shorter."""

MARGIN = 1.5
"""So many times the slowest wakes that were seen is what a wake may take."""

SHARE = 0.95
"""The share of wakes that count as usual; the rest are outliers."""

COLD_TIMES = 3.0
"""A wake that takes so many times the usual is probably a cold boot."""


@dataclass(frozen=True, slots=True)
class Due:
    """What to do about a wake now: send round ``round``, give up, or nothing for ``for_s`` seconds."""

    do: Literal["send", "wait", "give-up"]
    round: int
    for_s: float
    because: str


def usual_s(known: KnownHost) -> float | None:
    """Return how long a wake of the host usually takes in seconds: the median of the last; None: no idea."""
    times = sorted(known.came_up_s) or ([known.proof.ready_s] if known.proof is not None else [])
    return times[(len(times) - 1) // 2] if times else None


def time_s(policy: HostPolicy, known: KnownHost) -> float:
    """Return how long a wake may take in seconds, from the packet that was heard to READY."""
    slow = percentile(known.came_up_s, SHARE)
    proven = known.proof.ready_s if known.proof is not None else 0.0
    return max(policy.boot_s, MARGIN * max(slow or 0.0, proven))


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that ``share`` of all values do not exceed; None where there is none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def gaps(policy: HostPolicy, known: KnownHost) -> Iterator[float]:
    """Yield the seconds from each round to the next; after the last of them it has all of its time once more.

    They add up to what a wake may take, so that also the last round but one may be the first that is heard.
    """
    limit, seed = time_s(policy, known), _mixed(policy.name)
    passed, gap, number = 0.0, FIRST_GAP_S, 1
    while passed < limit:
        step = gap * (1 + JITTER * _dice(seed, number))
        yield step
        passed, gap, number = passed + step, min(gap * GROWTH, LONGEST_GAP_S), number + 1


def due(policy: HostPolicy, known: KnownHost, now: Moment) -> Due:
    """Return what to do now about a host that is WAKING.

    A host whose power was just cut and given again (``repair``) has all of its time once more.
    """
    attempt, name = known.attempt, policy.name
    if attempt is None or not attempt.sent:
        return Due("send", 1, 0.0, f"round 1 to {name}")
    since = now.sure_s(attempt.last)
    gap = next((gap for number, gap in enumerate(gaps(policy, known), 1) if number == attempt.sent), None)
    if gap is not None:
        left = gap - since
        ahead = attempt.last > now.wall  # the clock went back
        if left <= 0 or ahead:
            rounds = f"round {attempt.sent + 1} to {name}"
            return Due("send", attempt.sent + 1, 0.0, f"{rounds}: no answer for {lasting(since)}")
        return Due("wait", attempt.sent, left, _waiting(policy, known, now))
    cut = known.repair.at if known.repair.taken[-1:] == ("cold-cycle",) else attempt.last
    left = time_s(policy, known) - min(since, now.sure_s(cut))
    if left > 0:
        return Due("wait", attempt.sent, left, _waiting(policy, known, now))
    text = f"{name} did not come up after {attempt.sent} rounds, the last {lasting(since)} ago"
    if attempt.failed:
        text = f"{text}, which could not be sent: {attempt.failed}"
    return Due("give-up", attempt.sent, 0.0, text)


def _waiting(policy: HostPolicy, known: KnownHost, now: Moment) -> str:
    """Return what is to be said while a host wakes; it changes only when there is something new to say."""
    attempt, usual, most = known.attempt, usual_s(known), lasting(time_s(policy, known))
    if attempt is not None and attempt.failed:
        return f"the last round to {policy.name} could not be sent: {attempt.failed}"
    if usual is None:
        return f"{policy.name} is waking, which may take up to {most}"
    text = f"{policy.name} is waking, which usually takes {lasting(usual)}"
    if attempt is None or now.sure_s(attempt.began) <= COLD_TIMES * usual:
        return text
    return f"{text}: it is late, so this is probably a cold boot, which may take {most}"


def _mixed(name: str) -> int:
    mixed = 2166136261
    for letter in name.encode():
        mixed = (mixed ^ letter) * 16777619 & 0xFFFFFFFF
    return mixed


def _dice(seed: int, number: int) -> float:
    """Return a number from -1 to 1 that depends on nothing but its arguments."""
    mixed = (seed ^ number * 2654435761) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 2246822519 & 0xFFFFFFFF
    return (mixed ^ mixed >> 13) / 0x7FFFFFFF - 1
