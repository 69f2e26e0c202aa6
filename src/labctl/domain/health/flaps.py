"""What is news: from the results of each look to what people are told, without noise.

Every thing that is judged (``Result.key``) has a ``Standing``, which each look moves:

- What a look says is *seen*; it is *believed* when ``looks`` looks in a row say that it is worse (or better)
  than what was believed. So one bad look tells nobody anything.
- What is newly believed is told: it began, got worse, got better, or is over. Once, not at every look.
- What is still wrong after ``remind_s`` is told again.
- What changes back and forth (``FLIPS`` times in ``FLIPPING_S``) is told once as flapping, believed or not;
  then nothing more, until it has kept still for ``CALM_S``: that is told, with what became of it.
- UNKNOWN after something bad does not take it back: what cannot be read has not been mended.
- A thing that is not judged any more counts as over where its host answered. Where the host did not, or
  sleeps, nothing is known: its standings wait as they are, without a reminder. So sleep never tells anything.
  Likewise where its check could read nothing of that host (UNKNOWN without a subject), or withheld judgement
  (``judging.withheld``: a card that hangs, a link that idles).
- A thing of a host that is no longer in the rack is forgotten.

Times are wall times in seconds. A clock that went back makes nothing older than now, so it can only delay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from .terms import Level, Result

FLIPS = 6
FLIPPING_S = 2 * 3600.0
CALM_S = 3600.0
Key = tuple[str, str, str]


class Kind(StrEnum):
    """What kind of news something is."""

    BEGAN = "began"
    WORSE = "worse"
    BETTER = "better"
    OVER = "over"
    STILL = "still"
    FLAPPING = "flapping"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Policy:
    """How many looks it takes to believe, and after how many seconds people are reminded."""

    looks: int = 2
    remind_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Scope:
    """Which hosts the rack has, which of them answered this time, and what of them could not be judged."""

    hosts: frozenset[str]
    answered: frozenset[str]
    withheld: frozenset[Key] = frozenset()

    def waits(self, key: Key, unread: Collection[tuple[str, str]]) -> bool:
        """Return whether nothing can be known of a thing; ``unread`` are checks that could read nothing."""
        code, host, _ = key
        silent = bool(host) and host not in self.answered
        return silent or key in self.withheld or (code, host) in unread


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of one thing.

    Args:
        level: what is believed, since ``since``.
        seen: what the last look said, since ``seen_since``.
        doubts: how many looks in a row said better (below 0) or worse (above 0) than what is believed.
        told: the level that people know of, and ``told_at`` when they were told.
        flips: when what was seen changed.
        flapping: people know that it changes back and forth.
        reason: the words for what is believed.
        cure: what to do about it.
    """

    level: Level = Level.OK
    since: float = 0.0
    seen: Level = Level.OK
    seen_since: float = 0.0
    doubts: int = 0
    told: Level = Level.OK
    told_at: float = 0.0
    flips: tuple[float, ...] = ()
    flapping: bool = False
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """Something that people are told: of what, what it was that they knew, and since when it is so."""

    kind: Kind
    result: Result
    before: Level
    since: float
    at: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What is remembered from now on, and what is told."""

    standings: Mapping[Key, Standing]
    news: tuple[News, ...]


def decide(
    standings: Mapping[Key, Standing], results: Iterable[Result], scope: Scope, policy: Policy, now: float
) -> Decision:
    """Return what becomes of all standings by what one run found, and the news, in the order of keys."""
    found = {one.key: one for one in results}
    unread = {
        (code, host) for (code, host, of), one in found.items() if one.level is Level.UNKNOWN and not of
    }
    kept: dict[Key, Standing] = {}
    news: list[News] = []
    for key in sorted({*standings, *found}):
        result, standing = found.get(key), standings.get(key)
        if result is None:
            _, host, _ = key
            if host and host not in scope.hosts:
                continue
            if scope.waits(key, unread):
                kept[key] = standings[key]
                continue
            result = Result(*_gone(key), reason="it is no longer there")
        after, said = _step(standing or Standing(since=now, seen_since=now), result, policy, now)
        if said is not None:
            news.append(said)
        if key in found or after.level or after.flapping or after.told:
            kept[key] = after
    return Decision(kept, tuple(news))


def _gone(key: Key) -> tuple[str, Level, str, str]:
    code, host, subject = key
    return code, Level.OK, host, subject


def _step(was: Standing, result: Result, policy: Policy, now: float) -> tuple[Standing, News | None]:
    """Return what becomes of one standing, and what is told of it."""
    now_is = _believed(_seen(was, result, now), result, policy, now)
    kind = _kind(now_is, policy, now)
    if kind is None:
        return now_is, None
    shown = replace(result, level=now_is.level, reason=now_is.reason or result.reason, cure=now_is.cure)
    news = News(kind, shown, was.told, was.since if kind is Kind.OVER else now_is.since, now)
    flapping = kind is Kind.FLAPPING or (now_is.flapping and kind is not Kind.SETTLED)
    flips = () if kind is Kind.SETTLED else now_is.flips
    return replace(now_is, told=now_is.level, told_at=now, flapping=flapping, flips=flips), news


def _seen(was: Standing, result: Result, now: float) -> Standing:
    """Return the standing after a look, whatever is believed."""
    level = was.level if result.level is Level.UNKNOWN and was.level.gravity > 1 else result.level
    recent = tuple(at for at in was.flips if now - at < FLIPPING_S)
    if level == was.seen:
        return replace(was, flips=recent)
    return replace(was, seen=level, seen_since=now, flips=(*recent, now)[-FLIPS:])


def _believed(was: Standing, result: Result, policy: Policy, now: float) -> Standing:
    """Return the standing with what is believed after a look."""
    way = was.seen.gravity - was.level.gravity
    if way == 0:
        if result.level is not was.level or not was.level:
            return replace(was, doubts=0)
        return replace(was, doubts=0, reason=result.reason, cure=result.cure)
    doubts = (
        was.doubts + 1 if way > 0 and was.doubts > 0 else was.doubts - 1 if way < 0 and was.doubts < 0 else 0
    )
    doubts = doubts or (1 if way > 0 else -1)
    if abs(doubts) < policy.looks:
        return replace(was, doubts=doubts)
    words = (result.reason, result.cure) if was.seen else ("", "")
    since = min(was.seen_since, now)
    return replace(was, level=was.seen, since=since, doubts=0, reason=words[0], cure=words[1])


def _kind(now_is: Standing, policy: Policy, now: float) -> Kind | None:
    """Return what kind of news a standing is, or None."""
    if now_is.flapping:
        if now - max(now_is.flips, default=0.0) >= CALM_S and not now_is.doubts:
            return Kind.SETTLED
        return Kind.STILL if now - now_is.told_at >= policy.remind_s else None
    if len(now_is.flips) >= FLIPS:
        return Kind.FLAPPING
    if now_is.level is now_is.told:
        reminds = bool(now_is.level) and now - now_is.told_at >= policy.remind_s
        return Kind.STILL if reminds else None
    if not now_is.level:
        return Kind.OVER
    if not now_is.told:
        return Kind.BEGAN
    return Kind.WORSE if now_is.level.gravity > now_is.told.gravity else Kind.BETTER
