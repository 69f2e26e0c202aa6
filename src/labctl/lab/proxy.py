"""A small forward HTTP proxy, by which hosts without a way out use the machine's own apt archives.

It listens on the machine's address in the rack's network only, answers the rack's addresses only, and
fetches only what ``Allowed`` permits; all else is refused with the reason. Packages (``*.deb``) never
change under one name, so they are kept on disk; indexes pass through untouched, since they do change. A
package is kept only when it came completely. apt checks signatures and sums itself: the proxy need not be
trusted.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from labctl.lab.aptsources import Allowed

_CHUNK = 1 << 16
_TIMEOUT_S = 60
_PASSED_ON = ("If-Modified-Since", "Range", "If-Range", "Cache-Control")
_PASSED_BACK = ("Content-Length", "Content-Type", "Content-Range", "Last-Modified", "ETag", "Accept-Ranges")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object, **_kw: object) -> None:
        """Hand a redirection to the host's apt, so that its new address is checked like any other."""


class AptProxy(ThreadingHTTPServer):
    """The proxy; ``serve_forever`` in a thread, ``shutdown`` to end it."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        clients: IPv4Network,
        allowed: Allowed,
        cache: Path,
        upstream: str | None,
    ) -> None:
        self.clients, self.allowed, self.cache = clients, allowed, cache
        self.busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if upstream:
            handlers.append(urllib.request.ProxyHandler({"http": upstream, "https": upstream}))
        self.opener = urllib.request.build_opener(*handlers)
        cache.mkdir(parents=True, exist_ok=True)
        super().__init__(address, _Request)

    def kept(self, url: str) -> Path | None:
        """Return where the package at ``url`` is kept, or None for what is never kept."""
        name = Path(unquote(urlsplit(url).path)).name
        return (
            self.cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name}"
            if name.endswith(".deb")
            else None
        )


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AptProxy

    def do_GET(self) -> None:
        """Answer one request for a file."""
        if IPv4Address(self.client_address[0]) not in self.server.clients:
            self.send_error(403, "This proxy serves the virtual rack only")
            return
        url = self.server.allowed.upstream(self.path)
        if url is None:
            self.send_error(403, "Not an archive of this machine's apt sources")
            return
        kept = self.server.kept(url)
        try:
            if kept is None or self.command == "HEAD":
                self._pass_through(url)
                return
            with self.server.busy[url]:
                if not kept.exists():
                    self._pass_through(url, keep=kept)
                    return
            self._send_kept(kept)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_GET

    def _send_kept(self, path: Path) -> None:
        with path.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.send_header("Content-Type", "application/vnd.debian.binary-package")
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, _CHUNK)

    def _pass_through(self, url: str, keep: Path | None = None) -> None:
        headers = {name: self.headers[name] for name in _PASSED_ON if self.headers[name] and not keep}
        request = urllib.request.Request(url, headers=headers, method=self.command)
        try:
            answer = self.server.opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            self._send_head(error.code, error.headers, error.headers.get("Location"))
            with error:
                self._send_body(error)
            return
        except OSError as error:
            self.send_error(502, f"The archive does not answer: {getattr(error, 'reason', error)}")
            return
        with answer:
            self._send_head(answer.status, answer.headers)
            if keep is None:
                self._send_body(answer)
                return
            with tempfile.NamedTemporaryFile(dir=self.server.cache, prefix=".part-", delete=False) as part:
                try:
                    if self._send_body(answer, copy=part) == int(answer.headers.get("Content-Length", -1)):
                        part.flush()
                        Path(part.name).rename(keep)
                finally:
                    Path(part.name).unlink(missing_ok=True)

    def _send_head(self, status: int, headers: Message, location: str | None = None) -> None:
        self.send_response(status)
        for name in _PASSED_BACK:
            if headers[name]:
                self.send_header(name, headers[name])
        if location:
            self.send_header("Location", location)
        if not headers["Content-Length"] and status not in (204, 304):
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_body(
        self, source: http.client.HTTPResponse | urllib.error.HTTPError, copy: IO[bytes] | None = None
    ) -> int:
        sent = 0
        while self.command != "HEAD" and (chunk := source.read(_CHUNK)):
            self.wfile.write(chunk)
            sent += len(chunk)
            if copy:
                copy.write(chunk)
        return sent

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing for each request; what is refused or fails stands in the host's own apt messages."""
