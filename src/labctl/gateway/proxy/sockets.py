"""What is set on sockets, so that a peer without power is noticed.

A host that was suspended or unplugged says nothing any more: neither FIN nor reset. Bytes that it doesn't
acknowledge end the connection after ``SILENT_S``; a connection where nothing is under way is probed
(``KEEPALIVE``: after 5 s, then each 2 s, 3 times). A request with a large body is given ``PATIENT_S``
instead: a server that is busy may not read it for a while, and TCP_USER_TIMEOUT counts a closed window as
silence (Linux, ``tcp_probe_timer``).

Clients get ``CLIENT_SILENT_S``: a client that went to sleep in the midst of a stream keeps a host awake no
longer than that, and so does one that stops reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

SILENT_S = 5
PATIENT_S = 60
CLIENT_SILENT_S = 60
KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
CLIENT_KEEPALIVE = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 4))
LARGE = 64 * 1024

_CLOSED, _CLOSE_WAIT = 7, 8  # include/net/tcp_states.h


def tune_upstream(transport: asyncio.BaseTransport) -> None:
    """Set the options of a connection to an upstream."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    be_patient(transport, SILENT_S)


def be_patient(transport: asyncio.BaseTransport, seconds: int) -> None:
    """Let a connection's bytes be unacknowledged for so long."""
    with contextlib.suppress(OSError):  # it was reset meanwhile, which its protocol is told
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def tune_listener(sock: socket.socket) -> None:
    """Set the options that accepted connections inherit from the socket that listens.

    The socket unit says the same, as far as systemd has words for it, of connections that come before us.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in CLIENT_KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_SILENT_S * 1000)


def peer_has_left(transport: asyncio.BaseTransport) -> bool:
    """Return whether a peer hung up that we don't read from now, and so don't hear."""
    sock = transport.get_extra_info("socket")
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, AttributeError):  # no TCP, or gone
        return False
    return state in (_CLOSED, _CLOSE_WAIT)
