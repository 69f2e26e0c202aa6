"""Reading the pinned host keys, strictly.

SSH libraries skip what they cannot read, and one of them then accepts any key for the host on that line.
Here a line is understood completely or it stops labctl with its number. Accepted is what ``labctl enroll``
writes, ``names keytype base64 [comment]``, besides blank lines and comments. Refused on purpose:

- hashed names (``|1|...``): labctl looks hosts up by name, also to say which are missing, and a person must
  be able to read what is pinned; hashing hides nothing here, the names stand in ``rack.py`` beside it;
- patterns and negations (``*``, ``?``, ``!``): one key for many hosts is not pinning;
- ``@cert-authority`` and ``@revoked``: paramiko does not honour them, so they would promise what nobody
  keeps;
- two different keys of one type for one name: one of them is wrong, and nobody knows which;
- names in capitals, or fields separated by more than one blank: paramiko would not find such a host.

Fingerprints are OpenSSH's: SHA-256 of the key in unpadded base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.problem import LabctlError, Problem

_SIMPLE_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?", re.ASCII
)
_PORT_NAME = re.compile(r"\[([^\[\]]+)\]:([0-9]{1,5})", re.ASCII)
KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class KnownHost:
    """One pinned key: its names (``address`` or ``[address]:port``), its type, and the key in base64."""

    names: tuple[str, ...]
    keytype: str
    key_b64: str
    line: int = 0


class _Unreadable(ValueError):
    """Why a line is refused, and what to do about it."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


def name_for(address: str, port: int = 22) -> str:
    """Return the name under which OpenSSH and paramiko look a host up."""
    return address if port == 22 else f"[{address}]:{port}"


def fingerprint(key_b64: str) -> str:
    """Return the fingerprint as ``ssh-keygen -l`` prints it: ``SHA256:`` and 43 characters."""
    digest = hashlib.sha256(base64.b64decode(key_b64)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _check_name(name: str) -> None:
    if name != name.lower():
        raise _Unreadable(f"a name in capitals ({name[:80]!r})", "write it in lower case")
    if name.startswith("|"):
        raise _Unreadable("a hashed name", "labctl needs names that can be read; enroll the host again")
    if name.startswith("!") or "*" in name or "?" in name:
        raise _Unreadable(f"a pattern ({name})", "pin each host by its own name")
    inner = name
    if match := _PORT_NAME.fullmatch(name):
        inner = match[1]
        if not 1 <= int(match[2]) <= 65535:
            raise _Unreadable(f"a port that does not exist ({match[2]})")
    if not _SIMPLE_NAME.fullmatch(inner):
        raise _Unreadable(f"a name that is no host name or address ({name[:80]!r})")


def _check_key(keytype: str, key_b64: str) -> None:
    if keytype not in KEY_TYPES:
        raise _Unreadable(f"an unknown key type ({keytype[:40]!r})", "known are " + ", ".join(KEY_TYPES))
    try:
        blob = base64.b64decode(key_b64, validate=True)
    except (binascii.Error, ValueError):
        raise _Unreadable(
            "a key that is not valid base64", "the line may have been cut; enroll again"
        ) from None
    fields = _ssh_strings(blob)
    if not fields or fields[0] != keytype.encode():
        raise _Unreadable(
            f"a key that is not of the type {keytype} that the line says",
            "remove it and enroll the host again",
        )
    wanted = {"ssh-ed25519": 2, "ssh-rsa": 3}.get(keytype, 3)
    if len(fields) != wanted or not all(fields):
        raise _Unreadable("a key that is cut short or too long", "enroll the host again")
    if keytype == "ssh-ed25519":
        if len(fields[1]) != 32:
            raise _Unreadable("an ed25519 key of the wrong length", "enroll the host again")
    elif not _cryptography_reads(f"{keytype} {key_b64}"):
        raise _Unreadable(f"no valid {keytype} key", "enroll the host again")


def _cryptography_reads(key: str) -> bool:
    """Return whether the numbers in an RSA or ECDSA key make sense to the library that will use it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        load_ssh_public_key(key.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _ssh_strings(blob: bytes) -> list[bytes] | None:
    """Split an SSH wire blob into its length-prefixed strings; None when the lengths do not add up."""
    parts, at = [], 0
    while at < len(blob):
        if at + 4 > len(blob):
            return None
        size = int.from_bytes(blob[at : at + 4], "big")
        at += 4
        if at + size > len(blob):
            return None
        parts.append(blob[at : at + size])
        at += size
    return parts


def _parse_line(text: str, number: int) -> KnownHost:
    fields = re.split("[ \t]", text)
    if fields[0].startswith("@"):
        raise _Unreadable(f"a marker ({fields[0][:40]})", "labctl pins plain host keys only; remove the line")
    if len(fields) < 3 or not all(fields[:3]):
        raise _Unreadable(
            "something else than `names keytype key`, one blank apart",
            "remove the line and enroll the host again",
        )
    names = tuple(fields[0].split(","))
    for name in names:
        _check_name(name)
    _check_key(fields[1], fields[2])
    return KnownHost(names, fields[1], fields[2], number)


def _conflicts(entries: Iterable[KnownHost], file: str) -> list[Problem]:
    seen: dict[tuple[str, str], KnownHost] = {}
    found = []
    for entry in entries:
        for name in entry.names:
            first = seen.setdefault((name, entry.keytype), entry)
            if first.key_b64 != entry.key_b64:
                found.append(
                    Problem(
                        f"{name} has another {entry.keytype} key on line {first.line}",
                        hint="one is wrong: compare with the host's console, remove the other line",
                        file=file,
                        line=entry.line,
                    )
                )
    return found


def parse(text: str, file: str) -> tuple[KnownHost, ...]:
    """Read the text of a known_hosts file; ``file`` is the name used in errors.

    Raise ``LabctlError`` with every line that cannot be read.
    """
    entries: list[KnownHost] = []
    problems: list[Problem] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r").strip(" \t")
        # paramiko takes a lone carriage return for the end of a line, so a comment could hide a key from us.
        if "\r" not in line and (not line or line.startswith("#")):
            continue
        try:
            if not line.isascii() or not line.replace("\t", " ").isprintable():
                raise _Unreadable("unreadable characters", "remove the line and enroll the host again")
            entries.append(_parse_line(line, number))
        except _Unreadable as error:
            problems.append(Problem(f"this line holds {error}", hint=error.hint, file=file, line=number))
    problems += _conflicts(entries, file)
    if problems:
        raise LabctlError(problems)
    return tuple(entries)


def load(path: Path) -> tuple[KnownHost, ...]:
    """Read the file strictly; a missing file holds no keys. Raise ``LabctlError`` when it cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise LabctlError([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from None
    if len(data) > _MAX_BYTES:
        raise LabctlError([Problem("is larger than any file of host keys", file=str(path))])
    try:
        return parse(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(
            "this line is not text",
            hint="remove the line and enroll the host again",
            file=str(path),
            line=line,
        )
        raise LabctlError([problem]) from None


def render(entries: Iterable[KnownHost]) -> str:
    """Return the text of a known_hosts file, one entry a line; ``parse`` reads it back."""
    return "".join(f"{','.join(entry.names)} {entry.keytype} {entry.key_b64}\n" for entry in entries)


def lookup(entries: Iterable[KnownHost], address: str, port: int = 22) -> tuple[KnownHost, ...]:
    """Return the keys pinned for that address and port."""
    wanted = name_for(address, port).lower()
    return tuple(entry for entry in entries if wanted in entry.names)
