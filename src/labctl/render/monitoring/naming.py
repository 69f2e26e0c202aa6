"""By which name Prometheus knows a server: one that its certificate bears, whatever address is scraped.

A certificate is made for the name that people use, and a scrape goes to an address, mostly loopback. Without
the name each scrape would fail, and each failure is a critical alert about a rack that is well.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from labctl.domain.problem import LabctlError


def name_for(path: Path, pem: str, address: str) -> str:
    """Return the name by which a certificate is checked at an address; empty: the address itself is in it.

    Raises:
        LabctlError: ``path`` holds no certificate, or one that bears no name that is checked.
    """
    from cryptography import x509

    try:
        leaf = x509.load_pem_x509_certificate(pem.encode())
        borne = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise _nameless(path) from None
    except ValueError:
        raise LabctlError(
            f"{path}: holds no certificate as PEM", hint="it begins with -----BEGIN CERTIFICATE-----"
        ) from None
    names = borne.get_values_for_type(x509.DNSName)
    addresses = [str(one) for one in borne.get_values_for_type(x509.IPAddress)]
    try:
        if str(ip_address(address)) in addresses:
            return ""
    except ValueError:
        if address in names:
            return ""
    # A name stands for itself; of one for many, any that it covers will do.
    for name in (*names, *addresses):
        return name.replace("*", "labctl", 1) if name.startswith("*.") else name
    raise _nameless(path)


def _nameless(path: Path) -> LabctlError:
    return LabctlError(
        f"{path}: the certificate bears no name that Prometheus checks (no subjectAltName)",
        hint='make one with: openssl req -x509 ... -addext "subjectAltName=DNS:NAME"',
    )
