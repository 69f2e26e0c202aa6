"""The controller's line in ``authorized_keys``: a key that can ask for the agent's orders and nothing else.

``restrict`` takes away everything that an SSH key may do (terminals, forwarding of ports, agent and X11,
user rc files, and whatever a later OpenSSH invents); the forced command replaces whatever the other end wants
to run, subsystems like sftp included. The key itself is taken apart and put together again, so that nothing
but a key and its comment can come through: a second line, options in front, or a private key are refused.
"""

from __future__ import annotations

import base64
import binascii
import re

from labctl.domain.problem import LabctlError

AGENT_PATH = "/usr/local/lib/labctl/agent.pyz"
FORCED = f'command="{AGENT_PATH} --forced",restrict'

# How many length-prefixed parts a key of each type has, its own name included.
_PARTS = {
    "ssh-ed25519": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-rsa": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
_ED25519_BYTES = 32
_RSA_BITS = 2048
_COMMENT = re.compile(r"[A-Za-z0-9@._+:/ -]{0,200}", re.ASCII)
_HINT = "give the one line of the controller's .pub file, as ssh-keygen wrote it"


def authorized_keys_line(pubkey: str) -> str:
    """Return the ``authorized_keys`` line, without a newline, that limits this public key to the agent.

    Raises:
        LabctlError: the text is not exactly one plain public key of a kind that is worth trusting.
    """
    if "PRIVATE KEY" in pubkey:
        raise LabctlError("this is a private key; it must not leave its machine", hint=_HINT)
    line = pubkey.strip(" \t\r\n")
    if not line.isascii() or not line.replace("\t", " ").isprintable():
        raise LabctlError("the public key is not one line of plain text", hint=_HINT)
    keytype, _, rest = line.replace("\t", " ").partition(" ")
    key_b64, _, comment = rest.strip().partition(" ")
    if keytype not in _PARTS:
        raise LabctlError(
            f"the public key does not begin with a known type ({', '.join(_PARTS)})",
            hint=f"{_HINT}, without options in front of it",
        )
    _check(keytype, key_b64)
    if not _COMMENT.fullmatch(comment.strip()):
        raise LabctlError("the public key's comment holds unusual characters", hint=_HINT)
    return " ".join(part for part in (FORCED, keytype, key_b64, comment.strip()) if part)


def _check(keytype: str, key_b64: str) -> None:
    """Raise unless the base64 is one whole key of that type."""
    try:
        blob = base64.b64decode(key_b64, validate=True)
    except (binascii.Error, ValueError):
        raise LabctlError("the public key is not valid base64", hint=_HINT) from None
    parts = _parts(blob)
    if parts[:1] != [keytype.encode()] or len(parts) != _PARTS[keytype] or not all(parts):
        raise LabctlError(f"the public key is not a whole {keytype} key", hint=_HINT)
    if base64.b64encode(blob).decode() != key_b64:
        raise LabctlError("the public key is written in an unusual way", hint=_HINT)
    if "ed25519" in keytype and len(parts[1]) != _ED25519_BYTES:
        raise LabctlError("the ed25519 key has the wrong length", hint=_HINT)
    if keytype == "ssh-rsa" and int.from_bytes(parts[2], "big").bit_length() < _RSA_BITS:
        raise LabctlError(
            f"the RSA key has fewer than {_RSA_BITS} bits", hint="make a new one: ssh-keygen -t ed25519"
        )


def _parts(blob: bytes) -> list[bytes]:
    """Return the length-prefixed parts of a key, or none where the lengths do not add up."""
    parts: list[bytes] = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        if at + 4 + size > len(blob):
            return []
        parts.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return parts
