"""Carry bytes between a process's standard streams and the controller's socket, for whoever comes by SSH.

It adds nothing and reads no meaning into anything. It ends when either side does: when the socket closes, or
when nobody reads its output any more. The end of its input only means that no more requests come.
"""

from __future__ import annotations

import os
import select
import socket

_CHUNK = 65536


def connect(sock: socket.socket, reader: int, writer: int) -> None:
    """Carry bytes until one side is gone; ``reader`` and ``writer`` are descriptors."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(reader, select.POLLIN)
    poll.register(writer, 0)  # says when its other end is closed
    while True:
        for found, event in poll.poll():
            if found == writer:
                return
            if found == reader:
                data = os.read(reader, _CHUNK)
                if data:
                    sock.sendall(data)
                else:
                    poll.unregister(reader)
                    sock.shutdown(socket.SHUT_WR)
            elif found == sock.fileno() and event:
                data = sock.recv(_CHUNK)
                if not data:
                    return
                _write(writer, data)


def _write(writer: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(writer, view) :]
