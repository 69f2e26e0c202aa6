"""The ``.link`` file by which a network card is armed for Wake-on-LAN at every boot.

It matches by the card's permanent MAC, so a bridge or bond that borrows the address is left alone, and its
name holds the MAC rather than the interface, whose name may change.
"""

from __future__ import annotations

import re

from labctl import render
from labctl.domain.problem import LabctlError
from labctl.inventory import WakeOnLan

DIRECTORY = "/etc/systemd/network"
PREFIX = "50-labctl-wol-"


def path(wake: WakeOnLan) -> str:
    """Return where the ``.link`` file of that card lies."""
    return f"{DIRECTORY}/{PREFIX}{wake.mac.replace(':', '')}.link"


def link(wake: WakeOnLan, *, secureon: str | None) -> str:
    """Return the ``.link`` file.

    Args:
        wake: the card.
        secureon: the password that the card shall ask for; the text is a secret then.
    """
    return render.text("wol.link.j2", mac=wake.mac, secureon=secureon)


def password(text: str) -> str:
    """Return the SecureOn password in a file's text, normalised to ``aa:bb:cc:dd:ee:ff``.

    Raises:
        LabctlError: the file holds something else; what it holds is not repeated.
    """
    digits = re.sub(r"[:.\s-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise LabctlError(
            "secureon_file does not hold a SecureOn password",
            hint="six bytes written like a MAC, such as 01:23:45:67:89:ab",
        )
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
