"""Starting a new rack: a folder ``inventory`` with the commented example and a key pair of its own.

All or nothing: everything is written into a hidden folder beside the goal, which one rename then puts in
place. An existing ``inventory`` is never touched, and a folder that was made on the way is removed again on
failure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.problem import LabctlError, Problem

_GITIGNORE = """\
# Private keys stay on this machine. known_hosts is no secret: commit it, so that all refuse wrong hosts.
/keys/*
!/keys/*.pub
"""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What was made: the rack file and the operator's public key."""

    rack: Path
    public_key: Path


def key_pair(comment: str) -> tuple[bytes, bytes]:
    """Return a new ed25519 key pair in OpenSSH's form: private (no passphrase), public with the comment."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b" " + comment.encode() + b"\n"


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def _fill(folder: Path, example: bytes) -> None:
    private, public = key_pair("labctl-operator")
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    _write(keys / "operator", private, 0o600)
    _write(keys / "operator.pub", public, 0o644)
    _write(folder / ".gitignore", _GITIGNORE.encode(), 0o644)
    _write(folder / "rack.py", example, 0o644)


def _make(folder: Path) -> Path | None:
    """Create the folder and what is above it; return the topmost folder that was missing, if any."""
    missing = None
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing = path
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def create(folder: Path, example: bytes) -> Scaffold:
    """Create ``folder/inventory`` with the example rack and a new key pair.

    Raises:
        LabctlError: it exists already, or cannot be written; nothing is left behind.
    """
    goal = folder.absolute() / "inventory"
    if os.path.lexists(goal):
        hint = f"choose another folder, or edit {goal / 'rack.py'}"
        raise LabctlError([Problem("exists already; nothing was changed", hint=hint, file=str(goal))])
    made: Path | None = None
    draft: Path | None = None
    try:
        made = _make(goal.parent)
        draft = Path(tempfile.mkdtemp(prefix=".inventory-", dir=goal.parent))
        _fill(draft, example)
        draft.chmod(0o755)
        draft.rename(goal)
    except BaseException as error:
        for left in (draft, made):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)
        if isinstance(error, OSError):
            reason = f"cannot be made: {error.strerror or error}"
            raise LabctlError([Problem(reason, file=str(goal))]) from None
        raise
    return Scaffold(goal / "rack.py", goal / "keys" / "operator.pub")
