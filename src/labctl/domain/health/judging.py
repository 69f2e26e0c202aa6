"""All checks, over one host and over the rack.

A host that did not speak is judged by who it is, whether it should have spoken, and what the controller says
of it; nothing is said of its parts, neither good nor bad: what was found of them in earlier runs still
stands. A check that fails by itself is UNKNOWN and a bug of labctl's, and takes no other with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from .expected import ExpectedRack
from .terms import Case, Check, Level, RackCheck, Result

CHECKS: tuple[Check, ...] = ()
RACK_CHECKS: tuple[RackCheck, ...] = ()


def judge(case: Case) -> tuple[Result, ...]:
    """Return what all checks find of one host, in the order of ``CHECKS``."""
    return tuple(one for check in CHECKS for one in _kept(check.code, case.host, partial(check.judge, case)))


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
