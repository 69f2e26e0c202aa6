"""Start a program for a moment: its own process group, a deadline, nothing of ours in its hands.

It is ended with all that it started when its time is over, and by the kernel when this process is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .terms import Unreadable, plain

_OUTPUT_MAX = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "HOME": "/"}
_PDEATHSIG = shutil.which("setpriv", path=_PATH)


class Done(NamedTuple):
    """How a program ended and what it printed."""

    status: int
    output: str


def run(argv: Sequence[str], limit_s: float, *, user: int | None = None) -> Done:
    """Run a program and return what it printed to standard output.

    Args:
        argv: an absolute path and its arguments.
        limit_s: seconds after which it and all that it started are killed.
        user: number of the user (and group) that it runs as; only root may ask for that.

    Raises:
        Unreadable: it could not be started, or did not end in time.
    """
    if not os.access(argv[0], os.X_OK):
        raise Unreadable(plain(f"{argv[0]} is not there to be run"))
    words = [*((_PDEATHSIG, "--pdeathsig", "KILL", "--") if _PDEATHSIG else ()), *argv]
    who: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            **who,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Unreadable(plain(f"{argv[0]} could not be started: {error}")) from None
    until = time.monotonic() + limit_s
    try:
        output = _output(child, until)
        if len(output) >= _OUTPUT_MAX:
            child.kill()
        child.wait(timeout=max(0.01, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise Unreadable(plain(f"{argv[0]} did not end within {limit_s:g} s")) from None
    finally:
        _end(child)
    return Done(child.returncode, output.decode(errors="replace"))


def _output(child: subprocess.Popen[bytes], until: float) -> bytes:
    """Return what a child prints, until it ends, its time is over, or it has printed too much."""
    assert child.stdout is not None
    data = b""
    while len(data) < _OUTPUT_MAX:
        left = until - time.monotonic()
        if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
            raise subprocess.TimeoutExpired(child.args, 0)
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece:
            break
        data += piece
    return data


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of a child's group; one that sits in the kernel is not waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.stdout is not None:
        child.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
