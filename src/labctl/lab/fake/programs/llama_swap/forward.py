"""Passing a request on, to an engine here or to a peer, and its answer back as it comes."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from .server import Handler

_HOP = {"host", "content-length", "connection", "transfer-encoding", "keep-alive", "upgrade", "te"}
CHAT = "/v1/chat/completions"


def filtered(body: bytes, asked: str, model: dict[str, Any]) -> bytes:
    """Return a JSON request with the model's name and parameters as its configuration wants them."""
    filters = model.get("filters") or {}
    if not (model.get("useModelName") or filters):
        return body
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if model.get("useModelName"):
        said["model"] = model["useModelName"]
    for name in str(filters.get("stripParams") or "").split(","):
        if name.strip() not in ("", "model"):
            said.pop(name.strip(), None)
    by_id = (filters.get("setParamsByID") or {}).get(asked) or {}
    said |= {
        name: put for name, put in {**(filters.get("setParams") or {}), **by_id}.items() if name != "model"
    }
    return json.dumps(said).encode()


def renamed(body: bytes, model: str) -> bytes:
    """Return a JSON request for another model."""
    try:
        return json.dumps({**json.loads(body), "model": model}).encode()
    except (ValueError, TypeError):
        return body


class Upstream:
    """Somebody who answers in our place."""

    def __init__(self, url: str, timeouts: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Remember where and with what further headers; 0 seconds are no limit."""
        self._where = urlsplit(url)
        self._connect_s = timeouts.get("connect", 30) or None
        self._header_s = timeouts.get("responseHeader", 0) or None
        self._headers = headers or {}

    def answer(self, to: Handler, path: str, body: bytes, *, begun: bool = False) -> None:
        """Ask, and pass the answer on; ``begun``: its head was sent before.

        Raises:
            OSError: nobody answered in time, or at all.
        """
        asked = http.client.HTTPConnection(
            self._where.hostname or "", self._where.port, timeout=self._connect_s
        )
        try:
            asked.connect()
            asked.sock.settimeout(self._header_s)
            headers = {name: value for name, value in to.headers.items() if name.lower() not in _HOP}
            lowered = {name.lower() for name in self._headers}
            headers = {name: value for name, value in headers.items() if name.lower() not in lowered}
            asked.request(
                to.command, self._where.path.rstrip("/") + path, body or None, {**headers, **self._headers}
            )
            found = asked.getresponse()
            asked_sock = getattr(asked, "sock", None)
            if asked_sock is not None:
                asked_sock.settimeout(None)
            self._pass(to, found, begun=begun)
        finally:
            asked.close()

    def _pass(self, to: Handler, found: http.client.HTTPResponse, *, begun: bool) -> None:
        chunked = found.getheader("Content-Length") is None
        if not begun:
            to.send_response_only(found.status)
            for name, value in found.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "keep-alive"):
                    to.send_header(name, value)
            if "text/event-stream" in (found.getheader("Content-Type") or ""):
                to.send_header("X-Accel-Buffering", "no")
            if chunked:
                to.send_header("Transfer-Encoding", "chunked")
            to.end_headers()
        while data := found.read1(65536):
            to.chunk(data) if chunked or begun else to.wfile.write(data)
            to.wfile.flush()
        if chunked or begun:
            to.wfile.write(b"0\r\n\r\n")


def loading(to: Handler, id_: str) -> None:
    """Begin the stream of an answer with words about the loading, as thoughts of the model."""
    to.send_response_only(200)
    for name, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")):
        to.send_header(name, value)
    to.send_header("Transfer-Encoding", "chunked")
    to.end_headers()
    for line in ("━━━━━\n", f"llama-swap loading model: {id_}\n"):
        said = {"choices": [{"delta": {"reasoning_content": line}}]}
        to.chunk(f"data: {json.dumps(said)}\n\n".encode())
    to.wfile.flush()
