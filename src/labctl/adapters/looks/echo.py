"""Echo requests without privilege: ICMP datagram sockets (icmp(7)), for IPv4 and IPv6.

The kernel puts in the identifier and the checksum and gives us only the answers to our own. Whether a group
may have such sockets is said by ``net.ipv4.ping_group_range``; systemd's own settings allow it to all, which
not every Debian takes over, and a bare kernel to nobody.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct

_REQUEST, _REPLY = 8, 0
_REQUEST_6, _REPLY_6 = 128, 129
_TELL, _TELL_6 = (socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25)  # IP_RECVERR, IPV6_RECVERR


class Echo:
    """Calls one address; ``socket`` is None where that is not allowed."""

    def __init__(self, address: str) -> None:
        """Call nobody yet."""
        six = ":" in address
        self._request, self._reply = (_REQUEST_6, _REPLY_6) if six else (_REQUEST, _REPLY)
        self._address = address
        self._token = secrets.token_bytes(16)
        self._sent = 0
        self.socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self.socket = socket.socket(
                socket.AF_INET6 if six else socket.AF_INET,
                socket.SOCK_DGRAM,
                socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP,
            )
            self.socket.setblocking(False)
            # Only then does the kernel tell of "no route" from a router, or from its own ARP.
            self.socket.setsockopt(*(_TELL_6 if six else _TELL), 1)

    def close(self) -> None:
        """Hear nothing more."""
        if self.socket is not None:
            self.socket.close()

    def send(self) -> None:
        """Send one request.

        Raises:
            OSError: it could not be sent; PermissionError: such sockets are not allowed.
        """
        if self.socket is None:
            raise PermissionError
        if not self._sent:
            self.socket.connect((self._address, 0))
        self._sent += 1
        self.socket.send(struct.pack(">BBHHH", self._request, 0, 0, 0, self._sent) + self._token)

    def heard(self) -> bool:
        """Return whether an answer to one of ours has come.

        Raises:
            OSError: a router, or our own kernel, says that it cannot be reached.
        """
        assert self.socket is not None
        try:
            data = self.socket.recv(2048)
        except BlockingIOError:
            return False
        return len(data) >= 8 and data[0] == self._reply and data[8:] == self._token
