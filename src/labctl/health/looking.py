"""One look at the rack: who sleeps is not asked, all others are asked once and at the same time.

The controller says first who sleeps. A host that it calls asleep, or on its way to sleep or from it (until
its gate has passed, its engines and caps may be missing), is not connected to. Where a host does not answer
it is asked once more: the host may have gone to sleep meanwhile. Without a word of the controller all are
asked, as without one: asking over SSH wakes nobody.
What each said is judged together with what is remembered of it: its document of the look before, for what
only a difference tells, and the last looks at its engines.

What is remembered is a help and no evidence: where it is lost, the next looks begin anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from labctl.domain.failures import Failure
from labctl.domain.health.evidence import Evidence
from labctl.domain.health.expected import Expected
from labctl.domain.health.terms import Case, EnginePast, Level, Result, Sleep
from labctl.domain.sleep.lifecycle import Mode

_AWAY = frozenset({Mode.ASLEEP, Mode.SUSPENDING, Mode.WAKING, Mode.VERIFYING})
_JOURNAL = "journalctl -u labctl-controller, on its host"
_STALE_S = 120.0
"""A controller that did not finish a tick for so long hangs; a tick takes at most some seconds."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the controller says; ``declared``: the rack has one, ``away``: why it says nothing.

    ``status`` is the last line of its verb ``status`` (docs/control-api.md), or empty.
    """

    declared: bool = False
    away: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)

    def sleep(self, host: str) -> Sleep | None:
        """Return what it says of a host; None: nothing that can be read."""
        listed = self.status.get("hosts")
        for row in listed if isinstance(listed, list) else ():
            if isinstance(row, Mapping) and row.get("host") == host:
                return _sleep(row)
        return None


def _sleep(row: Mapping[str, Any]) -> Sleep | None:
    try:
        mode = Mode(str(row.get("mode")))
    except ValueError:
        return None
    wishes = row.get("wishes")
    awake = (one for one in wishes if isinstance(one, Mapping)) if isinstance(wishes, list) else ()
    return Sleep(
        mode,
        _number(row.get("since")),
        _text(row.get("because")),
        proof=_text(row.get("proof")),
        wanted=any(one.get("wants") == "awake" for one in awake),
        quarantined=_text(row.get("quarantined")),
        waking_usual_s=_number(row.get("usual_s")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept from look to look: each host's last document, and the last looks at its engines."""

    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    engines: Mapping[str, tuple[EnginePast, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """How is judged: what is read of a document, what of a case, what of all, and what to keep of engines.

    ``withheld`` are the keys of what cannot be judged now in a case.
    """

    evidence: Callable[[Mapping[str, Any]], Evidence]
    judge: Callable[[Case], Sequence[Result]]
    judge_rack: Callable[[Sequence[Case], float], Sequence[Result]]
    remember: Callable[[tuple[EnginePast, ...], Evidence], tuple[EnginePast, ...]]
    withheld: Callable[[Case], frozenset[tuple[str, str, str]]] = lambda case: frozenset()


Ask = Callable[[Sequence[str]], Mapping[str, "Mapping[str, Any] | Failure"]]
"""Asks those hosts for their health documents, all at once and each within a deadline."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look found; ``hosts`` are those that it was about, ``answered`` those that said something."""

    at: float
    hosts: tuple[str, ...]
    answered: frozenset[str]
    results: tuple[Result, ...]
    memory: Memory
    withheld: frozenset[tuple[str, str, str]] = frozenset()


def look(
    wanted: Iterable[Expected],
    tell: Callable[[], Told],
    ask: Ask,
    rules: Rules,
    memory: Memory,
    wall: Callable[[], float],
) -> Looked:
    """Look at hosts once; ``tell`` asks the controller, ``wall`` tells the time."""
    expected = {one.host: one for one in wanted}
    told = tell()
    sleep = {host: told.sleep(host) for host in expected}
    asked = [host for host, one in sleep.items() if one is None or one.mode not in _AWAY]
    answers = ask(asked)
    now = wall()
    documents: dict[str, Mapping[str, Any]] = {}
    evidence: dict[str, Evidence] = {}
    silent: dict[str, str] = {}
    for host in asked:
        answer = answers.get(host)
        if isinstance(answer, Failure) or answer is None:
            silent[host] = "it was not asked in time" if answer is None else answer.reason
            continue
        documents[host], evidence[host] = answer, rules.evidence(answer)
    for host, later in _asleep_by_now(told, tell, silent).items():
        sleep[host] = later
        del silent[host]
    engines = _remembered(expected, evidence, rules, memory)
    cases = [
        Case(
            one,
            evidence.get(host),
            silent.get(host, ""),
            sleep[host],
            _earlier(memory.documents.get(host), rules),
            engines[host],
            now,
        )
        for host, one in expected.items()
    ]
    results = [
        *controller(told),
        *(result for case in cases for result in rules.judge(case)),
        *rules.judge_rack(cases, now),
    ]
    kept = {host: documents.get(host) or memory.documents[host] for host in expected
            if host in documents or host in memory.documents}  # fmt: skip
    withheld = frozenset(key for case in cases for key in rules.withheld(case))
    return Looked(now, tuple(expected), frozenset(evidence), tuple(results), Memory(kept, engines), withheld)


def _remembered(
    hosts: Iterable[str], evidence: Mapping[str, Evidence], rules: Rules, memory: Memory
) -> dict[str, tuple[EnginePast, ...]]:
    """Return the last looks at each host's engines, with this one where the host answered."""
    past = {host: memory.engines.get(host, ()) for host in hosts}
    return {
        host: rules.remember(looks, evidence[host]) if host in evidence else looks
        for host, looks in past.items()
    }


def _asleep_by_now(told: Told, tell: Callable[[], Told], silent: Collection[str]) -> dict[str, Sleep]:
    """Return those of hosts that did not answer which went to sleep while they were asked."""
    if not told.status or not silent:
        return {}
    again = tell()
    later = {host: again.sleep(host) for host in silent}
    return {host: one for host, one in later.items() if one is not None and one.mode in _AWAY}


def _earlier(document: Mapping[str, Any] | None, rules: Rules) -> Evidence | None:
    return None if document is None else rules.evidence(document)


def controller(told: Told) -> tuple[Result, ...]:
    """Return how the controller itself is; nothing where the rack has none.

    That it cannot be asked at all is CRIT by the check ``controller``; here stands why.
    """
    if not told.declared:
        return ()
    say, ticked, journal = partial(Result, "controller-works"), told.status.get("ticked_s"), _JOURNAL
    if told.away or not told.status:
        return (
            say(Level.UNKNOWN, "", "", told.away or "it said nothing", "systemctl status labctl-controller"),
        )
    if broken := _text(told.status.get("store")):
        return (say(Level.CRIT, "", "", f"its store cannot be used: {broken}", journal),)
    if isinstance(ticked, int | float) and ticked > _STALE_S:
        return (say(Level.CRIT, "", "", f"it has decided nothing for {ticked:.0f} s", journal),)
    paused = _text(told.status.get("paused"))
    reason = f"the rack is paused: {paused}" if paused else "it decides, and its store can be used"
    return (say(Level.OK, "", "", reason, informs=bool(paused)),)
