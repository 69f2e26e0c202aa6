"""A lock that keeps everybody else from putting this host to sleep, or down, while we look at it.

systemd-inhibit holds it for as long as its program runs, and its program is ``cat`` on a pipe of ours: that
it echoes a line proves that the lock is held, and that we end, however we end, closes the pipe and frees it.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
from collections.abc import Iterator

_TAKEN_WITHIN_S = 10.0
_FREED_WITHIN_S = 5.0


class NotTaken(Exception):
    """The lock cannot be had, and why."""


@contextlib.contextmanager
def held(why: str) -> Iterator[None]:
    """Hold the lock while the block runs.

    Raises:
        NotTaken: it cannot be had.
    """
    argv = (
        "systemd-inhibit",
        "--what=sleep:shutdown",
        "--mode=block",
        "--who=labctl-agent",
        f"--why={why}",
        "cat",
    )
    pipe = subprocess.PIPE
    try:
        holder = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise NotTaken(f"systemd-inhibit: {error}") from None
    try:
        _wait(holder)
        yield
    finally:
        _free(holder)


def _wait(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin and holder.stdout
    try:
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        ready, _, _ = select.select([holder.stdout], [], [], _TAKEN_WITHIN_S)
        if ready and holder.stdout.read(1) == b"\n":
            return
    except OSError:
        pass
    raise NotTaken("logind gives no inhibitor lock, so nothing would keep others from putting it to sleep")


def _free(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin and holder.stdout
    with contextlib.suppress(OSError):
        holder.stdin.close()
    holder.stdout.close()
    try:
        holder.wait(_FREED_WITHIN_S)
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.wait()
