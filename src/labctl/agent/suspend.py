"""``suspend``: talk with the controller about putting this host to sleep, and refuse wherever there is doubt.

The controller proposes, the host decides. It reads an order, takes logind's lock, looks at everything that
counts as use, and whether it could sleep that way and be woken again. Then it says ``ready`` with a nonce.
Only now the controller closes admission, and says ``go`` with the same nonce; within five seconds of this
host's own clock, or nothing happens at all. That the conversation breaks off before that, by whatever cause,
is the same as no order.

From ``go`` on the conversation only watches. What must be done is done by a process of its own that systemd
runs (``sleeper``), because this one ends with the SSH connection, which a sleep cuts. If that process is
killed, systemd puts things right, and if all of it is killed at once, the conversation does.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from . import boottime, inhibitor, lastlook, sleeper, sleepfiles, unload, wakers, ways
from .calls import call
from .config import Settings
from .host import ROOT
from .settings import Unsaid, engines, settings
from .sleepfiles import CALLED, FAILED, GOING, LEAVING, OVER, REFUSED, Order

WITHIN_S = 5
UNIT = "labctl-sleep.service"
AGENT = "/usr/local/lib/labctl/agent.pyz"
_ORDER_AT_MOST = 1 << 14
_ORDER_WITHIN_S = 10.0
_LASTS_S = (10.0, 600.0)
_ALARM_AFTER_S = 60.0
_POLL_S = 0.05
_ALIVE_EVERY = 20  # looks
# After the death of an order its sleeper is ended, then the conversation, then the controller gives it up.
_LATER_S = 25.0
_GRACE_S = 15.0
_HOWS = ("suspend", "hibernate", "power-off", "unload")
_FIELDS = {"how", "rtc_at", "force", "lasts_s", "units", "mem_sleep"}

Say = Callable[[dict[str, Any]], None]


class Refusal(Exception):
    """This host will not sleep, and why."""


class Wish(NamedTuple):
    """What the controller wants."""

    how: str
    lasts_s: float
    force: bool = False
    rtc_at: float | None = None
    units: tuple[str, ...] | None = None
    mem_sleep: str | None = None


def converse(stream: BinaryIO, say: Say, root: Path = ROOT, start: Callable[[str], str] | None = None) -> int:
    """Hold the conversation; return the exit status: 0 it goes, 1 it was refused, 2 nothing was ordered.

    Args:
        stream: what the controller says.
        say: tells it one line.
        root: where the host's file system begins.
        start: starts the process that sleeps that way, and returns what went wrong; default: by systemd.
    """
    lines = Lines(stream.fileno())
    try:
        wish = wish_of(lines.next(_ORDER_WITHIN_S))
        with sleepfiles.alone(root):
            nonce = _agreed(wish, lines, say, root, start or partial(_by_systemd, wish.lasts_s))
        if nonce is None:
            return 2
    except sleepfiles.Occupied:
        say({"refused": "somebody else is talking with this host about putting it to sleep"})
        return 1
    except (Refusal, Unsaid, inhibitor.NotTaken, wakers.Unarmed) as refusal:
        say({"refused": str(refusal)})
        return 1
    except OSError as error:
        say({"refused": f"this host cannot write down an order: {error}"})
        return 1
    except Exception as error:
        # Nothing was ordered yet: what goes wrong after that withdraws the order itself.
        said = f"{type(error).__name__}: {error}"
        say(
            {"refused": f"this host could not look whether it may: {said}; this may be a bug in labctl-agent"}
        )
        return 1
    try:
        return _told(wish, nonce, say, root)
    except OSError as error:
        # The word that stands there is "going", and it stays: the order dies by itself.
        sys.stderr.write(f"labctl-agent: what became of the order cannot be written down: {error}\n")
        return 2


def _agreed(wish: Wish, lines: Lines, say: Say, root: Path, start: Callable[[str], str]) -> str | None:
    """Return the nonce of an order that is under way, None where the controller did not order.

    Raises:
        Refusal: this host does not sleep; nothing was done, or what was written down is withdrawn.
    """
    config = settings(root)
    require_engines(wish, config)
    _refuse(ways.against(wish.how, wish.mem_sleep, root))
    with inhibitor.held(f"labctl looks whether this host may {wish.how}"):
        _require_able(wish, config, root)
        if not wish.force:
            _refuse(lastlook.busy_because(lastlook.looked(config, root)))
        nonce, since = os.urandom(16).hex(), boottime.now_s()
        say({"ready": True, "nonce": nonce, "within_s": WITHIN_S})
        word = lines.next(WITHIN_S)
        if word is None:
            return None
        if _strict(word) != {"go": nonce}:
            raise Refusal("what came was not the word to go")
        at = boottime.now_s()
        if at - since > WITHIN_S:
            raise Refusal(f"the word to go came later than {WITHIN_S} s after this host was ready")
        # The same moment: a process that is stopped in between makes no order younger than it is.
        order = _order(wish, nonce, root, at)
        sleepfiles.save(order, root)  # from here on whoever asks hears that it may sleep
        why = "nothing could be started that does it"
        try:
            trouble = start(wish.how)
        except BaseException:
            sleepfiles.save(order._replace(said=REFUSED, step=OVER, because=why), root)
            raise
        if trouble:
            why = f"{why}: {trouble}"
            sleepfiles.save(order._replace(said=REFUSED, step=OVER, because=why), root)
            raise Refusal(why)
        return nonce


def _refuse(because: str | None) -> None:
    if because:
        raise Refusal(because)


def _order(wish: Wish, nonce: str, root: Path, at: float | None = None) -> Order:
    before = boottime.slept(root)
    return Order(
        nonce=nonce,
        at_s=boottime.now_s() if at is None else at,
        boot_id=boottime.boot_id(root),
        teller=os.getpid(),
        gap_s=before.gap_s,
        slept=before.times,
        **wish._asdict(),
    )


def _require_able(wish: Wish, config: Settings, root: Path) -> None:
    """Raise unless what should wake this host is armed, or can be.

    Raises:
        Refusal: another order is under way, or it should wake at once.
        wakers.Unarmed: a magic packet would not wake it.
    """
    last = sleepfiles.load(sleepfiles.place(wish.how), root)
    if last is not None and last.said == GOING and last.step != OVER and not last.is_dead(root):
        raise Refusal("another order to sleep is under way")
    if wish.how == "unload":
        return
    card = config.sleep.get("wol")
    if card is not None:
        wakers.arm_card(card, root)
    # The alarm is for the case that nobody can wake it; a host without such a clock goes without.
    if wish.rtc_at is not None and wish.rtc_at < time.time() + _ALARM_AFTER_S:
        raise Refusal("the time to wake up again is over, or less than a minute away")


def require_engines(wish: Wish, config: Settings) -> None:
    """Raise unless the units that an order names are engines of this host: others are nobody's to stop.

    Raises:
        Refusal: one is not.
    """
    known = {one.unit for one in engines(config)}
    strange = [unit for unit in wish.units or () if unit not in known]
    if strange:
        raise Refusal("the order names a unit that is no engine of this host")


def _told(wish: Wish, nonce: str, say: Say, root: Path) -> int:
    """Tell the controller what becomes of its order, as the process that does it writes it down."""
    path = sleepfiles.place(wish.how)
    until = boottime.now_s() + wish.lasts_s + _LATER_S
    for at in itertools.count(1):
        if boottime.now_s() > until:
            break
        order = sleepfiles.load(path, root)
        if order is not None and order.nonce == nonce:
            if order.said in (REFUSED, FAILED):
                say({"refused": order.because})
                return 1
            if order.step == OVER and wish.how == "unload":
                say({"going": nonce, "unloaded": True})
                return 0
            if order.step in (LEAVING, CALLED, OVER):
                say({"going": nonce})
                return 0
        if at % _ALIVE_EVERY == 0 and unload.has_ended(UNIT):
            # Killed with all that it had started, so that not even systemd could put things right.
            sleeper.over(root)
        time.sleep(_POLL_S)
    # Nobody knows. The word that is written down stays "going", so nobody takes it for awake.
    return 2


def _by_systemd(lasts_s: float, how: str) -> str:
    """Have systemd run what does it, apart from this session; return what went wrong.

    systemd ends it, also one that was stopped, before anybody may take the order for dead and the host for
    awake. Its clock for that stands still while the machine sleeps.
    """
    done = call(
        *("systemd-run", "--quiet", "--no-block", "--collect", f"--unit={UNIT}"),
        *("--description=Put this host to sleep by the order of labctl", "--property=Type=exec"),
        f"--property=RuntimeMaxSec={lasts_s + _GRACE_S:g}",
        f"--property=ExecStopPost={AGENT} sleep --over",
        *(AGENT, "sleep"),
        *(("--unload",) if how == "unload" else ()),
        within_s=10.0,
    )
    return "" if done.ok else done.why


# --- what comes in ---


class Lines:
    """What the other end says, line by line; nothing more is read than is asked for."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._rest = b""

    def next(self, within_s: float) -> bytes | None:
        """Return the next line, None where it does not come in time or never will.

        Raises:
            Refusal: it is longer than any of ours.
        """
        until = boottime.now_s() + within_s
        while b"\n" not in self._rest:
            if len(self._rest) > _ORDER_AT_MOST:
                raise Refusal(f"the order is longer than {_ORDER_AT_MOST} bytes")
            left = until - boottime.now_s()
            if left <= 0 or not select.select([self._number], [], [], left)[0]:
                return None
            data = os.read(self._number, _ORDER_AT_MOST)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        if len(line) > _ORDER_AT_MOST:
            raise Refusal(f"the order is longer than {_ORDER_AT_MOST} bytes")
        return line


def wish_of(line: bytes | None) -> Wish:
    """Return the order in a line.

    Raises:
        Refusal: it is none.
    """
    if line is None:
        raise Refusal("no order came")
    found = _strict(line)
    if unknown := sorted(set(found) - _FIELDS):
        raise Refusal(f"the order has a field that this agent does not know: {unknown[0][:40]!r}")
    how, force = found.get("how"), found.get("force", False)
    lasts: Any = found.get("lasts_s")
    if how not in _HOWS:
        raise Refusal(f"how must be one of {', '.join(_HOWS)}")
    if not _is_number(lasts) or not _LASTS_S[0] <= lasts <= _LASTS_S[1]:
        raise Refusal(f"lasts_s must be a number from {_LASTS_S[0]:g} to {_LASTS_S[1]:g}")
    if not isinstance(force, bool):
        raise Refusal("force must be true or false")
    rtc_at: Any = found.get("rtc_at")
    if rtc_at is not None and not (_is_number(rtc_at) and 0 < rtc_at < 1e11):
        raise Refusal("rtc_at must be a time in seconds since 1970, or null")
    units = found.get("units")
    if units is not None and not (isinstance(units, list) and all(isinstance(one, str) for one in units)):
        raise Refusal("units must be a list of names")
    mem_sleep = found.get("mem_sleep")
    if mem_sleep is not None and (how != "suspend" or mem_sleep not in ways.MEMORY):
        raise Refusal(f"mem_sleep is for suspend, and one of {', '.join(ways.MEMORY)}")
    return Wish(how, float(lasts), force, rtc_at, None if units is None else tuple(units), mem_sleep)


def _is_number(value: Any) -> bool:
    # NaN is no number to count with, and True would be 1.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _strict(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Refusal("the order is not JSON") from None
    if not isinstance(found, dict):
        raise Refusal("the order is no object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found
