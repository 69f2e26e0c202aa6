"""``mend``: one step up the ladder for a host that did not pass the gate.

- ``engines``: restart their units, in their order.
- ``driver``: load the driver's part for computing (nvidia_uvm) anew, which is what a sleep breaks. Everything
  that uses it must be gone first: the engines are stopped, and if anybody else still has it open, nothing is
  reloaded and the answer says who. The rack file must allow it.
- ``reboot``: by systemd, after the answer is out. The rack file must allow it, and nobody may be logged in,
  hold the host awake, install packages or apply the rack file: whoever is, is probably mending it.

Each tells what it did and what is wrong, as one JSON object.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import lastlook, unload, ways
from .calls import call
from .computing import name_of
from .config import Settings
from .host import ROOT
from .settings import Unsaid, engines, settings

FORMAT = 1
_DEVICE = "/dev/nvidia-uvm"
_MODULE = "nvidia_uvm"
_CALL_S = 150.0
_FREE_WITHIN_S = 15.0
_POLL_S = 0.2
_PEOPLE = ("sessions", "console", "holds", "packages", "downloads")


class _Unmended(Exception):
    """The step was not taken, and why."""


def mended(step: str, root: Path = ROOT) -> dict[str, Any]:
    """Take a step ("engines", "driver" or "reboot"), and return what was done."""
    did: list[str] = []
    wrong: list[str] = []
    try:
        config = settings(root)
        {"engines": _engines, "driver": _driver, "reboot": _reboot}[step](config, did, root)
    except (_Unmended, Unsaid, unload.NotFreed) as error:
        wrong.append(str(error))
    except OSError as error:
        wrong.append(f"what is stopped cannot be written down: {error}")
    failed = "; ".join(wrong) or None
    return {"format": FORMAT, "step": step, "ok": not wrong, "did": did, "failed": failed}


def _engines(config: Settings, did: list[str], root: Path) -> None:
    failed = []
    for one in engines(config):
        # One that is switched off stays so; one that failed is started, whatever systemd's limit says.
        if call("systemctl", "is-enabled", "--", one.unit, within_s=_CALL_S).out.strip() in (
            "disabled",
            "masked",
        ):
            continue
        call("systemctl", "reset-failed", "--", one.unit, within_s=_CALL_S)
        done = call("systemctl", "restart", "--", one.unit, within_s=_CALL_S)
        if done.ok:
            did.append(f"restarted {one.unit}")
        else:
            failed.append(f"{one.unit} does not start: {done.why}")
    if failed:
        raise _Unmended("; ".join(failed))


def _driver(config: Settings, did: list[str], root: Path) -> None:
    if not config.gate.get("reload_driver"):
        raise _Unmended("the rack file does not allow to reload the driver (gate reload_driver)")
    if not (root / "sys/module" / _MODULE).exists():
        raise _Unmended(f"{_MODULE} is not loaded")
    units = [one.unit for one in engines(config) if unload.is_active(one.unit)]
    unload.remember(unload.Stopped(units=tuple(units)), root)
    try:
        for unit in reversed(units):
            unload.stop(unit)
            did.append(f"stopped {unit}")
        _require_unused(root)
        for argv in (("rmmod", _MODULE), ("modprobe", _MODULE)):
            done = call(*argv, within_s=_CALL_S)
            if not done.ok:
                raise _Unmended(f"{' '.join(argv)}: {done.why}")
        did.append(f"loaded {_MODULE} anew")
    finally:
        wrong = unload.restore(config, root)
        did += [f"started {unit}" for unit in units]
    if wrong:
        raise _Unmended("; ".join(wrong))


def _require_unused(root: Path) -> None:
    until = time.monotonic() + _FREE_WITHIN_S
    while users := sorted(_users(root)):
        if time.monotonic() > until:
            raise _Unmended(
                f"{_MODULE} is in use by {', '.join(f'{pid} {name_of(pid, root)}' for pid in users)}"
            )
        time.sleep(_POLL_S)


def _users(root: Path) -> Iterable[int]:
    """Yield the processes that have the device open."""
    for process in (root / "proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            targets = {str(link.readlink()) for link in (process / "fd").iterdir()}
        except OSError:
            continue  # it ended
        if any(target == _DEVICE or target.startswith(f"{_DEVICE}-") for target in targets):
            yield int(process.name)


def _reboot(config: Settings, did: list[str], root: Path) -> None:
    if not config.gate.get("reboot"):
        raise _Unmended("the rack file does not allow to reboot this host (gate reboot)")
    because = lastlook.busy_because(lastlook.looked(config, root, _PEOPLE))
    if because:
        raise _Unmended(f"it is not rebooted under somebody's hands: {because}")
    done = call(
        *("systemd-run", "--quiet", "--no-block", "--collect", "--unit=labctl-reboot", "--on-active=2s"),
        *("--timer-property=AccuracySec=100ms", "--description=Reboot by labctl, to mend this host"),
        *("busctl", "call", *ways.MANAGER, "RebootWithFlags", "t", "1"),
        within_s=_CALL_S,
    )
    if not done.ok:
        raise _Unmended(f"systemd does not reboot it: {done.why}")
    did.append("reboots in 2 s")
