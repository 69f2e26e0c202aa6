"""Take the models off this host's cards before it sleeps, and put them back where it does not.

Engines that can let go of a model and go on serving are asked to (llama-swap, Ollama, llama-server as a
router); the others' units are stopped, in the reverse of the order in which they start. vLLM that sleeps
keeps a context on its card, so before a sleep of the machine it is stopped, and only for ``unload`` it is put
to sleep. That a unit stopped is no proof: at the end nobody may compute on a card any more.

What will be stopped is written down first, so that whoever comes after us, whatever became of us, can start
it again. To start what runs already is harmless, so that is done without asking what was reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import computing, sleepfiles
from .calls import call
from .config import Engine, Settings
from .host import document
from .questions import Unanswered, ask
from .sections import Finding
from .settings import engines

_STOP_S = 120.0
_START_S = 30.0
_FREE_WITHIN_S = 30.0
_POLL_S = 0.25
_UNLOAD_S = 60.0
_LETS_GO = ("llama-swap", "ollama")
# Kinds that hold cards for as long as they run. Others hold none (a gateway, a database), or may (a command
# of the rack file's own), which is seen by whether they compute.
_HOLD_CARDS = ("llama-server", "rpc-server", "vllm", "sglang", "tabbyapi")


class NotFreed(Exception):
    """A model stayed where it is, and why."""


class Stopped(NamedTuple):
    """What must run again: units, in their order, and models as (unit, model) of engines that let go."""

    units: tuple[str, ...] = ()
    models: tuple[tuple[str, str], ...] = ()
    slept: tuple[str, ...] = ()


def free(
    wanted: Sequence[Engine],
    config: Settings,
    how: str,
    root: Path,
    effect: Callable[[str], None] = lambda name: None,
) -> None:
    """Take the models off the cards; what is stopped is remembered first.

    Args:
        wanted: the engines, in the order in which they start.
        config: the host's configuration, which names programs that may hold a card.
        how: the way to sleep; ``power-off`` needs nothing of this, since systemd stops all units.
        root: where the host's file system begins.
        effect: told the name of each effect before it is done.

    Raises:
        NotFreed: something is still loaded; what was stopped stays remembered.
        OSError: what is to be stopped cannot be written down.
    """
    if how == "power-off":
        return
    running = [one for one in _holders(wanted, root) if is_active(one.unit)]
    plan = [(one, _way(one, how, root)) for one in running]
    stopped = Stopped(
        units=tuple(one.unit for one, way in plan if way == "stop"),
        models=tuple(
            (one.unit, model) for one, way in plan if way == "router" for model in _routed(one, root) or ()
        ),
        slept=tuple(one.unit for one, way in plan if way == "sleep"),
    )
    if stopped != Stopped():
        effect("remember")
        remember(stopped, root)
    for one, way in reversed(plan):
        effect(f"{way} {one.unit}")
        _let_go(one, way, stopped, root)
    _wait_until_free(root, allowed=stopped.slept, quiet=config.signals.gpu_idle_programs)


def _holders(wanted: Sequence[Engine], root: Path) -> list[Engine]:
    """Return the engines that hold cards, or may."""
    holding = _LETS_GO + _HOLD_CARDS
    if all(one.kind in holding for one in wanted):
        return list(wanted)
    try:
        units = {unit_of(pid, root) for pid, _ in computing.use(root).who}
    except Finding as finding:
        raise NotFreed(f"whether a card is in use is not known: {finding}") from None
    return [one for one in wanted if one.kind in holding or one.unit in units]


def is_active(unit: str) -> bool:
    """Return whether a unit runs, or is about to."""
    state = call("systemctl", "is-active", "--", unit, within_s=_START_S).out.strip()
    return state in ("active", "activating", "reloading")


def has_ended(unit: str) -> bool:
    """Return whether systemd says itself that a unit does not run; where it says nothing, it may."""
    return call("systemctl", "is-active", "--", unit, within_s=_START_S).out.strip() in ("inactive", "failed")


def _way(one: Engine, how: str, root: Path) -> str:
    """Return how an engine lets go: by its own means ("swap", "ollama", "router", "sleep"), or "stop"."""
    if one.kind in _LETS_GO:
        return one.kind
    if not one.url:
        return "stop"
    if one.kind == "llama-server" and _routed(one, root) is not None:
        return "router"
    if one.kind == "vllm" and how == "unload":
        try:
            can = ask(one.url, "/is_sleeping", key_file=one.key_file, root=root).status == 200
        except Unanswered:
            can = False
        return "sleep" if can else "stop"
    return "stop"


def _routed(one: Engine, root: Path) -> list[str] | None:
    """Return the loaded models of a llama-server that is a router, None of one that is not."""
    try:
        listed = ask(one.url or "", "/models", key_file=one.key_file, root=root).json()
    except Unanswered:
        return None
    rows = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(rows, list):
        return None
    states = [(row.get("id"), row.get("status")) for row in rows if isinstance(row, dict)]
    known = [(str(name), state.get("value")) for name, state in states if isinstance(state, dict)]
    if not known or len(known) != len(states):
        return None
    return [name for name, state in known if state in ("loaded", "loading", "sleeping")]


def _let_go(one: Engine, way: str, stopped: Stopped, root: Path) -> None:
    """Have one engine let go.

    Raises:
        NotFreed: it does not.
    """
    try:
        if way == "llama-swap":
            _posted(one, "/api/models/unload", {}, root)
        elif way == "ollama":
            for model in _ollama_models(one, root):
                _posted(one, "/api/generate", {"model": model, "keep_alive": 0}, root)
        elif way == "router":
            for unit, model in stopped.models:
                if unit == one.unit:
                    _posted(one, "/models/unload", {"model": model}, root)
        elif way == "sleep":
            _posted(one, "/sleep?level=1", {}, root)
        else:
            stop(one.unit)
    except Unanswered as error:
        raise NotFreed(f"{one.unit} does not unload its models: {error}") from None


def _posted(one: Engine, path: str, body: Any, root: Path) -> None:
    """Order an engine to do something.

    Raises:
        Unanswered: it does not, or says nothing.
    """
    answer = ask(one.url or "", path, key_file=one.key_file, root=root, body=body, within_s=_UNLOAD_S)
    if not 200 <= answer.status < 300:
        raise Unanswered(f"{path} answers {answer.status}")


def _ollama_models(one: Engine, root: Path) -> list[str]:
    said = ask(one.url or "", "/api/ps", key_file=one.key_file, root=root).json()
    rows = said.get("models") if isinstance(said, dict) else None
    if not isinstance(rows, list):
        raise NotFreed(f"{one.unit} does not say which models it has loaded")
    return [str(row.get("model") or row.get("name")) for row in rows if isinstance(row, dict)]


def stop(unit: str) -> None:
    """Stop a unit.

    Raises:
        NotFreed: it does not stop.
    """
    done = call("systemctl", "stop", "--", unit, within_s=_STOP_S)
    if not done.ok:
        raise NotFreed(f"{unit} does not stop: {done.why}")


def _wait_until_free(root: Path, allowed: Sequence[str], quiet: Sequence[str]) -> None:
    """Wait until nobody computes any more, but the units that only sleep and programs that may.

    Raises:
        NotFreed: somebody does.
    """
    until = time.monotonic() + _FREE_WITHIN_S
    while True:
        try:
            found = computing.use(root)
        except Finding as finding:
            raise NotFreed(f"whether a card is still in use is not known: {finding}") from None
        left = [
            f"{pid} {name}"
            for pid, name in found.who
            if name not in quiet and unit_of(pid, root) not in allowed
        ]
        if not left:
            return
        if time.monotonic() > until:
            raise NotFreed(f"still computing on a card after all was unloaded: {', '.join(left)}")
        time.sleep(_POLL_S)


def unit_of(pid: int, root: Path) -> str:
    """Return the unit that a process belongs to, by the last part of its control group."""
    try:
        return (root / f"proc/{pid}/cgroup").read_text().strip().rpartition("/")[2]
    except OSError:
        return ""


# --- memory ---


def remember(more: Stopped, root: Path) -> None:
    """Write down what is to run again, with what was written down before.

    Raises:
        OSError: it cannot be written.
    """
    kept = remembered(root)
    whole = Stopped(
        tuple(dict.fromkeys((*kept.units, *more.units))),
        tuple(dict.fromkeys((*kept.models, *more.models))),
        tuple(dict.fromkeys((*kept.slept, *more.slept))),
    )
    sleepfiles.replace(root / sleepfiles.STOPPED, {"format": sleepfiles.FORMAT, **whole._asdict()}, 0o600)


def remembered(root: Path) -> Stopped:
    """Return what is to run again."""
    try:
        kept = document(root / sleepfiles.STOPPED)
        return Stopped(
            tuple(map(str, kept["units"])),
            tuple((str(unit), str(model)) for unit, model in kept["models"]),
            tuple(map(str, kept["slept"])),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Stopped()


def restore(config: Settings, root: Path) -> list[str]:
    """Start again all that was stopped, and return what is wrong; what could be started is forgotten.

    Models that engines load by themselves when they are asked for (llama-swap, Ollama) are left to them.
    """
    kept = remembered(root)
    by_unit = {one.unit: one for one in engines(config)}
    wrong = []
    for unit in kept.units:
        done = call("systemctl", "start", "--no-block", "--", unit, within_s=_START_S)
        if not done.ok:
            wrong.append(f"{unit} does not start: {done.why}")
    for unit, path, body in (
        *((unit, "/models/load", {"model": model}) for unit, model in kept.models),
        *((unit, "/wake_up", {}) for unit in kept.slept),
    ):
        if unit in by_unit:
            try:
                _posted(by_unit[unit], path, body, root)
            except Unanswered as error:
                wrong.append(f"{unit} does not load its model again: {error}")
    if not wrong:
        (root / sleepfiles.STOPPED).unlink(missing_ok=True)
    return wrong
