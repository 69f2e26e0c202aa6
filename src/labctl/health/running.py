"""A run of ``labctl health --cron``: look, decide what is news, note it, tell it, and say that this ran.

The order is what makes it safe to be killed at any moment:

1. Look. Nothing has changed yet.
2. Decide (``domain.health.flaps``), and seal a letter for each courier that has something to bring.
3. Note all of it with one rename. Killed before: the next run finds the same news. Killed after: the next run
   finds the sealed letters, and knows that they may have arrived.
4. Leave the results for those who show them.
5. Send, and note after each letter that it arrived.
6. Ping: only now was this a whole run. Not when nothing could be noted, and not when for an hour no courier
   could be reached: then silence is what tells.

Where the disk is full the note goes to a second place, in memory. Where neither can be written, news are
believed at the first look, since nothing can be counted, and told in each run; a person has to come.
Whatever could not be noted makes the exit status UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from labctl.domain.health import flaps
from labctl.domain.health.flaps import Decision, Policy, Scope
from labctl.domain.health.outbox import Box
from labctl.domain.health.results import Finding, Findings, worst
from labctl.domain.health.terms import Level, Result
from labctl.domain.health.wording import line_of
from labctl.health import memory, sending
from labctl.health.looking import Looked, Memory
from labctl.health.memory import Kept, State
from labctl.health.sending import Sending, Way
from labctl.ports.letters import CourierError, Ping

STUCK_S = 3600.0
_FAILS = 3


@dataclass(frozen=True, slots=True)
class Cron:
    """What a run acts through.

    Args:
        rack: its name, for titles.
        policy: when something is believed, and told again.
        state: what people were told.
        looks: what helps judging.
        publish: leaves the findings for others, and raises ``OSError`` where it cannot.
        ways: couriers by name.
        ping: the dead man's switch, and whether it hears of CRIT.
        wall: tells the time.
        say: prints a line of news.
        warn: prints what is wrong with this run itself.
    """

    rack: str
    policy: Policy
    state: Kept
    looks: Kept
    publish: Callable[[Findings], None]
    ways: Mapping[str, Way]
    ping: tuple[Ping, bool] | None
    wall: Callable[[], float]
    say: Callable[[str], None]
    warn: Callable[[str], None]


class _Notes:
    """Writes the state down, and remembers whether that ever failed."""

    def __init__(self, cron: Cron) -> None:
        self._cron = cron
        self.failed = False
        self.lost = False

    def save(self, state: State) -> None:
        try:
            why = self._cron.state.save(memory.shown(state))
        except OSError as error:
            self._say(f"what was told cannot be noted anywhere: {error.strerror}; it will be told again")
            self.failed = self.lost = True
            return
        if why:
            self._say(f"what was told cannot be noted where it belongs: {why}; it is kept in memory")
            self.failed = True

    def _say(self, words: str) -> None:
        if not self.failed:
            self._cron.warn(words)


def run(cron: Cron, look: Callable[[Memory], Looked]) -> Level:
    """Do one whole run and return its level; whoever calls holds the lock.

    Raises:
        OSError: what earlier runs left cannot be read.
    """
    before = memory.state_of(cron.state)
    looked = look(memory.looks_of(cron.looks))
    results = (*looked.results, *own_results(cron, before.boxes, looked.at))
    scope = Scope(frozenset(looked.hosts), looked.answered, looked.withheld)
    notes = _Notes(cron)
    decision = flaps.decide(before.standings, results, scope, cron.policy, looked.at)
    state = _after(cron, before, decision, looked.at)
    said = [line_of(news).text for news in decision.news]
    for words in said:  # before it is noted: cron may be the only one that tells, and would not say it again
        cron.say(words)
    notes.save(state)
    if notes.lost:
        at_once = replace(cron.policy, looks=1)
        decision = flaps.decide(before.standings, results, scope, at_once, looked.at)
        state = _after(cron, before, decision, looked.at)
        for words in (line_of(news).text for news in decision.news):
            if words not in said:
                cron.say(words)
    notes.failed |= not _published(cron, results, decision, looked.at)
    boxes = _sent(cron, before, state, notes)
    _remember(cron, looked.memory)
    level = worst(results)
    _ping(cron, boxes, level, lost=notes.lost)
    return Level.UNKNOWN if notes.failed else level


def _after(cron: Cron, before: State, decision: Decision, now: float) -> State:
    boxes = sending.filled(before.boxes, cron.ways, decision.news)
    return State(decision.standings, sending.sealed(boxes, now))


def own_results(cron: Cron, boxes: Mapping[str, Box], now: float) -> Iterable[Result]:
    """Yield how telling itself goes, as results like any other: other ways tell of one that fails."""
    for name in cron.ways:
        box = boxes.get(name, Box())
        if box.tries >= _FAILS:
            minutes = (now - box.failing_since) / 60
            reason = f"nothing has arrived for {minutes:.0f} min: {box.why}"
            yield Result("notify", Level.WARN, "", name, reason, "labctl health --test-notify")
        else:
            yield Result("notify", Level.OK, "", name, "letters arrive")
    if cron.state.broken:
        reason = f"what was told before could not be read; it lies in {cron.state.broken}"
        yield Result("health-state", Level.WARN, "", "", reason, "look at it, then remove it")


def findings_of(
    results: Iterable[Result], standings: Mapping[flaps.Key, flaps.Standing], at: float
) -> Findings:
    """Return results with the time since which each says what it says."""
    found = []
    for one in results:
        standing = standings.get(one.key)
        same = standing is not None and standing.seen is one.level
        found.append(Finding(one, standing.seen_since if same and standing is not None else at))
    return Findings(at, tuple(found))


def _published(cron: Cron, results: Iterable[Result], decision: Decision, at: float) -> bool:
    try:
        cron.publish(findings_of(results, decision.standings, at))
    except OSError as error:
        cron.warn(f"the results cannot be written: {error.filename or ''}: {error.strerror}")
        return False
    return True


def _sent(cron: Cron, before: State, state: State, notes: _Notes) -> Mapping[str, Box]:
    doubtful = frozenset(box.sealed.id for box in before.boxes.values() if box.sealed is not None)

    def save(boxes: Mapping[str, Box]) -> None:
        notes.save(State(state.standings, boxes))

    tools = Sending(cron.rack, cron.wall, save, cron.warn)
    return sending.deliver(state.boxes, cron.ways, doubtful, tools)


def _remember(cron: Cron, looks: Memory) -> None:
    try:
        cron.looks.save(memory.looks_shown(looks))
    except OSError as error:
        cron.warn(f"what helps judging cannot be kept: {error.strerror}")


def _ping(cron: Cron, boxes: Mapping[str, Box], level: Level, *, lost: bool) -> None:
    if cron.ping is None or lost:
        return
    stuck = [box.failing_since and cron.wall() - box.failing_since >= STUCK_S for box in boxes.values()]
    if stuck and all(stuck):
        cron.warn("no courier has delivered for an hour, so the ping is left out: its silence tells")
        return
    ping, hears = cron.ping
    try:
        ping.alive(failed=hears and level is Level.CRIT, text=f"{cron.rack}: {level.name}")
    except CourierError as error:
        cron.warn(f"ping: {error.reason}")
