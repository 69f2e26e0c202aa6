"""What can be wrong, in a form that a person can act on.

Every expected failure is a ``Problem``: what is wrong, where (file and line, host, field), and what to do.
Bad input yields all of its problems at once, so ``LabctlError`` carries several. The exit codes are part of
the interface: scripts and cron depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every labctl command; never renumber."""

    OK = 0
    HOST_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    PARTIAL = 4
    CHANGES_PENDING = 10
    INTERNAL = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: ``reason`` says what, ``hint`` what to do, the rest where."""

    reason: str
    hint: str = ""
    file: str = ""
    line: int | None = None
    host: str = ""
    field: str = ""

    def __str__(self) -> str:
        """Return one line, ``file:line: host gpu-box: field: reason (hint)``, leaving out what is unknown."""
        place = self.file + (f":{self.line}" if self.file and self.line else "")
        parts = [place, f"host {self.host}" if self.host else "", self.field, self.reason]
        text = ": ".join(part for part in parts if part)
        return f"{text} ({self.hint})" if self.hint else text


class LabctlError(Exception):
    """An expected failure: shown as its problems, without a traceback, ending in ``code``."""

    def __init__(
        self,
        what: str | Iterable[Problem],
        *,
        hint: str = "",
        host: str = "",
        code: ExitCode = ExitCode.BAD_INPUT,
    ) -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(what, hint=hint, host=host),) if isinstance(what, str) else tuple(what)
        )
        self.code = code
        super().__init__("\n".join(str(problem) for problem in self.problems))
