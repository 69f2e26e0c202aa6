"""Decide how a run over many hosts ended: one exit code and one sentence.

The rules are read from the top, and the first that fits decides:

===========================================================  ====  =========================================
the person stopped it (Ctrl-C, or "no" at the question)       130  some hosts may be done
a host failed: it was reached and something went wrong there    1  whatever the others did
every host is as wanted                                         0
some hosts are done; others were unreachable or not run         4  partial: run it again when they are back
no host was reached                                             3
===========================================================  ====  =========================================

So 1 means "look at a host", 4 means "nothing is broken, but not everything was reached", and 3 usually means
"look at your network, key or VPN". ``plan --exit-code`` turns a 0 into 10 when something would change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from labctl.domain.problem import ExitCode

Status = Literal["ok", "failed", "unreachable", "not-run", "interrupted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the exit code, and the sentence that says why it is that one."""

    code: ExitCode
    because: str


def judge(statuses: Mapping[str, Status], *, interrupted: bool = False) -> Outcome:
    """Return how a run ended that left each host, by name, in the given status."""

    def named(*wanted: Status) -> list[str]:
        return [host for host, status in statuses.items() if status in wanted]

    of_all = f"of {counted(len(statuses), 'host')}"
    failed, done = named("failed"), named("ok")
    if interrupted:
        return Outcome(ExitCode.INTERRUPTED, f"interrupted; {len(done)} {of_all} finished")
    if failed:
        return Outcome(ExitCode.HOST_FAILED, f"{len(failed)} {of_all} failed: {', '.join(failed)}")
    if len(done) == len(statuses):
        return Outcome(ExitCode.OK, f"{counted(len(done), 'host')} ok")
    left = named("unreachable", "not-run", "interrupted")
    if done:
        return Outcome(ExitCode.PARTIAL, f"{len(done)} {of_all} finished; not done: {', '.join(left)}")
    if named("interrupted"):
        return Outcome(ExitCode.INTERRUPTED, "interrupted; no host finished")
    return Outcome(ExitCode.UNREACHABLE, f"no host could be reached: {', '.join(left)}")


def counted(count: int, noun: str) -> str:
    """Return ``1 host``, ``2 hosts``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
