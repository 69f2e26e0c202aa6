"""What PostgreSQL stores of a password (SCRAM-SHA-256, RFC 5802 and 7677), made without PostgreSQL.

So the password itself never reaches the host of the database: neither an argument, nor a statement that a log
could hold, nor a file. The salt comes from the password, the host and the role by HMAC, so that the same
password always gives the same verifier and a second run can see that nothing is to be changed; who knows the
salt learns nothing that the verifier would not tell.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

ITERATIONS = 4096  # PostgreSQL's own default


def keys(secret: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """Return the stored key and the server's key of a password (RFC 5802, section 3)."""
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return stored, hmac.digest(salted, b"Server Key", "sha256")


def verifier(password: str, *, host: str, role: str) -> str:
    """Return the text for ``ALTER ROLE ... PASSWORD``.

    Raises:
        ValueError: the password is not plain ASCII, for which normalising (SASLprep) would be needed.
    """
    if not password.isascii() or not password.isprintable() or not password:
        raise ValueError("a password of a database must be printable ASCII")
    secret = password.encode()
    salt = hmac.digest(secret, f"labctl {host} {role}".encode(), "sha256")[:16]
    stored, server = keys(secret, salt, ITERATIONS)
    parts = (base64.b64encode(part).decode("ascii") for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ITERATIONS, *parts)
