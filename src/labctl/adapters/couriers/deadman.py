"""The dead man's switch: a service elsewhere that calls people when it is not asked in time.

The form is that of healthchecks.io and its kin: ADDRESS after a run, ADDRESS/fail after one that is bad; a
short text may go along.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from labctl.adapters.couriers import asking

_LONGEST = 10_000  # bytes


class DeadMan:
    """One check of such a service."""

    def __init__(self, address: str) -> None:
        """Ask for nothing yet."""
        self._address = address

    def alive(self, *, failed: bool, text: str) -> None:
        """Say that a whole run came to its end; see ``ports.letters.Ping``."""
        parts = urlsplit(self._address)
        path = f"{parts.path.rstrip('/')}/fail" if failed else parts.path
        asking.send(urlunsplit(parts._replace(path=path)), text.encode()[:_LONGEST])
