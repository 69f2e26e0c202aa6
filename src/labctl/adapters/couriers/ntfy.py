"""ntfy: a letter becomes a message of a topic.

It is published as JSON at the server's root, so that any sign may be in it. The letter's id is the message's
``sequence_id``: servers from 2.16 on show a second message with the same one in place of the first, and every
server keeps messages for some hours (12 at ntfy.sh), in which ``has`` can find it.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit, urlunsplit

from labctl.adapters.couriers import asking
from labctl.domain.health.terms import Level
from labctl.ports.letters import CourierError, Letter

_PRIORITY = {Level.OK: 3, Level.UNKNOWN: 3, Level.WARN: 4, Level.CRIT: 5}
_TAGS = {Level.OK: "white_check_mark", Level.UNKNOWN: "grey_question", Level.WARN: "warning"}
_LONGEST = 4000  # bytes; what is longer than 4096 becomes an attachment


class Ntfy:
    """A topic of a server."""

    def __init__(self, address: str, token: str | None) -> None:
        """Ask for nothing yet; ``address`` is that of the topic."""
        parts = urlsplit(address)
        root, _, topic = parts.path.rstrip("/").rpartition("/")
        self._topic = topic
        self._root = urlunsplit((parts.scheme, parts.netloc, f"{root}/", "", ""))
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def send(self, letter: Letter) -> None:
        """Publish a letter; see ``ports.letters.Courier``."""
        text = letter.text.encode()[:_LONGEST].decode("utf-8", "ignore")
        document = {
            "topic": self._topic,
            "title": letter.title,
            "message": text,
            "priority": _PRIORITY[letter.level],
            "tags": [_TAGS.get(letter.level, "rotating_light")],
            "sequence_id": letter.id,
        }
        asking.post(self._root, document, self._headers)

    def has(self, letter_id: str) -> bool:
        """Return whether the server still shows a message with that id."""
        try:
            shown = asking.get(f"{self._root}{self._topic}/json?poll=1&since=12h", self._headers)
        except CourierError:
            return False
        for line in shown.splitlines():
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(message, dict) and message.get("sequence_id") == letter_id:
                return True
        return False
