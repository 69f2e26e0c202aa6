"""Secure clients' connections by a certificate that may change under way.

Connections that are open keep what they began with. A new certificate is read whole and proven to fit its key
before anybody gets it, and a broken one changes nothing: the old one is served until it is mended.
"""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from labctl.domain.problem import LabctlError


class Certificate:
    """A certificate and its key in two files; ``context`` is what a listener is given, once and for ever.

    Raises:
        LabctlError: they can't be read, don't fit each other, or the key is open to everybody.
    """

    __slots__ = ("_certificate", "_key", "_now", "context")

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._now = self._read()
        self.context = self._read()
        # It is asked in each handshake, also of a client that names no server. The listener's context itself
        # can't be loaded anew: where that fails halfway, it has a certificate and a key of two pairs.
        self.context.sni_callback = self._pick

    def reload(self) -> None:
        """Read both files again; connections that come from now on get what they say.

        Raises:
            LabctlError: as for the class; then nothing has changed.
        """
        self._now = self._read()

    def _pick(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._now

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            if self._key.stat().st_mode & stat.S_IROTH:
                raise LabctlError(
                    f"everybody on this machine can read the private key {self._key}",
                    hint=f"chmod o-r {self._key}",
                )
            # An encrypted key would be asked for on a terminal, and nobody sits there.
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise LabctlError(
                f"{self._certificate} and {self._key} are no certificate and its private key:"
                f" {error.reason or error}",
                hint="both are PEM; the certificate comes first in its file, then those that signed it",
            ) from None
        except OSError as error:
            raise LabctlError(
                f"the certificate can't be read: {error.filename or self._certificate}: {error.strerror}"
            ) from None
        return context


def _no_password() -> str:
    raise LabctlError(
        "the private key is encrypted", hint="give the gateway one without a password, in a file of its own"
    )
