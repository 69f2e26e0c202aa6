"""Tell systemd how we are: ready, alive, stopping, and one line of status (sd_notify(3)).

One datagram to the socket that systemd named; without one, nothing happens. A message that cannot be sent is
dropped: systemd then notices by the watchdog, which is what it is for.
"""

from __future__ import annotations

import socket


class SystemdNotify:
    """``Notify`` to the socket at ``address``, as ``NOTIFY_SOCKET`` names it; None: to nobody.

    ``patience_s`` is how long it may wait for a place in systemd's queue; 0, in an event loop: not at all.
    """

    def __init__(self, address: str | None, patience_s: float = 1.0) -> None:
        self._address = address
        self._patience_s = patience_s
        if address is not None and address.startswith("@"):
            self._address = "\0" + address[1:]  # an abstract socket, as systemd writes its name

    def ready(self, status: str) -> None:
        """Say that we are up."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def alive(self, status: str) -> None:
        """Say that we live; this feeds the watchdog."""
        self._send(f"WATCHDOG=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that we are about to end."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(self._patience_s)
                sock.sendto(text.encode(), self._address)
        except OSError:
            return


def _line(text: str) -> str:
    return " ".join(text.split())
