"""The routes, and what they answer; errors in llama-swap's own envelope."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from .forward import CHAT, Upstream, filtered, loading, renamed
from .process import Failed
from .router import TooMany

if TYPE_CHECKING:
    from .main import Swap

_V1 = ("chat/completions", "responses", "completions", "messages", "messages/count_tokens", "embeddings")
_RANK = ("/reranking", "/rerank", "/v1/rerank", "/v1/reranking", "/infill", "/completion", "/v1/audio/speech")
BY_BODY = {*(f"/v1/{one}" for one in _V1), *(f"/v/{one}" for one in _V1), *_RANK}
BY_QUERY = {"/props", "/v1/audio/voices"}
_GET = (
    *("/health", "/wol-health", "/", "/running", "/unload", "/v1/models", "/models", "/logs", "/metrics"),
    *("/api/version", "/upstream"),
)
_VERBS = {**dict.fromkeys(_GET, "GET"), **dict.fromkeys(BY_BODY, "POST"), "/api/models/unload": "POST"}
_KINDS = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "unauthorized"),
    404: ("invalid_request_error", "not_found"),
    409: ("invalid_request_error", "conflict"),
    429: ("rate_limit_error", "concurrency_limit"),
    500: ("server_error", "internal_error"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
}
_TEXT = "text/plain; charset=utf-8"


class Server(ThreadingHTTPServer):
    """The listening side."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], swap: Swap) -> None:
        """Listen at once."""
        self.swap = swap
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version, server_version, sys_version = "HTTP/1.1", "", ""
    server: Server

    def log_message(self, format: str, *words: object) -> None:
        """Log the request."""
        self.server.swap.log("INFO", f'Request {self.client_address[0]} "{self.requestline}"')

    def chunk(self, data: bytes) -> None:
        """Send a part of a body whose length nobody knows."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def say(self, status: int, body: object, kind: str = "application/json", **headers: str) -> None:
        """Send a whole answer."""
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
        whole = data if data is not None else (json.dumps(body, separators=(",", ":")) + "\n").encode()
        self.send_response_only(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(whole)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(whole)

    def error(self, status: int, message: str, **headers: str) -> None:
        """Send an error in the form that the client prefers."""
        if "text/plain" in self.headers.get("Accept", ""):
            self.say(status, f"llama-swap: {message}", "text/plain", **headers)
            return
        kind, code = _KINDS[status]
        detail = {"message": message, "type": kind, "param": None, "code": code}
        text = json.dumps({"src": "llama-swap", "error": detail}, separators=(",", ":"))
        self.say(status, text, **headers)

    def _plain(self, status: int, message: str, **headers: str) -> None:
        self.say(status, f"{message}\n", _TEXT, X_Content_Type_Options="nosniff", **headers)

    def handle_any(self) -> None:
        """Answer a request of any verb."""
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        verb = _VERBS.get(path)
        if verb is not None and self.command != verb:
            self._plain(405, "Method Not Allowed", Allow="POST" if verb == "POST" else "GET, HEAD")
        elif path in ("/health", "/wol-health"):
            self.say(200, "OK", _TEXT)
        elif path in ("/", "/upstream"):
            place = "/ui" if path == "/" else "/ui/models"
            self.say(302, f'<a href="{place}">Found</a>.\n\n', "text/html; charset=utf-8", Location=place)
        elif not self._allowed():
            said = 'Basic realm="llama-swap"'
            self.error(401, "unauthorized: invalid or missing API key", WWW_Authenticate=said)
        elif path in BY_BODY or (path in BY_QUERY and self.command == "GET"):
            self._dispatch(path, body)
        elif path.startswith("/upstream/"):
            self._upstream(path, body)
        else:
            self._own(path)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def _allowed(self) -> bool:
        keys = self.server.swap.config.keys
        scheme, _, said = self.headers.get("Authorization", "").partition(" ")
        shown = self.headers.get("x-api-key", "")
        if scheme.lower() == "bearer":
            shown = said
        elif scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                shown = base64.b64decode(said).decode().partition(":")[2] or shown
        return not keys or shown in keys

    def _dispatch(self, path: str, body: bytes) -> None:
        name = ""
        if path in BY_QUERY:
            name = parse_qs(urlsplit(self.path).query).get("model", [""])[0]
        elif "application/json" in self.headers.get("Content-Type", ""):
            try:
                name = str(json.loads(body)["model"])
            except (ValueError, KeyError, TypeError):
                name = ""
        if not name:
            self.error(404, "no model id could be identified")
            return
        onward = self.path.removeprefix("/v") if path.startswith("/v/") else self.path
        self._ask(name, onward, body)

    def _ask(self, name: str, path: str, body: bytes) -> None:
        config = self.server.swap.config
        if (id_ := config.real(name)) is not None:
            self._local(id_, path, filtered(body, name, config.models[id_]))
        elif (found := config.peer_of(name)) is not None:
            self._peer(*found, path, renamed(body, found[1]) if name != found[1] else body)
        else:
            self.error(404, "no router for requested model")

    def _peer(self, id_: str, model: str, path: str, body: bytes) -> None:
        peer = self.server.swap.config.peers[id_]
        key = peer.get("apiKey")
        headers = {"Authorization": f"Bearer {key}", "x-api-key": str(key)} if key else {}
        body = filtered(body, model, {"filters": peer.get("filters")})
        try:
            Upstream(peer["proxy"], {"responseHeader": 60, **(peer.get("timeouts") or {})}, headers).answer(
                self, path, body
            )
        except BrokenPipeError:
            raise
        except TimeoutError:
            self.error(502, "peer proxy error: net/http: timeout awaiting response headers")
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            self.error(502, f"peer proxy error: dial tcp {urlsplit(peer['proxy']).netloc}: connect: {why}")

    def _local(self, id_: str, path: str, body: bytes) -> None:
        router = self.server.swap.router
        model = self.server.swap.config.models[id_]
        begun = bool(
            model["sendLoadingState"]
            and path.startswith(CHAT)
            and b'"stream":true' in body.replace(b" ", b"")
            and router.processes[id_].state != "ready"
        )
        if begun:
            loading(self, id_)
        try:
            process = router.enter(id_)
        except TooMany:
            self.error(429, "Too many requests", Retry_After="1")
            return
        except Failed as error:
            if begun:
                said = {"choices": [{"delta": {"reasoning_content": f"unspecific error: {error}"}}]}
                self.chunk(f"data: {json.dumps(said)}\n\n".encode())
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.error(500, f"unspecific error: {error}")
            return
        try:
            Upstream(process.model["proxy"], process.model.get("timeouts") or {}).answer(
                self, path, body, begun=begun
            )
        except BrokenPipeError:
            raise
        except OSError:
            self.say(502, b"", "text/plain")
        finally:
            router.leave(process)

    def _upstream(self, path: str, body: bytes) -> None:
        config = self.server.swap.config
        rest = path.removeprefix("/upstream/")
        names = [
            name
            for peer in config.peers
            for one in config.peers[peer]["models"]
            for name in (one, f"{peer}/{one}")
        ]
        known = sorted({*config.models, *config.aliases, *names}, key=len, reverse=True)
        name = next((one for one in known if rest == one or rest.startswith(f"{one}/")), None)
        if name is None:
            self.error(404, "model not found")
            return
        onward = self.path[len(f"/upstream/{name}") :] or "/"
        if rest == name:
            place = f"/upstream/{name}/"
            html = f'<a href="{place}">Moved Permanently</a>.\n\n'
            self.say(301, html, "text/html; charset=utf-8", Location=place)
            return
        id_ = config.real(name)
        ignored = any(one.search(urlsplit(onward).path) for one in config.ignored)
        if id_ is not None and ignored and self.server.swap.router.processes[id_].state != "ready":
            self.error(409, f"model {id_} is not loaded; path matches upstream.ignorePaths")
            return
        self._ask(name, onward, body)

    def _own(self, path: str) -> None:
        swap = self.server.swap
        unloaded = path.removeprefix("/api/models/unload/")
        if path == "/running":
            self.say(200, {"running": _running(swap)})
        elif path in ("/v1/models", "/models"):
            self.say(200, {"data": _listed(swap), "object": "list"})
        elif path == "/unload":
            swap.router.unload()
            self.say(200, "OK", _TEXT)
        elif path == "/api/models/unload":
            swap.router.unload()
            self.say(200, {"msg": "ok"})
        elif unloaded != path and self.command == "POST":
            if (id_ := swap.config.real(unloaded)) is None:
                self.error(404, "model not found")
                return
            swap.router.unload(id_)
            self.say(200, "OK", _TEXT)
        elif path == "/api/version":
            self.say(200, {"build_date": "unknown", "commit": "abcd1234", "version": "250"})
        elif path == "/logs":
            self.say(200, "".join(swap.history), "text/plain")
        elif path == "/metrics":
            self.say(200, "", "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._plain(404, "404 page not found")


def _running(swap: Swap) -> list[dict[str, Any]]:
    found = []
    for id_, state in sorted(swap.router.running().items()):
        model = swap.config.models[id_]
        shown = {
            "model": id_,
            "state": state,
            "cmd": model["cmd"],
            "proxy": model["proxy"],
            "ttl": model["ttl"],
        }
        found.append({**shown, "name": model.get("name", ""), "description": model.get("description", "")})
    return found


def _listed(swap: Swap) -> list[dict[str, Any]]:
    config, running = swap.config, swap.router.running()
    created = int(Path(swap.path).stat().st_mtime) if Path(swap.path).exists() else 0
    found = []

    def add(id_: str, model: dict[str, Any], inner: dict[str, Any], *, loaded: bool = False) -> None:
        record = {"id": id_, "object": "model", "created": created, "owned_by": "llama-swap"}
        record |= {part: model[part] for part in ("name", "description") if model.get(part)}
        meta = {**(model.get("metadata") or {}), **inner}
        status = {"value": "loaded" if loaded else "unloaded"}
        found.append({**record, "meta": {"llamaswap": dict(sorted(meta.items()))}, "status": status})

    for id_, model in config.models.items():
        if model.get("unlisted"):
            continue
        aliases = model.get("aliases") or []
        inner = {"type": "model", **({"aliases": aliases} if aliases else {})}
        add(id_, model, inner, loaded=id_ in running)
        for alias in aliases if config.raw.get("includeAliasesInList") else []:
            add(alias, model, {"type": "alias", "modelID": id_}, loaded=id_ in running)
    for peer, said in config.peers.items():
        for name in said["models"]:
            add(f"{peer}/{name}", {"name": f"{peer}: {name}"}, {"type": "peer", "peerID": peer})
    for name, selector in (config.raw.get("selectors") or {}).items():
        if not selector.get("unlisted"):
            inner = {"type": "selector", "strategy": selector["strategy"], "targets": selector["targets"]}
            add(name, selector, inner)
    return sorted(found, key=lambda record: str(record["id"]))
