"""Tell systemd how we are: ready, alive, stopping, and one line of status (sd_notify(3)).

One datagram to the socket that systemd named; without one, nothing happens. A message that cannot be sent is
dropped: systemd then notices by the watchdog, which is what it is for.
"""

from __future__ import annotations

import socket


class Notify:
    """Sends to the socket at ``address``, as ``NOTIFY_SOCKET`` names it; None: to nobody."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        if address is not None and address.startswith("@"):
            self._address = "\0" + address[1:]  # an abstract socket, as systemd writes its name

    def ready(self, status: str) -> None:
        """Say that we are up."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def alive(self, status: str) -> None:
        """Say that a tick ended."""
        self._send(f"WATCHDOG=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that we are about to end."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(text.encode(), self._address)
        except OSError:
            return


def _line(text: str) -> str:
    return " ".join(text.split())
