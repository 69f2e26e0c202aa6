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
                if not _forward(os.read(reader, _CHUNK), sock):
                    poll.unregister(reader)
            elif found == sock.fileno() and event:
                try:
                    data = sock.recv(_CHUNK)
                except ConnectionResetError:  # it closed without reading all
                    return
                if not data:
                    return
                _write(writer, data)


def _forward(data: bytes, sock: socket.socket) -> bool:
    """Hand on what was said; return False when no more can be, though the other side is still heard."""
    try:
        if data:
            sock.sendall(data)
            return True
        sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return False


def _write(writer: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(writer, view) :]
