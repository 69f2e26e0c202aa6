"""PCI addresses, which every driver spells in its own way; also on hosts: Python 3.9, standard library."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.ASCII | re.IGNORECASE
)


def address(text: str | None) -> str | None:
    """Return ``0000:3b:00.0`` for ``3b:00.0`` and NVIDIA's ``00000000:3B:00.0``; None where it is none."""
    found = _ADDRESS.fullmatch(text or "")
    if not found:
        return None
    domain, bus, device, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function}"
