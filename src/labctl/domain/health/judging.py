"""All checks, over one host and over the rack.

A host that did not speak is judged by who it is, whether it should have spoken, and what the controller says
of it; nothing is said of its parts, neither good nor bad: what was found of them in earlier runs still
stands. A check that fails by itself is UNKNOWN and a bug of labctl's, and takes no other with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from .checks import disks, driver, gpus, heat, links, rackwide, reach, serving, system
from .expected import ExpectedRack
from .terms import Case, Check, Level, RackCheck, Result

CHECKS: tuple[Check, ...] = (
    reach.Reachable(),
    reach.Quarantined(),
    reach.WakeProof(),
    reach.WolArmed(),
    reach.AgentOld(),
    gpus.GpuPresent(),
    driver.DriverMismatch(),
    driver.XidSeen(),
    gpus.GpuRecovery(),
    gpus.Ecc(),
    gpus.RowRemap(),
    links.PcieWidth(),
    links.PcieGen(),
    links.PcieReplays(),
    heat.Temperature(),
    heat.Throttle(),
    heat.CapsDrift(),
    serving.EngineProgress(),
    serving.EnginePlacement(),
    serving.SwapConfig(),
    disks.DiskSpace(),
    disks.DiskSmart(),
    system.MemoryPressure(),
    system.ClockSkew(),
    system.Units(),
    system.RebootRequired(),
    system.Updates(),
    system.Certificates(),
)
RACK_CHECKS: tuple[RackCheck, ...] = (
    rackwide.Controller(),
    rackwide.PowerOver(),
    rackwide.Keys(),
)


def judge(case: Case) -> tuple[Result, ...]:
    """Return what all checks find of one host, in the order of ``CHECKS``."""
    return tuple(one for one in _all(case) if not _is_withheld(one))


def withheld(case: Case) -> frozenset[tuple[str, str, str]]:
    """Return the keys of what is there and cannot be judged now: what was found of it before still stands."""
    return frozenset(one.key for one in _all(case) if _is_withheld(one))


def _all(case: Case) -> Iterable[Result]:
    """Return one result for each thing; of two about the same (a host that names a disk twice) the worse."""
    found: dict[tuple[str, str, str], Result] = {}
    for check in CHECKS:
        for one in _kept(check.code, case.host, partial(check.judge, case)):
            there = found.setdefault(one.key, one)
            if one.level.gravity > there.level.gravity or _is_withheld(there):
                found[one.key] = one
    return found.values()


def _is_withheld(result: Result) -> bool:
    return result.level is Level.UNKNOWN and result.informs


def judge_rack(rack: ExpectedRack, cases: Iterable[Case], now: float) -> tuple[Result, ...]:
    """Return what is found of all hosts together; ``cases`` are those that were asked, ``now`` wall time."""
    asked = {case.host: case for case in cases}
    return tuple(
        one for check in RACK_CHECKS for one in _kept(check.code, "", partial(check.judge, rack, asked, now))
    )


def _kept(code: str, host: str, judged: Callable[[], Iterator[Result]]) -> list[Result]:
    """Return what a check yields; where it fails, what it yielded before and that it failed."""
    found: list[Result] = []
    try:
        found.extend(judged())
    except Exception as error:
        reason = f"the check itself failed: {type(error).__name__}: {error}"
        found.append(Result(code, Level.UNKNOWN, host, "", reason, "this is a bug of labctl's; report it"))
    return found
