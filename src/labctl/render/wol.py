"""The ``.link`` file by which a network card is armed for Wake-on-LAN at every boot.

It matches by the card's permanent MAC, so a bridge or bond that borrows the address is left alone, and its
name holds the MAC rather than the interface, whose name may change.
"""

from __future__ import annotations

from labctl import render
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
