"""A server that passes requests on to llama-server, counts them, and answers what llama-server has not.

Bodies go through as they are, but for three things: the model's name is checked against those it is served
by, llama-server is always asked for the usage of a stream (the chunk with it is dropped where the client did
not ask), and its refusal of a prompt that is too long is put in the engine's words.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from .child import Child
from .metrics import Seen

COMPLETIONS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank")
Query = dict[str, list[str]]
Body = dict[str, Any]
Answer = Callable[["Handler", Query, Body], None]


class Counting(Protocol):
    """What an engine's metrics must be able to do."""

    @property
    def running(self) -> Any:
        """Return the gauge of requests that are being computed."""

    def count(self, seen: Seen) -> None:
        """Count a request that was answered."""


class Engine(Protocol):
    """What the proxy asks an engine."""

    routes: dict[tuple[str, str], Answer]
    names: tuple[str, ...]
    child: Child
    keys: tuple[str, ...]

    @property
    def metrics(self) -> Counting:
        """Return what counts its requests."""

    def guarded(self, path: str) -> bool:
        """Return whether a path needs a key."""

    def unauthorized(self) -> Body:
        """Return the body of a refusal for want of a key."""

    def error(self, message: str, kind: str, status: int) -> Body:
        """Return the body of a refusal."""

    def ready(self) -> None:
        """Return when requests may be passed on; the engine may sleep."""


class Server(ThreadingHTTPServer):
    """The server of one engine, on a socket that is bound already but does not listen yet."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, engine: Engine) -> None:
        """Take the socket over and listen."""
        super().__init__(bound.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.engine = engine
        self.server_activate()


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Raises:
        OSError: somebody listens there already.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Answer a GET."""
        self._route("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._route("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; access logs are not what a double is for."""

    def reply(
        self, status: int, body: Body | list[Any] | bytes = b"", kind: str = "application/json"
    ) -> None:
        """Answer at once."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, method: str) -> None:
        engine = self.server.engine
        where = urlsplit(self.path)
        try:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else {}
        except ValueError:
            self.reply(400, engine.error("the body is no JSON", "BadRequestError", 400))
            return
        if engine.guarded(where.path) and engine.keys and self._key() not in engine.keys:
            self.reply(401, engine.unauthorized())
            return
        known = engine.routes.get((method, where.path))
        if known is not None:
            known(self, parse_qs(where.query), body)
            return
        if method == "POST" and where.path in COMPLETIONS:
            self._pass_on(where.path, body)
            return
        if any(path == where.path for _, path in engine.routes) or where.path in COMPLETIONS:
            self.reply(405, {"detail": "Method Not Allowed"})
            return
        self.reply(404, {"detail": "Not Found"})
        return

    def _key(self) -> str:
        kind, _, key = self.headers.get("Authorization", "").partition(" ")
        return key if kind.lower() == "bearer" else ""

    def _pass_on(self, path: str, body: Body) -> None:
        engine = self.server.engine
        wanted = body.get("model")
        if wanted is not None and wanted not in engine.names:
            message = f"The model `{wanted}` does not exist."
            self.reply(404, engine.error(message, "NotFoundError", 404))
            return
        engine.ready()
        with inflight(engine.metrics.running):
            self._forward(path, body)

    def _forward(self, path: str, body: Body) -> None:
        engine = self.server.engine
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        if body.get("stream"):
            body = {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}
        watch = _Watch(body)
        upstream = http.client.HTTPConnection("127.0.0.1", engine.child.port, timeout=3600)
        with contextlib.closing(upstream):
            try:
                upstream.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = upstream.getresponse()
            except OSError:
                message = "EngineCore encountered an issue."
                self.reply(500, engine.error(message, "InternalServerError", 500))
                return
            if answer.status != 200:
                self._refuse(answer)
                return
            if body.get("stream"):
                self._stream(answer, watch, asked=asked)
            else:
                data = answer.read()
                watch.whole(json.loads(data))
                self.reply(200, data)
        engine.metrics.count(watch.seen)

    def _refuse(self, answer: http.client.HTTPResponse) -> None:
        """Put llama-server's refusal into the engine's words."""
        engine = self.server.engine
        said = json.loads(answer.read() or b"{}").get("error", {})
        message = said.get("message", "the request was refused")
        if said.get("type") == "exceed_context_size_error":
            message = (
                f"This model's maximum context length is {said.get('n_ctx')} tokens. However, your request "
                f"has {said.get('n_prompt_tokens')} input tokens. Please reduce the length of the input."
            )
        status = answer.status if answer.status < 500 else 500
        self.reply(status, engine.error(message, "BadRequestError", status))

    def _stream(self, answer: http.client.HTTPResponse, watch: _Watch, *, asked: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in _events(answer):
            if watch.event(event) and not asked:
                continue
            data = b"data: " + event + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


def _events(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each event of a stream."""
    while line := answer.readline():
        if line.startswith(b"data:"):
            yield line[5:].strip()


@contextlib.contextmanager
def inflight(gauge: Any) -> Iterator[None]:
    """Count a request as running for as long as it does."""
    gauge.inc()
    try:
        yield
    finally:
        gauge.dec()


class _Watch:
    """What is learnt of a request while it passes."""

    def __init__(self, body: Body, began: float | None = None) -> None:
        self._began = self._last = time.monotonic() if began is None else began
        asked = body.get("max_tokens") or body.get("max_completion_tokens")
        self.seen = Seen(asked_tokens=asked if isinstance(asked, int) else None)

    def event(self, data: bytes) -> bool:
        """Learn from one event of a stream; return whether it holds nothing but the usage."""
        now = time.monotonic()
        self.seen.whole_s = now - self._began
        if data == b"[DONE]":
            return False
        chunk = json.loads(data)
        self._usage(chunk)
        choices = chunk.get("choices") or []
        if not self.seen.first_token_s and choices:
            self.seen.first_token_s = now - self._began
        elif choices:
            self.seen.gaps_s.append(now - self._last)
        self._last = now
        self._reason(choices)
        return not choices and bool(chunk.get("usage"))

    def whole(self, answer: Body) -> None:
        """Learn from an answer that came in one piece."""
        self.seen.whole_s = self.seen.first_token_s = time.monotonic() - self._began
        timings = answer.get("timings") or {}
        if "prompt_ms" in timings:
            self.seen.first_token_s = min(self.seen.whole_s, timings["prompt_ms"] / 1000)
        self._usage(answer)
        self._reason(answer.get("choices") or [])

    def _usage(self, answer: Body) -> None:
        usage = answer.get("usage") or {}
        self.seen.prompt_tokens = usage.get("prompt_tokens", self.seen.prompt_tokens)
        self.seen.generated_tokens = usage.get("completion_tokens", self.seen.generated_tokens)
        details = usage.get("prompt_tokens_details") or {}
        self.seen.cached_tokens = details.get("cached_tokens", self.seen.cached_tokens)

    def _reason(self, choices: list[Body]) -> None:
        for choice in choices:
            if choice.get("finish_reason"):
                self.seen.reason = "length" if choice["finish_reason"] == "length" else "stop"


def seen_of(answer: Body, began: float) -> Seen:
    """Return what is to be counted of a whole answer to a request that began at ``began`` (monotonic)."""
    watch = _Watch({}, began)
    watch.whole(answer)
    return watch.seen


def serve(server: Server, engine: Engine) -> int:
    """Serve until llama-server ends by itself or this process is told to; return the exit status."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        while engine.child.wait() == 0:
            time.sleep(0.2)  # not started yet, put to sleep, or told to end as this process is
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        server.shutdown()
        server.server_close()
        engine.child.stop()
