"""One host, its store row, its requests and the controller, as small as they can be and still be real.

The table of modes, the guards of the store and the decisions of the controller are labctl's own: ``decide``
is called with rows and reports made up from a state. What is made up here is the world: messages that arrive
late or never, a host that obeys or does not, packets that get lost, a controller that dies.

Number of requests, crashes and repetitions is not bounded: a state holds how many requests run and wait, and
nothing of how it came about. So every interleaving of any length is in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from labctl.domain.budget import Rack as WattRack
from labctl.domain.sleep import evidence, lifecycle, reconcile, waking
from labctl.domain.sleep.actions import Action, Move, SendWake, Suspend, Verify
from labctl.domain.sleep.lifecycle import Claims, Event, Mode
from labctl.domain.sleep.terms import (
    Attempt,
    Fingerprint,
    HostPolicy,
    How,
    Known,
    KnownHost,
    Moment,
    Order,
    OrderWord,
    Policy,
    Proof,
    Reading,
    Report,
    Said,
    Seen,
    SeenHost,
    Sign,
    Wish,
)

MOST = 8
"""How many requests there may be at once, running and waiting together."""

_NOW = 1_000_000.0
_POLICY = HostPolicy("gpu", wakeable=True, sleeps=True, min_up_s=0.0)
_POLICIES = Policy({"gpu": _POLICY}, WattRack(()))
_RUNS = Fingerprint("6.1", "570", "nic", How.SUSPEND, "deep")
_PROOF = Proof(_RUNS, 0.0, 3, 5.0, 9.0)
_ROUNDS = len(tuple(waking.gaps(_POLICY, KnownHost("gpu", proof=_PROOF))))


class Heard(NamedTuple):
    """What the controller saw last: a line, or from outside how many signs were dark in how many ticks.

    ``slept``: the line told of a sleep that the row knows nothing of. ``word``: on this order or an old one.
    """

    talking: bool
    slept: bool = False
    word: str = ""
    dark_signs: int = 0
    dark_ticks: int = 0


NOTHING = Heard(talking=False)


class State(NamedTuple):
    """Everything that matters; the first four are the store's."""

    mode: Mode = Mode.READY
    running: int = 0
    order: str = ""  # "", "young", or "old": dead for sure by the controller's clock too
    attempt: str = (
        ""  # "", "sent" a moment ago, "due" for the next round, or "last" has been sent and waited for
    )
    waiting: int = 0  # requests that found no admission; together they are one wish
    on: bool = True
    slept: bool = False  # since the row learnt of its last boot
    host: str = ""  # "", "offered": it gave a nonce and waits for go, "going": it will sleep any moment
    word: str = (
        ""  # what it says of its last order: "", "refused", "failed", "going", and "old ..." of an older one
    )
    go: bool = False  # on its way to the host
    packet: bool = False  # on its way to the host
    heard: Heard = NOTHING
    plan: tuple[str, str] = ("", "")  # what the controller is about to do: a step and its detail
    stale: bool = False  # the row has changed since that was decided


Step = tuple[str, State]


@dataclass(slots=True)
class Rules:
    """Where a mutant may do the wrong thing in the parts that are made up here."""

    assume_awake: bool = False
    send_first: bool = False
    unguarded: bool = False
    no_deadline: bool = False
    no_nonce: bool = False
    drop_wishes: bool = False
    decided: dict[object, Action | None] = field(default_factory=dict)


# --- what the world does by itself -------------------------------------------------------------------------


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Yield everything that can happen next."""
    yield from _requests(state)
    yield from _host(state, rules)
    yield from _time(state, rules)
    yield from _controller(state, rules)
    if state.plan[0] or state.heard != NOTHING:
        mode = state.mode
        if rules.assume_awake and mode in (Mode.SUSPENDING, Mode.UNKNOWN):
            mode = Mode.READY
        yield "the controller dies", state._replace(plan=("", ""), stale=False, heard=NOTHING, mode=mode)


def _requests(state: State) -> Iterator[Step]:
    if state.running + state.waiting < MOST:
        if lifecycle.may_lease(state.mode):
            yield "a request comes and gets a lease", _leased(state)
        elif not state.waiting:
            yield "a request comes and waits", state._replace(waiting=1)
    if state.waiting and lifecycle.may_lease(state.mode):
        yield "a waiting request gets a lease", _leased(state)._replace(waiting=state.waiting - 1)
    if state.running:
        yield "a request is done", state._replace(running=state.running - 1)


def _leased(state: State) -> State:
    taken = state._replace(running=state.running + 1)
    if state.mode is Mode.DRAINING:
        return _moved(taken, Event.NEEDED)._replace(stale=bool(state.plan[0]))
    return taken


def _host(state: State, rules: Rules) -> Iterator[Step]:
    if state.go:
        yield "go is lost", state._replace(go=False)
        if state.on and state.host == "offered":
            yield "go arrives, the host obeys", state._replace(go=False, host="going", word="going")
            yield "go arrives, the host refuses", state._replace(go=False, host="", word="refused")
        elif not state.on or state.host == "":
            yield "go arrives too late", state._replace(go=False)
    if state.on and state.host == "going":
        yield "the host falls asleep", state._replace(on=False, slept=True, host="")
    if state.packet:
        yield "a packet is lost", state._replace(packet=False)
        yield "a packet arrives", state._replace(packet=False, on=True)
    if not state.on:
        yield "the host wakes by itself", state._replace(on=True)


def _time(state: State, rules: Rules) -> Iterator[Step]:
    if state.host and not rules.no_deadline:
        word = "failed" if state.host == "going" else state.word
        yield "the order dies on the host", state._replace(host="", go=False, word=word)
    if state.order == "young" and (not (state.host or state.go) or rules.no_deadline):
        # A line from before that is no fresh line any more.
        yield "the controller's clock says that the order is dead", state._replace(order="old", heard=NOTHING)
    if state.attempt == "sent":
        yield "the next round is due", state._replace(attempt="due")
        yield "all rounds were sent, and time is up", state._replace(attempt="last")


# --- what the controller does ------------------------------------------------------------------------------


def _controller(state: State, rules: Rules) -> Iterator[Step]:
    if state.plan[0]:
        yield from _act(state, rules)
        return
    before = state.heard
    if state.on:
        yield from _decided("a line comes", state, Heard(True, state.slept, state.word), rules)
        lost = Heard(False, dark_signs=1, dark_ticks=min(2, before.dark_ticks + 1))
        yield from _decided("the channel breaks and a ping is lost", state, lost, rules)
    else:
        ticks = before.dark_ticks + 1 if before.dark_signs == 2 else 1
        yield from _decided(
            "every look is dark", state, Heard(False, dark_signs=2, dark_ticks=min(2, ticks)), rules
        )
    if before.talking:
        yield from _decided("a line of before is looked at", state, before, rules)


def _decided(what: str, state: State, heard: Heard, rules: Rules) -> Iterator[Step]:
    action = decision(state, heard, rules)
    seen = state._replace(heard=heard, stale=False)
    match action:
        case Move():
            yield f"{what}: move by {action.event}", seen._replace(plan=("move", action.event.value))
        case Suspend():
            yield f"{what}: put it to sleep", seen._replace(plan=("ask", ""))
        case SendWake():
            yield f"{what}: send round {action.round}", seen._replace(plan=("wake", ""))
        case Verify():
            yield f"{what}: run the gate", seen._replace(plan=("gate", ""))
        case _:
            if seen != state:
                yield what, seen


def _act(state: State, rules: Rules) -> Iterator[Step]:
    what, detail = state.plan
    done = state._replace(plan=("", ""), stale=False)
    if what == "move":
        yield f"moved by {detail}", done if state.stale else _moved(done, Event(detail))
    elif what == "ask":
        if not state.on:
            yield "nobody answers", done
            return
        yield "the host refuses at once", done if state.stale else _moved(done, Event.REFUSED)
        # A go of an older order that is still on its way names another nonce.
        asked = state._replace(host="offered", word=_older(state.word), go=state.go and rules.no_nonce)
        yield "the host gives a nonce", asked._replace(plan=("send" if rules.send_first else "order", ""))
    elif what == "order":
        yield from _order(state, done, rules)
    elif what == "send":
        after = done if not rules.send_first else state._replace(plan=("order", ""))
        yield "go is sent", after._replace(go=True)
    elif what == "wake":
        moved = done if state.mode is Mode.WAKING or state.stale else _moved(done, Event.WISHED)
        if moved.mode is Mode.WAKING:
            yield "a packet is sent", moved._replace(packet=True, attempt="sent")
    elif what == "gate":
        passes = state.on and not state.stale
        yield "the gate is done", _moved(done._replace(slept=False), Event.PASSED) if passes else done


def _order(state: State, done: State, rules: Rules) -> Iterator[Step]:
    if state.stale and not rules.unguarded:
        yield "the row has changed, no order", done
    elif rules.unguarded or lifecycle.may_order(state.mode, claims(state)):
        waiting = 0 if rules.drop_wishes else state.waiting
        ordered = state._replace(
            mode=Mode.SUSPENDING, order="young", heard=_aged(state.heard), waiting=waiting
        )
        plan = ("", "") if rules.send_first else ("send", "")
        yield "the order is committed", ordered._replace(plan=plan, stale=False)
    else:
        yield "something claims the host, no order", _moved(done, Event.NEEDED)


def _moved(state: State, event: Event) -> State:
    """Return the state after a move in the store: by its guard and the table, or not at all."""
    if event is Event.WENT_QUIET and not lifecycle.may_drain(state.mode, claims(state)):
        return state
    mode = lifecycle.after(state.mode, event)
    if mode is None:
        return state
    order = state.order if mode is Mode.SUSPENDING else ""
    return state._replace(mode=mode, order=order, attempt=state.attempt if mode is Mode.WAKING else "")


def _older(word: str) -> str:
    return "" if word in ("", "going") or word.startswith("old") else f"old {word}"


def _aged(heard: Heard) -> Heard:
    return heard._replace(word=_older(heard.word))


def claims(state: State) -> Claims:
    """Return what the store counts inside its transaction."""
    return Claims(leases=state.running, wishes=min(1, state.waiting))


# --- the real decision -------------------------------------------------------------------------------------


def decision(state: State, heard: Heard, rules: Rules) -> Action | None:
    """Return what ``decide`` says of the host in this state; asked once for all states that look alike."""
    key = (state.mode, min(1, state.running), min(1, state.waiting), state.order, state.attempt, heard)
    if key not in rules.decided:
        known = Known({"gpu": _row(state)})
        found = reconcile.decide(_POLICIES, known, Seen({"gpu": _seen(heard)}), Moment(_NOW, _NOW))
        rules.decided[key] = found[0] if found else None
    return rules.decided[key]


def _row(state: State) -> KnownHost:
    ordered_s = {"": 0.0, "young": 20.0, "old": 5000.0}[state.order]
    attempt = None
    if state.attempt:
        passed = {"sent": 0.0, "due": 60.0, "last": 5000.0}[state.attempt]
        attempt = Attempt(
            _NOW - 5000, _ROUNDS + 1 if state.attempt == "last" else 1, _NOW - passed, asleep=True
        )
    wish = Wish(1, "gpu", "gateway", "a request", _NOW - 2000, _NOW + 900)
    return KnownHost(
        "gpu",
        state.mode,
        since=_NOW - 1000,
        boot_id="boot",
        resumes=1,
        claims=claims(state),
        wishes=(wish,) if state.waiting else (),
        order=Order("this", How.SUSPEND, _NOW - ordered_s, 120.0) if state.order else None,
        attempt=attempt,
        proof=_PROOF,
    )


def _seen(heard: Heard) -> SeenHost:
    if not heard.talking:
        signs = dict(zip(("ssh", "ping"), [Sign.DARK] * heard.dark_signs, strict=False))
        dark = heard.dark_signs > 1 or (heard.dark_signs and _one_is_enough())
        since = _NOW - 10.0 * (heard.dark_ticks - 1) if dark else None
        return SeenHost("gpu", _NOW, signs=signs, dark_since=since)
    kind, _, word = heard.word.rpartition(" ")
    said = OrderWord("older" if kind else "this", Said(word)) if word else None
    readings = (Reading("sessions", False, "nobody"),)
    report = Report(_NOW, "boot", 2 if heard.slept else 1, 900.0, readings, said, _RUNS, True)
    return SeenHost("gpu", _NOW, talking=True, report=report, quiet_since=_NOW - 4000)


def _one_is_enough() -> bool:
    return evidence.DARK_SIGNS < 2


SERVES = "the host sleeps with a live lease"
UNTRIED = "a host that slept serves without having passed the gate"
WAITS = "a request waits that no way can serve"
NEVER_READY = "it is never ready again"
NEVER_ASLEEP = "it never sleeps again"


# --- the search --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: how many states there are, or the shortest way to one that must not be."""

    states: int
    wrong: str = ""
    way: tuple[str, ...] = ()


def sleeps_under_a_lease(before: State, what: str, state: State) -> str:
    """Return that a request runs on a host that is off."""
    return SERVES if state.running and not state.on else ""


def serves_untried(before: State, what: str, state: State) -> str:
    """Return that a host takes requests again which slept since it passed the gate."""
    opens = state.mode in lifecycle.ADMITS and before.mode not in lifecycle.ADMITS
    return UNTRIED if opens and state.slept else ""


def unsafe(before: State, what: str, state: State) -> str:
    """Return what must never be, of a state or the step to it; empty when all is well."""
    return sleeps_under_a_lease(before, what, state) or serves_untried(before, what, state)


def explore(rules: Rules, wrong: Callable[[State, str, State], str] = unsafe) -> Found:
    """Visit every state, the nearest first; then look for states from which a waiter is never served."""
    start = State()
    came: dict[State, tuple[State, str] | None] = {start: None}
    back: dict[State, list[State]] = {start: []}
    ahead = [start]
    for state in ahead:
        for what, after in steps(state, rules):
            if bad := wrong(state, what, after):
                return Found(len(came), bad, (*_way(came, state), what))
            if after not in came:
                came[after] = (state, what)
                back[after] = []
                ahead.append(after)
            if what not in LUCK:
                back[after].append(state)
    for goal, bad in _GOALS:
        reached = _reaching(back, [state for state in ahead if goal(state)])
        stuck = next((state for state in ahead if state not in reached), None)
        if stuck is not None:
            return Found(len(came), bad, _way(came, stuck))
    return Found(len(came))


LUCK = ("the host wakes by itself",)
"""What may happen, and nobody can count on."""

_GOALS: tuple[tuple[Callable[[State], bool], str], ...] = (
    (lambda state: not state.waiting, WAITS),
    (lambda state: state.mode is Mode.READY and state.on and not state.plan[0], NEVER_READY),
    (lambda state: state.mode is Mode.ASLEEP and not state.on, NEVER_ASLEEP),
)


def _reaching(back: dict[State, list[State]], goals: list[State]) -> set[State]:
    found, ahead = set(goals), list(goals)
    for state in ahead:
        for before in back[state]:
            if before not in found:
                found.add(before)
                ahead.append(before)
    return found


def _way(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    way: list[str] = []
    at = came[state]
    while at is not None:
        way.append(at[1])
        at = came[at[0]]
    return tuple(reversed(way))
