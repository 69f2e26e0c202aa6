"""Read a file from its address: http, https or a file on this host, from where an earlier try was cut.

A server that cannot resume is read from the start, and what is here already is passed over, so that nothing
is written or hashed twice. A token goes to the host of the address and to no other: a redirection to another
host, port or scheme loses it. Only http and https are followed.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import unquote, urlsplit

SILENCE_S = 60.0
MOST_PATIENCE_S = 120
"""How long a server that is asked too often may keep us waiting before it is asked again."""
CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_PORTS = {"http": 80, "https": 443}


class SourceError(Exception):
    """An address did not give the file; ``final`` where asking it again would change nothing.

    ``after_s``: for how many seconds its server wants to be left alone.
    """

    def __init__(self, reason: str, *, final: bool = False, after_s: int = 0) -> None:
        self.final, self.after_s = final, after_s
        super().__init__(reason)


class _Redirections(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {newurl[:200]}, which is not followed")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and _origin(req.full_url) == _origin(newurl):
            for name, value in req.unredirected_hdrs.items():
                new.add_unredirected_header(name, value)
        return new


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


class Source:
    """An open address; ``size``: bytes of the whole file, None where nobody tells."""

    def __init__(self, url: str, token: str, offset: int) -> None:
        self.url = url
        self._pass_over = 0
        if url.startswith("file://"):
            self._open_file(unquote(url[len("file://") :]), offset)
        else:
            self._open_http(token, offset)

    def _open_file(self, path: str, offset: int) -> None:
        try:
            stream = open(path, "rb")  # noqa: PTH123, SIM115
        except OSError as error:
            raise SourceError(f"{self.url}: {error.strerror}", final=True) from None
        self.size: int | None = os.fstat(stream.fileno()).st_size
        stream.seek(offset)
        self._stream: Any = stream

    def _open_http(self, token: str, offset: int) -> None:
        request = urllib.request.Request(self.url, headers={"User-Agent": "labctl", "Accept": "*/*"})
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            self._stream = urllib.request.build_opener(_Redirections).open(request, timeout=SILENCE_S)
        except urllib.error.HTTPError as error:
            error.close()
            denied = " (does its token allow it?)" if error.code in (401, 403) else ""
            again = error.code == 429 or error.code >= 500
            told = error.headers.get("Retry-After", "")
            after_s = min(int(told), MOST_PATIENCE_S) if told.isascii() and told.isdecimal() else 0
            reason = f"{self.url} answered {error.code}{denied}"
            raise SourceError(reason, final=not again, after_s=after_s) from None
        except urllib.error.URLError as error:
            raise SourceError(f"{self.url}: {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{self.url}: {error or type(error).__name__}") from None
        told = self._stream.headers.get("Content-Length", "")
        rest = int(told) if told.isdecimal() else None
        begins = self._begins(offset)
        self.size = None if rest is None else begins + rest
        self._pass_over = offset - begins

    def _begins(self, offset: int) -> int:
        """Return at which byte the answer begins; ``offset`` only where the server says so."""
        if self._stream.status != 206:
            return 0
        found = _RANGE.match(self._stream.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != offset:
            self.close()
            raise SourceError(f"{self.url} answered with another range than was asked for", final=True)
        return offset

    def read(self, most: int) -> bytes:
        """Return the next bytes, at most that many; empty at the end.

        Raises:
            SourceError: the connection broke or fell silent.
        """
        try:
            while self._pass_over:
                passed = self._stream.read(min(CHUNK, self._pass_over))
                if not passed:
                    return b""
                self._pass_over -= len(passed)
            found: bytes = self._stream.read(min(CHUNK, most))
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{self.url} broke off: {error or type(error).__name__}") from None
        return found

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
