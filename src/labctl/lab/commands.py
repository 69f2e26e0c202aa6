"""Run the machine's own tools: one door, argument lists only, errors that name the command.

Tools are looked up on a fixed path, because root's PATH lacks the sbin directories after a plain ``su``.
Messages are asked for in English, since some are matched.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess

from labctl.domain.problem import LabctlError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLAIN_ENV = ("/usr/bin/env", f"PATH={PATH}", "LC_ALL=C.UTF-8")


def find(tool: str) -> str | None:
    """Return the absolute path of ``tool``, or None where the machine lacks it."""
    return shutil.which(tool, path=PATH)


def attempt(*argv: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` and return its result, whatever its exit status.

    Raises:
        LabctlError: it took longer than ``timeout`` seconds.
    """
    try:
        return subprocess.run(
            [*PLAIN_ENV, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise LabctlError(f"`{shlex.join(argv)}` did not end within {timeout:g} s") from None


def run(*argv: str, stdin: str = "", timeout: float = 120) -> str:
    """Run ``argv`` and return what it wrote to its standard output.

    Raises:
        LabctlError: it failed or took longer than ``timeout`` seconds.
    """
    done = attempt(*argv, stdin=stdin, timeout=timeout)
    if done.returncode:
        said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        failed = f"`{shlex.join(argv)}` ended with status {done.returncode}"
        raise LabctlError(f"{failed}: {said or 'it said nothing'}")
    return done.stdout
