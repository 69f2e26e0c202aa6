"""The timer that ends a timed override: systemd starts the caps service again at that moment.

The time is the calendar's, in UTC, so that it means the same after a sleep or a change of the time zone. A
host without a battery for its clock starts in the past; therefore the timer also fires when the clock is set,
and a run of ``caps`` decides anew what holds. Timers of this kind do not survive a reboot: ``caps``, which
runs at each boot, arms it again.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from .sections import Finding

SERVICE = "labctl-caps.service"
TIMER = "labctl-caps-until"
_WITHIN_S = 15
_AGAIN_S = 1.0
_TEXT = 300


def until_text(until: int) -> str:
    """Return a moment as systemd's calendar and people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(until))


def arm(until: int | None, root: Path) -> Finding | None:
    """Have the caps decided anew at that moment, or never; return what is wrong when that failed.

    Args:
        until: the moment in Unix seconds; None takes an armed timer away.
        root: where the host's file system begins; only on a running host there is a systemd to ask.
    """
    if not (root / "run/systemd/system").is_dir():
        return None if until is None else _not_armed(until, "systemd does not run here")
    # A timer cannot be changed, and none of that name may be left; there is often none.
    _call("systemctl", "stop", f"{TIMER}.timer")
    if until is None:
        return None
    argv = (
        *("systemd-run", "--quiet", "--collect", f"--unit={TIMER}", "--timer-property=AccuracySec=1s"),
        *(
            f"--on-calendar={until_text(until)}",
            "--on-clock-change",
            "--description=End of a timed power cap",
        ),
        *("systemctl", "start", "--no-block", SERVICE),
    )
    failed = _call(*argv)
    if failed:
        # The service of the timer that has just started us may not be gone yet.
        time.sleep(_AGAIN_S)
        failed = _call(*argv)
    return _not_armed(until, failed) if failed else None


def _not_armed(until: int, why: str) -> Finding:
    return Finding(
        f"no timer ends the order at {until_text(until)}: {why}",
        f"it ends with the first run of {SERVICE} after that",
        "until-not-armed",
    )


def _call(*argv: str) -> str:
    """Run a command, and return what went wrong, or nothing."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {error}"[:_TEXT]
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")[-_TEXT:]
