"""Run a program of this machine to its end, or end it: one deadline, a bounded memory, no shell.

The program gets a process group of its own, so that on the deadline it goes with all of its children; one
that is done is believed even if a child of its keeps the output open. What it printed is kept at its end
only, where programs say what went wrong, and is cleaned before anybody reads it: words of its command line
and what looks like a password are left out, since people write passwords into command lines.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labctl.ports.power import PowerError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_BYTES = 4096
_SHOWN = 300
_SECRETS = re.compile(
    r"(?i)(://)[^/\s@]+@"
    r"|(\b(?:authorization|password|passwd|passphrase|pass|pwd|secret|token|api[-_ ]?key)\b[\"']?\s*[:= ]\s*)"
    r"(?:(?:basic|bearer|digest)\s+)?(?:\"[^\"]*\"?|'[^']*'?|[^\s\"'&,;]+)"
)
_LEAST = 4  # shorter words say nothing, and are in everything


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and the end of what it printed on both ways."""

    status: int
    output: str


def run(
    argv: Sequence[str],
    *,
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Run a program with no input.

    Args:
        argv: program and arguments; it is looked for in the usual places.
        deadline_s: seconds until it is killed.
        environment: its variables; default: ours.
        pass_fds: file descriptors that it keeps.

    Raises:
        PowerError: it is not there (no-program), or did not end (timeout).
    """
    name = argv[0].rpartition("/")[2]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name cannot be one"
        raise PowerError("no-program", f"{name} cannot be run: {reason}", "is it installed here?") from None
    with process:
        try:
            output = _watched(process, time.monotonic() + deadline_s)
        except TimeoutError:
            raise PowerError(
                "timeout",
                f"{name} did not end in {deadline_s:g} s, and was ended",
                "run it by hand",
                transient=True,
            ) from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Ended(process.returncode, output.decode("utf-8", "replace"))


def _watched(process: subprocess.Popen[bytes], until: float) -> bytes:
    """Return the end of what a program printed, when it has ended; raise ``TimeoutError`` on the deadline."""
    assert process.stdout is not None
    kept = b""
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            os.set_blocking(process.stdout.fileno(), False)
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while process.poll() is None:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                for key, _ in selector.select(left):
                    if key.fileobj is process.stdout:
                        piece = process.stdout.read(65536)
                        if not piece:
                            selector.unregister(process.stdout)
                        kept = (kept + (piece or b""))[-_KEPT_BYTES:]
        if not process.stdout.closed:
            kept = (kept + (process.stdout.read(1 << 20) or b""))[-_KEPT_BYTES:]
        return kept
    finally:
        os.close(ended)


def last_words(output: str, hidden: Iterable[str]) -> str:
    """Return the last line of an output for an error, without what is hidden or looks like a secret."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    words = {part for word in hidden for part in (word, *re.split("[:=@]", word)) if len(part) >= _LEAST}
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, "***")
    text = _SECRETS.sub(lambda match: f"{match[1] or match[2]}***" + ("@" if match[1] else ""), text)
    return "".join(char if char.isprintable() else "?" for char in text)[-_SHOWN:]
