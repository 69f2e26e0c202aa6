"""SGLang's server, as far as one sees it from outside: DOUBLE, the tokens come from a llama-server.

It listens before it has loaded: until then, and once the engine has died, /health is 503. By default /health
generates a token (``SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION``), which is why labctl turns that off; then it
is plain. /health_generate always generates, /ready only looks. Metrics exist with ``--enable-metrics`` only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import proxy
from .child import Child, LoadError, weights
from .metrics import SglangMetrics
from .options import SGLANG, Kind
from .vllm_server import say

VERSION = "0.5.23"
_TYPES = {"int": int, "float": float, "str": str}


class Sglang:
    """The engine behind the server."""

    def __init__(self, asked: argparse.Namespace, file: Path) -> None:
        """Take over what the command line says."""
        self.asked = asked
        self.names: tuple[str, ...] = (asked.served_model_name or asked.model_path,)
        self.keys: tuple[str, ...] = (asked.api_key,) if asked.api_key else ()
        self.capacity = asked.max_total_tokens or 4 * (asked.context_length or 4096)
        self.metrics = SglangMetrics(self.names[0], self.capacity)
        arguments = ["--alias", self.names[0], "--parallel", "4"]
        arguments += ["--ctx-size", str(4 * asked.context_length)] if asked.context_length else []
        arguments += ["--embedding"] if asked.is_embedding else []
        self.child = Child(file, arguments)
        self.up = threading.Event()
        generates = os.environ.get("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "true").lower()
        health = self._plain if generates in ("false", "0", "no") else self._generate
        self.routes: dict[tuple[str, str], proxy.Answer] = {
            ("GET", "/health"): health,
            ("GET", "/health_generate"): self._generate,
            ("GET", "/ready"): self._plain,
            ("GET", "/ping"): self._plain,
            ("GET", "/v1/models"): self._models,
            ("GET", "/model_info"): self._model_info,
            ("GET", "/get_model_info"): self._model_info,
            ("GET", "/server_info"): self._server_info,
            ("GET", "/get_server_info"): self._server_info,
            ("GET", "/flush_cache"): self._flush,
            ("POST", "/flush_cache"): self._flush,
            ("POST", "/release_memory_occupation"): self._release,
            ("POST", "/resume_memory_occupation"): self._resume,
        }
        if asked.enable_metrics:
            self.routes["GET", "/metrics"] = self._metrics

    def guarded(self, path: str) -> bool:
        """Return whether a path needs a key: all but health and metrics."""
        return path not in ("/health", "/health_generate", "/ready", "/ping", "/metrics")

    def unauthorized(self) -> proxy.Body:
        """Return SGLang's words for a wrong key."""
        return {"error": "Unauthorized"}

    def error(self, message: str, kind: str, status: int) -> proxy.Body:
        """Return a refusal as SGLang words it."""
        return {"object": "error", "message": message, "type": kind, "param": None, "code": status}

    def ready(self) -> None:
        """Wait until the model is in memory."""
        self.up.wait()

    def _plain(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        to.reply(200 if self._well else 503)

    @property
    def _well(self) -> bool:
        return self.up.is_set() and self.child.alive

    def _generate(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        if not self._well:
            return to.reply(503)
        # It is a request like any other, and counted like one.
        began = time.monotonic()
        with proxy.inflight(self.metrics.running):
            answer = self.child.ask("/v1/completions", {"prompt": "a", "max_tokens": 1})
        self.metrics.count(proxy.seen_of(answer, began))
        return to.reply(200)

    def _models(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        card = {
            "id": self.names[0],
            "object": "model",
            "created": 0,
            "owned_by": "sglang",
            "root": self.names[0],
            "parent": None,
            "max_model_len": self._length,
        }
        to.reply(200, {"object": "list", "data": [card]})

    @property
    def _length(self) -> int:
        if self.asked.context_length:
            return int(self.asked.context_length)
        self.ready()
        return int(self.child.ask("/v1/models")["data"][0]["meta"]["n_ctx_train"])

    def _model_info(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        path = self.asked.model_path
        generation = not self.asked.is_embedding
        to.reply(200, {"model_path": path, "tokenizer_path": path, "is_generation": generation})

    def _server_info(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        hidden = {name: value for name, value in vars(self.asked).items() if "key" not in name}
        to.reply(200, {**hidden, "version": VERSION, "max_total_num_tokens": self.capacity})

    def _flush(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        to.reply(200, b"Cache flushed.\n", "text/plain")

    def _release(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        if not self.asked.enable_memory_saver:
            return to.reply(400, self.error("the memory saver is not enabled", "BadRequestError", 400))
        self.up.clear()
        self.child.stop()
        return to.reply(200)

    def _resume(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        if not self.up.is_set():
            self.child.start()
            self.up.set()
        to.reply(200)

    def _metrics(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        to.reply(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")


def _add(parser: argparse.ArgumentParser, names: list[str], kind: Kind, text: str) -> None:
    if kind == "switch":
        parser.add_argument(*names, action="store_true", help=text)
    elif isinstance(kind, tuple):
        parser.add_argument(*names, choices=kind, help=text)
    else:
        parser.add_argument(*names, type=_TYPES[kind], help=text)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for; a file by ``--config`` comes first, so that the command line wins."""
    parser = argparse.ArgumentParser(prog="launch_server.py")
    for names, kind, text in SGLANG:
        _add(parser, names.split(), kind, text)
    words = list(argv)
    if "--config" in words:
        at = words.index("--config")
        lines = Path(words[at + 1]).read_text().splitlines()
        del words[at : at + 2]
        words = [*_from_config(lines), *words]
    asked = parser.parse_args(words)
    if asked.model_path is None:
        parser.error("the following arguments are required: --model-path/--model")
    return asked


def _from_config(lines: Sequence[str]) -> list[str]:
    """Return the words that a flat YAML file stands for: ``name: value``, text in plain or double quotes."""
    found: list[str] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or line.startswith("#"):
            continue
        plain: Any = json.loads(value) if value.strip().startswith('"') else value.strip()
        found += [f"--{name.strip()}"] if plain == "true" else [f"--{name.strip()}", plain]
    return found


def _load(engine: Sglang) -> None:
    try:
        engine.child.start()
    except LoadError as error:
        say(f"Scheduler hit an exception: {error}")
        os._exit(1)
    engine.up.set()
    say("The server is fired up and ready to roll!")


def main() -> int:
    """Be ``python -m sglang.launch_server``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = sys.argv[1:]
    asked = parse(words[1:] if words[:1] == ["serve"] else words)
    say(f"SGLang {VERSION} (DOUBLE of labctl's lab, not SGLang)")
    file = weights(asked.model_path)
    if file is None:
        say(f"OSError: {asked.model_path} is not a local folder and no valid model identifier")
        return 1
    try:
        engine = Sglang(asked, file)
        server = proxy.Server(proxy.bind(asked.host or "127.0.0.1", asked.port or 30000), engine)
    except LoadError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"[Errno {error.errno}] error while attempting to bind on address: {error.strerror}")
        return 1
    threading.Thread(target=_load, args=(engine,), daemon=True).start()
    try:
        return proxy.serve(server, engine)
    except KeyboardInterrupt:
        return 0
