"""Read files of the rack file's folder that go to a server's host: certificates, keys, addresses.

Each is looked at before anything is contacted, so that a server never starts with what it could not use.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from labctl.domain.problem import LabctlError

_KEY = b"PRIVATE KEY-----"
_CERTIFICATE = b"BEGIN CERTIFICATE-----"
_OTHERS = 0o077


def content(path: Path, who: str, *, hidden: bool) -> bytes:
    """Return what a file holds that ``who`` ("the gateway") needs.

    Raises:
        LabctlError: it cannot be read, or it is ``hidden`` and others may read it.
    """
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise LabctlError(
            f"{path}: {who} needs it: {error.strerror}",
            hint="write it, or take it out of the rack file",
        ) from None
    if hidden and mode & _OTHERS:
        raise LabctlError(
            f"others may read the secret in {path} (mode {mode & 0o777:o})", hint=f"chmod 600 {path}"
        )
    return data


def pem(path: Path, data: bytes, *, key: bool) -> bytes:
    """Return ``data`` if it is a private key, or a certificate without one.

    Raises:
        LabctlError: it is not.
    """
    if (_KEY if key else _CERTIFICATE) not in data:
        what = "private key" if key else "certificate"
        raise LabctlError(f"{path}: holds no {what} as PEM", hint="it begins with -----BEGIN")
    if not key and _KEY in data:
        # What a certificate says is shown by plans, and lies in a file that is no secret.
        raise LabctlError(
            f"{path}: holds a private key beside the certificate", hint="put it into a file of its own"
        )
    return data


def pair(certificate: Path, key: Path, who: str) -> None:
    """Prove that ``who`` could serve with a certificate and its key; raise ``LabctlError``."""

    def encrypted() -> str:
        raise LabctlError(
            f"{key}: wants a passphrase, which nobody can type for {who}",
            hint=f"openssl pkey -in {key} -out NEW",
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=encrypted)
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror
        raise LabctlError(
            f"{certificate} and {key} are no certificate and its private key: {why}",
            hint="the certificate comes first in its file, then those that signed it",
        ) from None
