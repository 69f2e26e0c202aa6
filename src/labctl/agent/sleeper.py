"""``sleep``: do what a suspend order that was accepted says. No key can ask for it; systemd runs it.

The order stands in ``/run/labctl``, where only root writes, and is obeyed once. Each step is written down
before it is taken:

1. take logind's lock; 2. remember what runs; 3. unload and stop, in order; 4. look once more at everything;
5. set the clock's alarm; 6. say "leaving", which the conversation passes on; 7. look once more for people,
locks, and changes to the host; 8. give the lock back and call logind; 9. see what became of it; 10. start
again what was stopped.

logind itself refuses when somebody holds a lock by then. (``systemctl suspend --check-inhibitors=yes`` would
be the same call, but it also refuses while any other user is logged in, and the controller's own watch is
one.) A refusal at any step starts again what was stopped. If this process is killed, systemd runs it once
more as ``sleep --over``, which does the same.

"failed" is said only when the order cannot be obeyed any more: logind prepares no sleep, and the machine did
not sleep. As long as either is unsure, the word stays "going".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import boottime, computing, inhibitor, lastlook, sleepfiles, unload, wakers, ways
from .calls import Ended, call
from .config import Settings, read
from .host import ROOT
from .sections import Finding
from .settings import Unsaid, engines, settings
from .sleepfiles import CALLED, FAILED, GOING, LEAVING, OVER, REFUSED, WORKING, Order

_METHOD = {"suspend": "SuspendWithFlags", "hibernate": "HibernateWithFlags", "power-off": "PowerOffWithFlags"}
_PREPARING = {"power-off": "PreparingForShutdown"}
_CHECK_INHIBITORS = "1"  # of root too
_CALLED_S = 15.0
_POLL_S = 0.25
_TOLD_S = 2.0
_EVIDENCE_S = 3.0
# What comes in a moment and costs nothing to see.
_LAST = ("sessions", "console", "holds", "inhibitors", "packages", "downloads")

Effect = Callable[[str], None]


class Refusal(Exception):
    """The host stays awake, and why."""


def nothing(name: str) -> None:
    """Stand where a test cuts the power."""


def obey(root: Path = ROOT, effect: Effect = nothing, path: str = sleepfiles.ORDER) -> int:
    """Do what the order says that stands in /run; return 0 where it was obeyed, or was begun before.

    Args:
        root: where the host's file system begins.
        effect: told the name of each effect before it is done.
        path: the file of the order; one that was written down and never started is not another one's.
    """
    order = sleepfiles.load(path, root)
    if order is None or order.said != GOING or order.step != sleepfiles.ACCEPTED:
        return 0
    config = read(root)
    try:
        config = settings(root)
        if order.is_dead(root):
            raise Refusal(f"the order is older than {order.lasts_s:g} s")
        effect("begin")
        order = _step(order, WORKING, root)
        order = _leave(order, config, root, effect)
    except (Refusal, Unsaid, unload.NotFreed, wakers.Unarmed, inhibitor.NotTaken, OSError) as error:
        _undo(order, config, root, REFUSED, str(error))
        return 1
    except BaseException as error:
        _undo(
            order,
            config,
            root,
            REFUSED,
            f"{type(error).__name__}: {error}; this may be a bug in labctl-agent",
        )
        raise
    if order.how == "unload":
        return 0
    return _called(order, config, root, effect)


def over(root: Path = ROOT) -> int:
    """Put right what a process left behind that was killed over an order; harmless where none was."""
    for path in (sleepfiles.ORDER, sleepfiles.UNLOAD):
        order = sleepfiles.load(path, root)
        if order is None or order.said != GOING or order.step == OVER:
            continue
        config = read(root)
        if order.step == CALLED and order.how == "power-off" and _is_preparing(order):
            return 0  # this is how a process ends on a host that goes down
        if order.step == CALLED:
            _watch(order, config, root)
        else:
            _undo(
                order,
                config,
                root,
                REFUSED,
                "the process that was to put it to sleep was killed, or took too long",
            )
    return 0


def _step(order: Order, step: str, root: Path, **more: Any) -> Order:
    """Write down how far it came.

    Raises:
        Refusal: the order does not stand any more; who took it away told so.
        OSError: it cannot be written.
    """
    kept = sleepfiles.load(sleepfiles.place(order.how), root)
    if kept is None or (kept.nonce, kept.said) != (order.nonce, GOING):
        raise Refusal("the order was withdrawn")
    after = order._replace(step=step, **more)
    sleepfiles.save(after, root)
    return after


# --- before the call ---


def _leave(order: Order, config: Settings, root: Path, effect: Effect) -> Order:
    """Bring the host to where only the call is left.

    Raises:
        Refusal, NotFreed, Unarmed, NotTaken, OSError: it stays awake.
    """
    effect("lock")
    with inhibitor.held(f"labctl is about to {order.how} this host"):
        wanted = [one for one in engines(config) if order.units is None or one.unit in order.units]
        unload.free(wanted, config, order.how, root, effect)
        if order.how == "unload":
            effect("unloaded")
            return _step(order, OVER, root, outcome="unloaded")
        _look_again(order, config, root)
        if order.rtc_at is not None and wakers.has_alarm(root):
            effect("alarm")
            wakers.arm_alarm(order.rtc_at, root)
        way = order.mem_sleep
        if way is not None:
            order = _step(order, WORKING, root, mem_was=ways.memory(root))
            effect("way")
            ways.choose_memory(way, root)
        effect("leaving")
        order = _step(order, LEAVING, root)
        _wait_until_told(order)
        _look_for(order, config, root, _LAST)
        if order.is_dead(root):
            raise Refusal(f"it took longer than the {order.lasts_s:g} s that the order lasts")
    effect("called")
    before = boottime.slept(root)
    return _step(order, CALLED, root, gap_s=before.gap_s, slept=before.times)


def _look_again(order: Order, config: Settings, root: Path) -> None:
    against = None
    if order.how != "power-off":
        try:
            against = ways.room_against(computing.use(root).used_bytes, root)
        except Finding as finding:
            against = f"whether a card is still in use is not known: {finding}"
    if against:
        raise Refusal(against)
    card = config.sleep.get("wol")
    if card is not None:
        wakers.arm_card(card, root)
    _look_for(order, config, root, None)


def _look_for(order: Order, config: Settings, root: Path, names: tuple[str, ...] | None) -> None:
    because = lastlook.locked_because(root)
    if because is None and not order.force:
        because = lastlook.busy_because(lastlook.looked(config, root, names))
    if because:
        raise Refusal(because)


def _wait_until_told(order: Order) -> None:
    """Let the conversation pass on that this host leaves; it ends when it has."""
    until = time.monotonic() + _TOLD_S
    while order.teller and boottime.runs(order.teller) and time.monotonic() < until:
        time.sleep(0.02)


# --- the call, and what became of it ---


def _called(order: Order, config: Settings, root: Path, effect: Effect) -> int:
    method = _METHOD[order.how]
    done = call("busctl", "call", *ways.MANAGER, method, "t", _CHECK_INHIBITORS, within_s=_CALLED_S)
    effect("asleep")
    # A call that was late may have been taken all the same.
    if not done.ok and not _is_preparing(order):
        _undo(order, config, root, FAILED, f"logind refused to {order.how}: {done.why}")
        return 1
    return _watch(order, config, root)


def _watch(order: Order, config: Settings, root: Path) -> int:
    """See what becomes of a sleep that was called for, and write it down."""
    before = boottime.Slept(order.gap_s, order.slept)
    stopped = False
    while _is_preparing(order) and not _has_slept(before, root):
        if order.is_dead(root) and not stopped and order.how != "power-off":
            # A sleep that comes so late is nobody's wish any more. One that the kernel is at goes on, and so
            # does a shutdown, half of which is worse than all of it.
            _cancel(order)
            stopped = True
        time.sleep(_POLL_S)
    until = time.monotonic() + _EVIDENCE_S
    while not _has_slept(before, root) and time.monotonic() < until:
        time.sleep(_POLL_S)
    if _has_slept(before, root):
        if order.rtc_at is not None:
            wakers.disarm_alarm(root)  # or it would wake the next sleep
        _finish(order, config, root, GOING, "", "resumed")
        return 0
    why = "it was called off, since the order was too old" if stopped else _why_not(order)
    _undo(order, config, root, FAILED, f"it did not {order.how}: {why}")
    return 1


def _has_slept(before: boottime.Slept, root: Path) -> bool:
    return boottime.slept(root).more_than(before)


def _is_preparing(order: Order) -> bool:
    """Return whether logind is at it; where it does not say, it may be."""
    name = _PREPARING.get(order.how, "PreparingForSleep")
    answer = call("busctl", "get-property", *ways.MANAGER, name, within_s=_CALLED_S)
    return answer.out.strip() != "b false"


def _units(order: Order) -> tuple[str, str]:
    target = {"suspend": "suspend", "hibernate": "hibernate", "power-off": "poweroff"}[order.how]
    return f"{target}.target", f"systemd-{target}.service"


def _cancel(order: Order) -> Ended:
    return call("systemctl", "stop", "--no-block", "--", *_units(order), within_s=_CALLED_S)


def _why_not(order: Order) -> str:
    """Return what systemd says of the unit that was to do it."""
    shown = call(
        "systemctl", "show", "--property=Result", "--value", "--", _units(order)[1], within_s=_CALLED_S
    )
    result = shown.out.strip()
    if shown.ok and result and result != "success":
        return f"{_units(order)[1]} failed ({result}): journalctl -u {_units(order)[1]}"
    return "systemd took the order, and the kernel counted no sleep"


# --- after it ---


def _undo(order: Order, config: Settings, root: Path, said: str, because: str) -> None:
    if order.rtc_at is not None:
        wakers.disarm_alarm(root)
    if order.mem_was:
        with contextlib.suppress(OSError):
            ways.choose_memory(order.mem_was, root)
    _finish(order, config, root, said, because, "")


def _finish(order: Order, config: Settings, root: Path, said: str, because: str, outcome: str) -> None:
    """Start again what was stopped, and say how it ended; the word is said even where starting fails."""
    try:
        wrong = unload.restore(config, root)
    except OSError as error:
        wrong = [f"what was stopped is not known: {error}"]
    because = "; ".join((because, *wrong) if because else wrong)
    sleepfiles.save(order._replace(said=said, step=OVER, because=because, outcome=outcome), root)
