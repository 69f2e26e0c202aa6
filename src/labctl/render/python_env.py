"""Python environments: is a requirements file locked, what identifies it, and where its packages come from.

Each line names one version and its hashes, as ``uv pip compile --generate-hashes`` writes it. Options in the
file that would fetch from elsewhere are refused, since the inventory says that; and so is every version that
is known to do harm, whoever asks for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from labctl.domain.problem import LabctlError, Problem
from labctl.inventory.engines import KNOWN_BAD, PythonEnv

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)")
_PINNED = re.compile(r"===?\s*([^\s;,\\]+)")
_HASH = re.compile(r"--hash[= ]sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})\b")


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Yield requirements with the number of their first line; comments and empty lines are left out."""
    first, held = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        part = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        first = first if held else number
        if part.endswith("\\"):
            held += f"{part[:-1].strip()} "
            continue
        held += part.strip()
        if held.strip():
            yield first, held.strip()
        held = ""
    if held.strip():
        yield first, held.strip()


def checked(text: str, file: str) -> bytes:
    """Return the requirements as they are sent to a host.

    Args:
        text: of the requirements file.
        file: its name, for whoever reads what is wrong.

    Raises:
        LabctlError: with every line that is not locked, or is known to do harm.
    """
    problems = [
        Problem(reason, hint, file, line)
        for line, requirement in _logical(text)
        for reason, hint in _wrong(requirement)
    ]
    if not any(True for _ in _logical(text)):
        problems = [Problem("holds no requirement", _LOCK, file)]
    if problems:
        raise LabctlError(problems)
    return text.encode()


_LOCK = "make it with: uv pip compile --generate-hashes"


def _wrong(requirement: str) -> Iterator[tuple[str, str]]:
    if requirement.startswith("-"):
        option = requirement.split()[0]
        yield f"{option} belongs into the inventory", "say `index` or `wheels` of the PythonEnv(...)"
        return
    match = _NAME.match(requirement)
    name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
    pinned = _PINNED.search(requirement)
    if pinned and (reason := KNOWN_BAD.get((name, pinned[1]))):
        yield f"{name} {pinned[1]} {reason}", "pin another version"
    elif not name or (pinned is None and " @ " not in requirement):
        yield f"does not pin one version: {requirement[:60]}", _LOCK
    if not _HASH.search(requirement):
        yield f"{name or requirement[:60]} has no hash", _LOCK


def digest(build: PythonEnv, requirements: bytes) -> str:
    """Return what identifies an environment: everything that goes into it."""
    parts = [build.uv.sha256, build.python, hashlib.sha256(requirements).hexdigest()]
    parts += [] if build.archive is None else [build.archive.sha256]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def sources(build: PythonEnv) -> tuple[str, ...]:
    """Return the options by which uv learns where packages come from."""
    if build.wheels is not None:
        return ("--no-index", "--find-links", build.wheels)
    return ("--index-url", build.index) if build.index is not None else ()
