"""Arming a network card for Wake-on-LAN now, and proof that it is armed.

The card is found by its MAC. Three cases that look alike are told apart, because a host that was put to sleep
with a card that does not listen needs somebody to walk to it: a card that can and is armed or gets armed; a
real card that cannot, which fails loudly; and an interface without hardware behind it (a container's veth),
which cannot sleep either, so it is only said and passed over. What ``ethtool`` was told is read back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pyinfra import logger
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import OperationValueError
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops.command import Commands, Script, operation

_LOOK = """\
command -v ethtool >/dev/null || echo no-ethtool
for dir in /sys/class/net/*; do
  read -r mac <"$dir/address" || continue
  if [ -e "$dir/bonding_slave/perm_hwaddr" ]; then read -r mac <"$dir/bonding_slave/perm_hwaddr"; fi
  [ "$mac" = "$1" ] || continue
  if [ -e "$dir/device" ]; then kind=physical; else kind=virtual; fi
  echo "card ${dir##*/} $kind"
  ethtool "${dir##*/}" 2>/dev/null | sed -n \\
    -e 's/^[[:space:]]*Supports Wake-on: */can /p' -e 's/^[[:space:]]*Wake-on: */does /p'
  password=$(ethtool "${dir##*/}" 2>/dev/null | sed -n 's/^[[:space:]]*SecureOn password: *//p')
  if [ -n "$password" ]; then printf %s "$password" | sha256sum | sed 's/^/password /'; fi
done 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A network card: letters of the wake-ups that it ``can`` do and ``does``; None where it reports none."""

    interface: str
    physical: bool
    can: str | None = None
    does: str | None = None
    password_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Cards:
    """The interfaces that carry one MAC, and whether ethtool was there to ask them."""

    found: tuple[Card, ...] = ()
    asked: bool = True

    def best(self) -> Card | None:
        """Return the card itself rather than a bridge or bond that borrows its MAC; None without any."""
        return max(self.found, key=lambda card: card.physical, default=None)


class CardsWithMac(FactBase[Cards]):
    """The interfaces of a host that carry a MAC address, and what they say of Wake-on-LAN."""

    def command(self, mac: str) -> StringCommand:
        """Return the command; it never fails on a host without ethtool."""
        return StringCommand("sh", "-c", QuoteString(_LOOK), "labctl-wol", QuoteString(mac.lower()))

    @override
    @staticmethod
    def default() -> Cards:
        """Return what is known of a host without that card."""
        return Cards()

    @override
    def process(self, output: list[str]) -> Cards:
        """Read the lines of the command."""
        cards: list[dict[str, str]] = []
        asked = True
        for line in output:
            key, _, value = line.partition(" ")
            if key == "no-ethtool":
                asked = False
            elif key == "card":
                interface, _, kind = value.partition(" ")
                cards.append({"interface": interface, "kind": kind})
            elif cards and key in ("can", "does", "password"):
                cards[-1][key] = value.split()[0] if value.split() else ""
        found = tuple(
            Card(
                card["interface"],
                card["kind"] == "physical",
                card.get("can"),
                card.get("does"),
                card.get("password"),
            )
            for card in cards
        )
        return Cards(found, asked)


def _arm(card: Card, secureon: str | None) -> Script:
    if secureon is None:
        return Script("wol", card.interface)
    return Script("wol-secureon", card.interface, stdin=secureon + "\n")


def _refusal(card: Card, letter: str) -> str | None:
    """Return why a card cannot be armed, or None when it can."""
    if card.can is not None and letter in card.can:
        return None
    what = "SecureOn packets" if letter == "s" else "magic packets"
    return (
        f"network card {card.interface} cannot wake this host by {what}: "
        f"it supports {card.can or 'no wake-up at all'} (ethtool {card.interface}); "
        "use another card or another kind of wake in the inventory"
    )


@operation
def armed(mac: str, secureon: str | None = None) -> Commands:
    """Arm the network card with this MAC to wake the host by a magic packet.

    Args:
        mac: of the card, lower case with colons.
        secureon: password that the packet must carry, written like a MAC.

    Raises:
        OperationValueError: no card has that MAC, or the card is real and cannot be armed.
    """
    cards: Cards = host.get_fact(CardsWithMac, mac=mac)
    card = cards.best()
    if card is None:
        raise OperationValueError(
            f"no network card of this host has MAC {mac}; `ip link` on it shows those that are there"
        )
    if not cards.asked:
        yield _arm(card, secureon)
        return
    letter = "g" if secureon is None else "s"
    if card.can is None and not card.physical:
        logger.warning(f"{host.name}: {card.interface} is no real network card, so there is nothing to arm")
        host.noop(f"{card.interface} is a virtual interface without Wake-on-LAN")
        return
    if refusal := _refusal(card, letter):
        raise OperationValueError(refusal)
    known = secureon is None or card.password_sha256 == hashlib.sha256(secureon.encode()).hexdigest()
    if letter in (card.does or "") and known:
        host.noop(f"{card.interface} listens for magic packets")
        return
    yield _arm(card, secureon)
