"""Cold-cycling a host: off, seen to be off, a pause, on again. The last resort, and the most dangerous.

Four rules. It is done only with an ``interlock``: somebody's verdict that the host is drained or proven hung,
with the reason. It is done only where the inventory allows to cut (``Switch.can_cut``). Once a cut was tried,
power is given again whatever happens, since a host that stays off serves nobody. And off is seen, not
assumed: a back-end that still says "on" when the patience is used up has failed; one that cannot see at all
is believed, and the answer says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from labctl.domain.sleep.lifecycle import Verdict
from labctl.ports.power import Power, PowerError, Switch


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the steps take, in seconds; ``wait`` pauses and ``now`` is a monotonic clock.

    A ``wait`` that raises ends the cycle early; power is given again at once then.

    ``off_s``: how long power stays away. ``patience_s``: until the host must be seen off. ``ask_s``: between
    two looks. ``tries``: how often power is given again before that fails.
    """

    off_s: float = 10.0
    patience_s: float = 30.0
    ask_s: float = 1.0
    tries: int = 3
    wait: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Cycled:
    """What was done; ``seen_off``: the back-end saw that power was gone."""

    seen_off: bool
    because: str


def cycle(switch: Switch, interlock: Verdict, pace: Pace | None = None) -> Cycled:
    """Cut a host's power and give it again.

    Args:
        switch: its power back-end.
        interlock: that it is drained or proven hung, and how that is known.
        pace: how long the steps take.

    Raises:
        PowerError: it was not allowed (interlock, unsupported: nothing was done), or did not succeed.
    """
    pace = pace or Pace()
    if not interlock:
        raise PowerError(
            "interlock",
            f"its power is not cut: {interlock.because}",
            "let it drain first, or have it proven hung",
        )
    if not switch.can_cut:
        raise PowerError(
            "unsupported",
            f"its power is not cut: the inventory does not allow that by its {switch.kind}",
            "a BMC, a plug with may_cut=True, or a command or webhook that switches off can be its `power`",
        )
    try:
        switch.cut()
        seen = _seen_off(switch, pace)
        pace.wait(pace.off_s)
    except BaseException:
        _on_again(switch, pace)
        raise
    _on_again(switch, pace)
    how = "was seen off" if seen else f"could not be seen off by its {switch.kind}"
    return Cycled(seen, f"{interlock.because}; it {how} and has power again")


def _seen_off(switch: Switch, pace: Pace) -> bool:
    """Wait until the power is seen to be gone; return False if this back-end never says."""
    until = pace.now() + pace.patience_s
    heard: set[Power] = set()
    failure: PowerError | None = None
    while True:
        try:
            said, failure = switch.power(), None
            heard.add(said)
            if said == "off":
                return True
        except PowerError as error:
            failure = error
        if pace.now() >= until:
            break
        pace.wait(pace.ask_s)
    if heard == {"unclear"}:
        return False
    if failure is not None:
        raise failure
    raise PowerError(
        "refused",
        f"its {switch.kind} took the order, and {pace.patience_s:g} s later it is not seen to be off",
        "look at the machine itself",
    )


def _on_again(switch: Switch, pace: Pace) -> None:
    for left in reversed(range(pace.tries)):
        try:
            switch.wake()
            return
        except PowerError as error:
            if not left:
                raise PowerError(
                    error.code,
                    f"its power could not be given again, so it may be off: {error}",
                    error.hint or "switch it on by hand",
                    transient=error.transient,
                ) from None
            with suppress(Exception):  # told to hurry: then the next try is made at once
                pace.wait(pace.ask_s)
