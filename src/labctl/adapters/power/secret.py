"""Secrets of back-ends: the first line of a file that only its owner may read, read anew for each use.

They are longer and stranger than keys (a BMC's password may hold anything that can be typed), and reach
other programs only by ways that nobody else can look into.
"""

from __future__ import annotations

from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.inventory.secrets import first_line
from labctl.ports.power import PowerError


def read(path: Path, *, what: str = "password") -> str:
    """Return the secret in a file.

    Raises:
        PowerError: it is not there, others may read it, or it is empty; the words name the file.
    """
    try:
        found = first_line(path, mend="umask 077; cat >")
    except LabctlError as error:
        problem = error.problems[0]
        raise PowerError("no-secret", problem.reason, problem.hint) from None
    if not found:
        raise PowerError("no-secret", f"the {what} in {path} is empty", f"write it there: cat >{path}")
    return found
