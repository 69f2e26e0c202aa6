"""Webhooks: Discord's, Slack's, or a plain JSON object for whatever else there is.

The letter's id goes along as ``Idempotency-Key``, and in the plain form as a field, so that a receiver can
drop a second copy. What hosts say must not call people or make links: Discord is told to follow no mention,
and for Slack the three signs that its markup knows are escaped.
"""

from __future__ import annotations

from typing import Any, Literal

from labctl.adapters.couriers import asking
from labctl.ports.letters import Letter

_DISCORD_LONGEST = 2000
_SLACK_LONGEST = 3000


class Webhook:
    """An address that takes letters by POST."""

    def __init__(self, address: str, form: Literal["plain", "discord", "slack"]) -> None:
        """Ask for nothing yet."""
        self._address = address
        self._form = form

    def send(self, letter: Letter) -> None:
        """Post a letter; see ``ports.letters.Courier``."""
        asking.post(self._address, self._document(letter), {"Idempotency-Key": letter.id})

    def has(self, letter_id: str) -> bool:
        """Return False: a webhook can only be written to."""
        return False

    def _document(self, letter: Letter) -> dict[str, Any]:
        if self._form == "discord":
            text = _cut(f"{letter.title}\n{letter.text}", _DISCORD_LONGEST)
            return {"content": text, "allowed_mentions": {"parse": []}}
        if self._form == "slack":
            text = f"{letter.title}\n{letter.text}"
            escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return {"text": _cut(escaped, _SLACK_LONGEST)}
        return {
            "id": letter.id,
            "level": letter.level.name,
            "over": letter.well,
            "again": letter.again,
            "title": letter.title,
            "text": letter.text,
        }


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
