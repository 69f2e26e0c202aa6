"""vLLM's server, as far as one sees it from outside: DOUBLE, the tokens come from a llama-server.

Its order is vLLM's: bind the port (taken: it ends), look for the model (unknown: it ends), with Ray claim one
card per rank all over the cluster (too few: it waits, then ends), load, and only then listen. So while it
loads nobody answers at all. If the engine dies, the server ends. Sleep endpoints exist only with
``VLLM_SERVER_DEV_MODE=1`` and ``--enable-sleep-mode``; asleep, the llama-server is stopped for real, and
requests wait for /wake_up.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import proxy, ranks, vllm_flags
from .child import Child, LoadError, weights
from .metrics import VllmMetrics

VERSION = "0.33.0"
_ANYTHING = "0.0.0.0"


class Vllm:
    """The engine behind the server."""

    def __init__(self, asked: argparse.Namespace, file: Path) -> None:
        """Take over what the command line says."""
        names = asked.served_model_name or [asked.model]
        self.names: tuple[str, ...] = tuple(names)
        environment_key = os.environ.get("VLLM_API_KEY")
        self.keys: tuple[str, ...] = tuple(asked.api_key or ([environment_key] if environment_key else []))
        self.model = asked.model
        self.metrics = VllmMetrics(names[0])
        self._awake = threading.Event()
        length = vllm_flags.tokens(asked.max_model_len)
        # Whatever name a request used, answers bear the first one.
        arguments = ["--alias", names[0], "--parallel", str(min(asked.max_num_seqs or 4, 4))]
        arguments += ["--ctx-size", str(length * min(asked.max_num_seqs or 4, 4))] if length else []
        arguments += ["--embedding"] if asked.runner == "pooling" else []
        self.child = Child(file, arguments)
        self.length = length or 0
        self.routes: dict[tuple[str, str], proxy.Answer] = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): lambda to, query, body: to.reply(200, {"version": VERSION}),
            ("GET", "/load"): lambda to, query, body: to.reply(200, {"server_load": 0}),
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/tokenize"): self._tokenize,
        }
        if os.environ.get("VLLM_SERVER_DEV_MODE") == "1" and asked.enable_sleep_mode:
            self.routes |= {
                ("POST", "/sleep"): self._sleep,
                ("POST", "/wake_up"): self._wake,
                ("GET", "/is_sleeping"): self._sleeping,
            }

    def load(self) -> None:
        """Load the model.

        Raises:
            LoadError: it cannot be loaded.
        """
        self.child.start()
        if not self.length:
            self.length = self.child.ask("/v1/models")["data"][0]["meta"]["n_ctx_train"]
        self._awake.set()

    def guarded(self, path: str) -> bool:
        """Return whether a path needs a key: vLLM asks for it below /v1 only."""
        return path.startswith("/v1")

    def unauthorized(self) -> proxy.Body:
        """Return vLLM's words for a wrong key."""
        return {"error": "Unauthorized"}

    def error(self, message: str, kind: str, status: int) -> proxy.Body:
        """Return a refusal as vLLM words it."""
        return {"error": {"message": message, "type": kind, "param": None, "code": status}}

    def ready(self) -> None:
        """Wait until it is awake."""
        self._awake.wait()

    def _health(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        well = self.child.alive or not self._awake.is_set()
        to.reply(200 if well else 503)

    def _models(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        to.reply(200, {"object": "list", "data": [self._card(name) for name in self.names]})

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "vllm",
            "root": self.model,
            "parent": None,
            "max_model_len": self.length,
            "permission": [],
        }

    def _metrics(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        to.reply(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    def _tokenize(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        self.ready()
        text = body.get("prompt", "")
        if "messages" in body:
            text = self.child.ask("/apply-template", {"messages": body["messages"]})["prompt"]
        special = bool(body.get("add_special_tokens", True))
        found = self.child.ask("/tokenize", {"content": text, "add_special": special})["tokens"]
        answer = {"count": len(found), "max_model_len": self.length, "tokens": found, "token_strs": None}
        to.reply(200, answer)

    def _sleep(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        level = query.get("level", ["1"])[0]
        if level not in ("0", "1", "2"):
            return to.reply(400, self.error(f"no sleep level {level}", "BadRequestError", 400))
        self._awake.clear()
        self.child.stop()
        return to.reply(200)

    def _wake(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        if not self._awake.is_set():
            self.child.start()
            self._awake.set()
        to.reply(200)

    def _sleeping(self, to: proxy.Handler, query: proxy.Query, body: proxy.Body) -> None:
        to.reply(200, {"is_sleeping": not self._awake.is_set()})


def say(line: str) -> None:
    """Tell whoever reads the log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run(asked: argparse.Namespace) -> int:
    """Serve; return the exit status."""
    say(f"(APIServer) INFO vLLM API server version {VERSION} (DOUBLE of labctl's lab, not vLLM)")
    try:
        bound = proxy.bind(asked.host or _ANYTHING, asked.port or 8000)
    except OSError as error:
        say(f"OSError: [Errno {error.errno}] {error.strerror}")
        return 1
    file = weights(asked.model)
    if file is None:
        say(f"ValueError: Invalid repository ID or local directory specified: '{asked.model}'.")
        return 1
    wanted = (asked.tensor_parallel_size or 1) * (asked.pipeline_parallel_size or 1)
    wanted *= asked.data_parallel_size or 1
    try:
        engine = Vllm(asked, file)
        if asked.distributed_executor_backend == "ray":
            places, until_one_dies = ranks.claim(wanted)
            say(f"(EngineCore) INFO {wanted} ranks on {', '.join(places)}")
            threading.Thread(target=_watch, args=(engine, until_one_dies), daemon=True).start()
    except (LoadError, ValueError) as error:
        say(f"RuntimeError: Engine core initialization failed. {error}")
        return 1
    try:
        engine.load()
        server = proxy.Server(bound, engine)
        say(f"(APIServer) INFO vLLM API server on http://{asked.host or _ANYTHING}:{asked.port or 8000}")
        return proxy.serve(server, engine)
    except LoadError as error:
        say(f"RuntimeError: Engine core initialization failed. {error}")
        return 1
    finally:
        engine.child.stop()


def _watch(engine: Vllm, until_one_dies: Callable[[], str]) -> None:
    """End the engine, as vLLM does, when a rank is lost."""
    say(f"(EngineCore) ERROR EngineDeadError: {until_one_dies()}")
    engine.child.kill()


def main() -> int:
    """Be ``vllm``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = vllm_flags.parse(sys.argv[1:])
    if asked.version:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    if asked.subparser != "serve":
        say("this double serves, and does nothing else")
        return 1
    try:
        return run(asked)
    except KeyboardInterrupt:
        return 0
