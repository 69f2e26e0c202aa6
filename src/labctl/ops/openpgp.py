"""The fingerprint of an armored OpenPGP public key, computed here so that it is compared before use.

Why not ``gpg``: a minimal Debian host has gpgv but no gpg, the operator's laptop may have neither, and the
libraries on PyPI are large for the one thing needed. A fingerprint is a hash over the key packet (RFC 9580,
section 5.5.4), so reading packet headers is enough. No signature is checked here; apt does that.

The rule: exactly one block, in it exactly one primary key, no secret key. apt trusts *every* key in the file
that Signed-By names, so a second key beside the expected one would be trusted without having been compared.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

_BLOCK = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
_PUBLIC_KEY, _SECRET = 6, {5, 7}


def normalized(fingerprint: str) -> str:
    """Return a full fingerprint in upper case without spaces; raise ``ValueError`` for anything shorter."""
    compact = re.sub(r"[\s:]", "", fingerprint).upper()
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", compact):
        raise ValueError(f"{fingerprint!r} is no full fingerprint (40 or 64 hexadecimal digits)")
    return compact


def fingerprint(armored: str) -> str:
    """Return the fingerprint of the one public key in ``armored``; raise ``ValueError`` with the reason."""
    packets = list(_packets(_dearmor(armored)))
    if any(tag in _SECRET for tag, _ in packets):
        raise ValueError("it holds a secret key")
    primary = [body for tag, body in packets if tag == _PUBLIC_KEY]
    if len(primary) != 1:
        raise ValueError(f"it holds {len(primary)} primary keys, expected exactly one")
    body = primary[0]
    version = body[0] if body else 0
    if version == 4:
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
        return digest.hexdigest().upper()
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError(f"its version is {version}, expected 4 or 6")


def _dearmor(armored: str) -> bytes:
    blocks = _BLOCK.findall(armored)
    if len(blocks) != 1 or armored.count("-----BEGIN PGP") != 1:
        raise ValueError(f"it holds {len(blocks)} armored public key blocks, expected exactly one")
    lines = [line.strip() for line in blocks[0].splitlines()]
    # Headers such as "Comment:" end at the first empty line; without any, the data starts at once.
    headers = [index for index, line in enumerate(lines) if not line]
    start = headers[0] + 1 if headers and all(":" in line for line in lines[: headers[0]]) else 0
    data = [line for line in lines[start:] if line and not (line.startswith("=") and len(line) == 5)]
    try:
        return base64.b64decode("".join(data), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its armor is damaged ({error})") from error


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each packet's tag and body; raise ``ValueError`` when the data ends early."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError("it is no OpenPGP data")
        tag, (start, length) = (
            (head & 0x3F, _new_length(data, at + 1))
            if head & 0x40
            else (head >> 2 & 0x0F, _old_length(data, at + 1, head & 3))
        )
        if start + length > len(data):
            raise ValueError("it ends in the middle of a packet")
        yield tag, data[start : start + length]
        at = start + length


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at] if at < len(data) else 255
    if first < 192:
        return at + 1, first
    if first < 224 and at + 1 < len(data):
        return at + 2, (first - 192 << 8) + data[at + 1] + 192
    if first == 255 and at + 5 <= len(data):
        return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    raise ValueError("it holds a packet of a kind that keys do not use")


def _old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind == 3:
        raise ValueError("it holds a packet of a kind that keys do not use")
    size = 1 << kind
    return at + size, int.from_bytes(data[at : at + size], "big")
