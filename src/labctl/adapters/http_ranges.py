"""Read pieces of a file over HTTP, so that its header can be looked at without fetching 40 GB.

Each piece is one request with a ``Range``. A server that does not know ranges answers with the whole file;
its answer is closed before it has come, and refused. What comes is counted, and more than was asked for is
refused as well; so is a server that keeps the connection busy without getting anywhere.

A token goes to the host that was named, over https or to this machine, and to nobody else: hubs redirect to
other hosts for the bytes, and those links carry their own permission.
"""

from __future__ import annotations

import ipaddress
import re
import time
from urllib.parse import urljoin, urlsplit

import httpx

from labctl.domain.problem import LabctlError

TIMEOUT_S = 30.0
CONNECT_S = 6.0
"""Most seconds until a server takes the connection: racks without the internet shall not wait long."""
PATIENCE = 4
"""How many times as long as for one step is waited for all of a piece."""
MOST_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_HINTS = {
    401: "it is gated: give the model a `token`",
    403: "it is gated: give the model a `token`, and accept its terms on the hub's page",
    404: "is the address right?",
}


class HttpRanges:
    """The port ``Ranges`` for one address."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """Ask for nothing yet; ``timeout_s`` is for each step of a request."""
        self._origin = url
        self._url = url
        self._token = token
        self._patience_s = timeout_s * PATIENCE
        self._size: int | None = None
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
        self._client = httpx.Client(timeout=timeout, follow_redirects=False, trust_env=True)

    def __enter__(self) -> HttpRanges:
        """Keep the connection for several pieces."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._client.close()

    @property
    def name(self) -> str:
        """Return the address without what may hold a permission."""
        return self._origin.partition("?")[0]

    @property
    def size(self) -> int:
        """Return the file's length; asks for its first byte if nothing was asked for yet."""
        if self._size is None:
            self.read(0, 1)
        assert self._size is not None
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return a piece of the file; see ``ports.Ranges.read``."""
        headers = {"range": f"bytes={offset}-{offset + length - 1}", "accept-encoding": "identity"}
        try:
            for _ in range(MOST_REDIRECTS + 1):
                with self._client.stream("GET", self._url, headers=headers | self._permission()) as answer:
                    if answer.status_code not in _MOVED:
                        return self._piece(answer, offset, length)
                    self._url = self._next(answer)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            ValueError,
        ) as error:  # what a redirect names may be no address
            raise LabctlError(
                f"{self.name}: cannot be read: {str(error) or type(error).__name__}",
                hint="is the server up, and reachable from here?",
            ) from error
        raise LabctlError(f"{self.name}: is redirected more than {MOST_REDIRECTS} times")

    def _permission(self) -> dict[str, str]:
        """Return the token's header for the host that it is for."""
        here, first = urlsplit(self._url), urlsplit(self._origin)
        same = (here.scheme, here.netloc) == (first.scheme, first.netloc)
        safe = here.scheme == "https" or _is_loopback(here.hostname)
        return {"authorization": f"Bearer {self._token}"} if self._token and same and safe else {}

    def _next(self, answer: httpx.Response) -> str:
        target: str = urljoin(self._url, answer.headers.get("location", ""))
        parts = urlsplit(target)
        downgraded = urlsplit(self._url).scheme == "https" and parts.scheme != "https"
        if parts.scheme not in ("http", "https") or not parts.netloc or downgraded:
            raise LabctlError(f"{self.name}: is redirected to {parts.scheme or 'nowhere'}, which is refused")
        return target

    def _piece(self, answer: httpx.Response, offset: int, length: int) -> bytes:
        code = answer.status_code
        if code == 200:
            raise LabctlError(
                f"{self.name}: its server cannot send parts of a file, and all of it is not fetched for this",
                hint="a server with range requests can (nginx, any hub); or fetch the model first",
            )
        if code != 206:
            raise LabctlError(f"{self.name}: its server answers {code}", hint=_HINTS.get(code, ""))
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if match is None or int(match[1]) != offset:
            raise LabctlError(f"{self.name}: its server sent another part than was asked for")
        size = int(match[3])
        if self._size not in (None, size):
            raise LabctlError(f"{self.name}: it changed while it was read", hint="try again")
        self._size = size
        data = bytearray()
        until = time.monotonic() + self._patience_s
        for piece in answer.iter_raw():
            data += piece
            if time.monotonic() > until:
                raise LabctlError(
                    f"{self.name}: its server sent {len(data)} of {length} bytes in {self._patience_s:g} s",
                    hint="try again when the network is less busy",
                )
            if len(data) > length:
                raise LabctlError(f"{self.name}: its server sent more than was asked for")
        if len(data) != min(length, size - offset):
            raise LabctlError(f"{self.name}: the connection ended early", hint="try again")
        return bytes(data)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
