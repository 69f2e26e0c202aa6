"""Look into a host and act in it from outside, without its network and without its sshd.

Commands enter the namespaces of the host's first process. Files are read through the sandbox's view of the
host's disk, so a digest is the same whether the host runs, hangs or is off, and taking it changes nothing.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shlex
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from labctl.domain.problem import LabctlError
from labctl.lab import commands

_RELEASE_S = 10.0
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
_HOLD = (
    "import fcntl, sys\n"
    "held = [open(path, 'w') for path in sys.argv[1:]]\n"
    "for file in held: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


def run(
    leader: int, argv: Sequence[str], *, timeout: float, stdin: str, host: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a command as root in the host whose first process is ``leader``.

    Raises:
        LabctlError: it took longer than ``timeout`` seconds, or failed and ``host`` is given to name in the
        error.
    """
    with subprocess.Popen(
        _enter(leader, argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            out, err = _communicate(child, stdin, timeout)
        except subprocess.TimeoutExpired:
            # The command itself is a child of nsenter in another process namespace; the session is both.
            os.killpg(child.pid, signal.SIGKILL)
            raise LabctlError(
                f"`{shlex.join(argv)}` did not end within {timeout:g} s", host=host or ""
            ) from None
    return ended(argv, child.returncode, out, err, host=host)


def ended(
    argv: Sequence[str], status: int, out: str, err: str, *, host: str | None
) -> subprocess.CompletedProcess[str]:
    """Return what came of a command.

    Raises:
        LabctlError: it failed and ``host`` is given to name in the error.
    """
    if host is not None and status:
        raise LabctlError(f"`{shlex.join(argv)}` ended with status {status}: {err.strip()}", host=host)
    return subprocess.CompletedProcess(list(argv), status, out, err)


@contextmanager
def holding_locks(leader: int) -> Iterator[None]:
    """Hold the package manager's locks in a host, by a process of its own.

    Raises:
        LabctlError: somebody else holds one of them.
    """
    with subprocess.Popen(
        _enter(leader, ["python3", "-c", _HOLD, *_LOCKS]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            raise LabctlError("the package manager's locks are held by somebody else")
        try:
            yield
        finally:
            _communicate(holder, "", _RELEASE_S)


def digest(root: Path, roots: Sequence[str], exclude: Sequence[str]) -> str:
    """Return a digest of the files below ``roots`` of the tree at ``root``."""
    total = hashlib.sha256()
    for top in sorted(roots):
        for path in _walk(root, root / top.lstrip("/"), exclude):
            total.update(_describe(path, f"/{path.relative_to(root)}"))
    return total.hexdigest()


def packages(root: Path) -> dict[str, str]:
    """Return the installed packages of the tree at ``root`` with their versions."""
    shown = commands.run(
        "dpkg-query",
        f"--admindir={root}/var/lib/dpkg",
        "--show",
        "--showformat=${db:Status-Abbrev}|${Package}|${Version}\n",
    )
    rows = (line.split("|") for line in shown.splitlines())
    return {name: version for status, name, version in rows if status.startswith("ii")}


def _enter(leader: int, argv: Sequence[str]) -> list[str]:
    spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
    clean = ("env", "-i", f"PATH={commands.PATH}", "HOME=/root", "LANG=C.UTF-8")
    return [*commands.PLAIN_ENV, "nsenter", "--target", str(leader), *spaces, "--", *clean, *argv]


def _communicate(child: subprocess.Popen[str], stdin: str, timeout: float) -> tuple[str, str]:
    """Feed a child, wait for its end, and keep it from standing still.

    A host that shuts down stops all of its processes before it kills them. nsenter sees its child stop, stops
    itself, and would wait for ever for somebody to continue it.
    """
    deadline = monotonic() + timeout
    given: str | None = stdin
    while True:
        try:
            return child.communicate(given, min(0.5, max(0.0, deadline - monotonic())))
        except subprocess.TimeoutExpired:
            if monotonic() >= deadline:
                raise
            given = None
            os.kill(child.pid, signal.SIGCONT)


def _walk(root: Path, path: Path, exclude: Sequence[str]) -> Iterator[Path]:
    if any(fnmatch.fnmatch(f"/{path.relative_to(root)}", pattern) for pattern in exclude):
        return
    yield path
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(root, child, exclude)


def _describe(path: Path, name: str) -> bytes:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return f"{name}\0absent\n".encode()
    kind = stat.S_IFMT(status.st_mode)
    content = ""
    if kind == stat.S_IFREG:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif kind == stat.S_IFLNK:
        content = str(path.readlink())
    size = 0 if kind == stat.S_IFDIR else status.st_size
    line = f"{name}\0{status.st_mode:o}\0{status.st_uid}\0{status.st_gid}\0{size}\0{content}\n"
    return line.encode(errors="surrogateescape")
