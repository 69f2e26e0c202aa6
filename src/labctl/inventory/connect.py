"""The transport under every SSH connection: no Nagle delay.

paramiko leaves Nagle's algorithm on; with delayed acknowledgements on the other side it costs about 40 ms for
every command. pyinfra passes ``transport_factory`` through to paramiko, so the socket option is set there.
paramiko is imported on the first connection only, because inventories are also read where it is not needed.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramiko.transport import Transport


def nodelay_transport(sock: Any, **options: Any) -> Transport:
    """Build paramiko's transport over ``sock`` with ``TCP_NODELAY`` set.

    A proxied connection has no such option to set; it is used as it is.
    """
    from paramiko.transport import Transport

    if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Transport(sock, **options)
