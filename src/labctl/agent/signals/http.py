"""Ask a server on this host something by HTTP, and read no more of the answer than is needed.

The standard library's client would cost a megabyte of modules in a process that lives long. HTTP/1.0 is
asked, so that an answer comes in one piece and ends with the connection.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from .terms import Unreadable

_URL = re.compile(r"http://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_PIECE = 1 << 16
ANSWER_MAX = 4 << 20
LATE = "it does not answer"
"""What the reasons of those that are silent begin with."""


class Answer(NamedTuple):
    """A status and as much of the body as was read."""

    status: int
    body: bytes


def place_of(url: str) -> tuple[str, int]:
    """Return host and port of an address such as ``http://127.0.0.1:8080``.

    Raises:
        Unreadable: it is none.
    """
    match = _URL.match(url)
    if match is None or not 0 < int(match[2]) < 65536:
        raise Unreadable("its address is not http://HOST:PORT")
    return match[1].strip("[]"), int(match[2])


def get(
    url: str, path: str, *, key: str = "", limit_s: float = 2.0, enough: Callable[[bytes], bool] | None = None
) -> Answer:
    """Return what a server answers.

    Args:
        url: its address.
        path: what is asked for.
        key: shown as a bearer token.
        limit_s: seconds for all of it.
        enough: whether what came of the body so far will do; for a stream that never ends.

    Raises:
        Unreadable: there is no whole answer in that time, or it is no HTTP.
    """
    until = time.monotonic() + limit_s
    words = [f"GET {path} HTTP/1.0", "Host: localhost", "Connection: close", "Accept: */*"]
    words += [f"Authorization: Bearer {key}"] if key else []
    try:
        with socket.create_connection(place_of(url), timeout=limit_s) as connection:
            connection.sendall("\r\n".join([*words, "", ""]).encode("latin-1", "replace"))
            return _answer(connection, until, enough)
    except ConnectionRefusedError:
        raise Unreadable("it does not listen") from None
    except (socket.timeout, TimeoutError):  # noqa: UP041 (two classes in Python 3.9)
        raise Unreadable(f"{LATE} within {limit_s:g} s") from None
    except OSError as error:
        raise Unreadable(f"{LATE}: {error.strerror or error}") from None


def _answer(connection: socket.socket, until: float, enough: Callable[[bytes], bool] | None) -> Answer:
    data = bytearray()
    head = -1
    while len(data) < ANSWER_MAX:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(_PIECE)
        if not piece:
            break
        data += piece
        if head < 0:
            head = data.find(b"\r\n\r\n")
        if enough is not None and head >= 0 and enough(bytes(data[head + 4 :])):
            break
    else:
        raise Unreadable("it answers without end")
    words = bytes(data[:head]).split(None, 2) if head >= 0 else []
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Unreadable("it does not speak HTTP")
    length = _LENGTH.search(data, 0, head + 2)
    if enough is None and length is not None and len(data) - head - 4 < int(length[1]):
        raise Unreadable("it ended in the middle of its answer")
    return Answer(int(words[1]), bytes(data[head + 4 :]))
