"""Power caps of a host: whether every present card has what it should have, by the cards' own word.

The agent on the host compares (``caps --show``, which changes nothing) and applies (the unit, which reads
back). Here it is decided whether the unit must run: when the declared caps on the host are not those of the
inventory, when a card that is there has another limit, when the unit's last run failed, or when nobody can
say, as on a host without the agent yet. A card that is not there is said and is no change: the caps of the
others hold, and no apply can put a card in. Neither does a driver that is not at work yet, which usually
waits for a reboot: without it no card draws much, and when it comes, it brings the unit with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops import diff
from labctl.ops.command import Commands, Script, operation
from labctl.ops.facts import CONTENT, Look, look

_LOOK = """\
sha256sum -- "$1" 2>/dev/null | cut -d ' ' -f 1 | sed 's/^/sha256 /'
echo "unit $(systemctl show -p ActiveState --value -- "$2" 2>/dev/null)"
if [ -x "$3" ]; then "$3" caps --show 2>/dev/null | tr -d '\\n' | sed 's/^/caps /'; echo; fi
"""
# JSON has no comments, so no header of ours: by this line the file of declared caps is known.
_OURS = '"format": 1'
_RIGHT = ("unchanged", "missing", "no-cap")
_DRIVER = "driver-"


@dataclass(frozen=True, slots=True)
class Capped:
    """What a host says of its caps; ``answer`` is None where the agent cannot say."""

    sha256: str = ""
    failed: bool = False
    answer: dict[str, Any] | None = None

    def cards(self, *statuses: str, but: bool = False) -> list[dict[str, Any]]:
        """Return the cards in one of these states, or with ``but`` those in any other."""
        found = (self.answer or {}).get("cards") or []
        return [card for card in found if (card.get("status") in statuses) is not but]

    @property
    def driver_trouble(self) -> str:
        """Return why a driver does not work, or "" where all that are needed do."""
        found = (self.answer or {}).get("findings") or []
        return next((str(one.get("what")) for one in found if str(one.get("code")).startswith(_DRIVER)), "")


class Caps(FactBase[Capped]):
    """The declared caps that lie on a host, the last run of the unit, and what the agent sees."""

    def command(self, path: str, unit: str, agent: str) -> StringCommand:
        """Return the command; it never fails."""
        words = (path, unit, agent)
        return StringCommand("sh", "-c", QuoteString(_LOOK), "labctl-caps", *map(QuoteString, words))

    @override
    @staticmethod
    def default() -> Capped:
        """Return what is known of a host that was never asked."""
        return Capped()

    @override
    def process(self, output: list[str]) -> Capped:
        """Read one ``key value`` a line."""
        said = dict(line.partition(" ")[::2] for line in output)
        try:
            answer = json.loads(said.get("caps", ""))
        except (ValueError, RecursionError):
            answer = None
        return Capped(
            said.get("sha256", ""),
            said.get("unit") == "failed",
            answer if isinstance(answer, dict) and isinstance(answer.get("cards"), list) else None,
        )


def _name(card: dict[str, Any]) -> str:
    where = card.get("slot") or card.get("pci") or card.get("uuid") or "a card"
    return f"{where} ({card['name']})" if card.get("name") else str(where)


def _watts(value: object) -> str:
    return f"{value:g} W" if isinstance(value, int | float) else "no limit that it tells"


def _notes(seen: Capped) -> list[str]:
    """Return what is not as it should be, as said to a person."""
    notes = ["its last run failed"] if seen.failed else []
    for card in seen.cards(*_RIGHT, but=True):
        if card.get("status") == "would-change":
            notes.append(f"{_name(card)}: {_watts(card.get('before_w'))} -> {_watts(card.get('after_w'))}")
        else:
            notes.append(f"{_name(card)}: {card.get('why') or card.get('status')}")
    return notes


@operation
def applied(path: str, content: str, *, unit: str, agent: str) -> Commands:
    """Have every card that is there at its cap.

    Args:
        path: the file of declared caps.
        content: what it shall hold.
        unit: applies the caps, and fails if a card does not take its own.
        agent: the program that is asked what the cards have.
    """
    seen: Capped = host.get_fact(Caps, path=path, unit=unit, agent=agent)
    for card in seen.cards("missing"):
        logger.warning(f"{host.name}: {_name(card)} is in the inventory and not on the host")
    if seen.driver_trouble and not seen.cards("would-change", "refused"):
        logger.warning(f"{host.name}: caps wait for the driver: {seen.driver_trouble}")
        host.noop("the unit applies the caps when the driver comes")
        return
    notes = _notes(seen)
    fresh = hashlib.sha256(content.encode()).hexdigest() != seen.sha256
    if seen.answer is not None and not notes and not fresh:
        host.noop("every card that is there has its cap")
        return
    if notes:
        diff.show(unit, b"", b"", notes=notes)
    yield Script("caps", unit, timeout_s=180)


@operation
def forgotten(path: str) -> Commands:
    """Remove the file of declared caps, if it is one; anything else in its place is left alone."""
    (info,) = look(Look(path, CONTENT))
    if info.kind != "file" or _OURS.encode() not in b"\n".join((info.content or b"").split(b"\n", 3)[:3]):
        host.noop(f"there are no declared caps in {path}")
        return
    diff.show(path, info.content, None)
    yield Script("remove", path, _OURS, "")
