"""Stand in for an inference server in a certain mood: well, saturated, hung, silent, deaf or loading.

It speaks as llama-server, vLLM, SGLang, Ollama or llama-swap do, as far as health asks them; one file that a
host's own Python runs. It computes nothing. What the moods show is what the real ones show:

- ``well``: one request runs. ``idle``: none does.
- ``saturated``: as many run as can, and with each look more wait. Counters of tokens that the real engine
  raises only at the end of a request (llama-server's, SGLang's) stand still; others move.
- ``hung``: the health page says that all is well, a request runs, and nothing moves.
- ``silent``: like hung, but what counts is never answered, as llama-server's is not while it is stuck.
- ``deaf``: it takes connections and answers nothing.
- ``loading``: 503, as long as the model is read.

Every request is noted, so that a test can tell that nothing was generated, loaded or kept loaded by asking.

    moody.py KIND --port PORT --mood FILE [--asked FILE]

The file of the mood is read anew at each request.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MOODS = ("well", "idle", "saturated", "hung", "silent", "deaf", "loading")
_SLOTS = 4
_COUNTED = {
    "llama-server": (
        "llamacpp:requests_processing {running}\nllamacpp:requests_deferred {waiting}\n"
        "llamacpp:prompt_tokens_total 1200\nllamacpp:tokens_predicted_total 3400\n"
        "llamacpp:n_decode_total {steps}\n"
    ),
    "vllm": (
        'vllm:num_requests_running{{engine="0",model_name="m"}} {running}.0\n'
        'vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}.0\n'
        'vllm:prompt_tokens_total{{engine="0",model_name="m"}} 1200.0\n'
        'vllm:generation_tokens_total{{engine="0",model_name="m"}} {steps}.0\n'
    ),
    "sglang": (
        'sglang:num_running_reqs{{model_name="m"}} {running}.0\n'
        'sglang:num_queue_reqs{{model_name="m"}} {waiting}.0\n'
        'sglang:prompt_tokens_total{{model_name="m"}} 1200.0\n'
        'sglang:generation_tokens_total{{model_name="m"}} 3400.0\n'
        'sglang:num_used_tokens{{model_name="m"}} {steps}.0\n'
    ),
}
# What may be asked; all else would load a model, keep one loaded, or generate.
HARMLESS = {
    "llama-server": {"/health", "/metrics", "/slots"},
    "vllm": {"/health", "/metrics"},
    "sglang": {"/ready", "/metrics", "/get_load"},
    "ollama": {"/api/ps", "/api/version"},
    "llama-swap": {"/health", "/running", "/v1/models", "/api/events"},
}


class Moody:
    """An engine of a kind; ``mood`` may change at any time, ``asked`` is what it was asked, in order.

    ``below`` are what a llama-swap runs: (model, command, address). ``in_vram`` is the share of an Ollama's
    model that is on cards.
    """

    def __init__(self, kind: str, mood: str = "well", port: int = 0) -> None:
        self.kind = kind
        self.mood = mood
        self.asked: list[str] = []
        self.below: list[tuple[str, str, str]] = []
        self.digest = ""
        self.in_vram = 1.0
        self.steps = 100
        self.waiting = 0
        self.closing = threading.Event()
        self.server = _server(self, port)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def start(self) -> Moody:
        """Begin to serve, in a thread."""
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def close(self) -> None:
        """End it."""
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str) -> tuple[int, str] | None:
        """Return status and body; None: nothing is ever answered."""
        self.asked.append(path)
        counts = path not in ("/health", "/ready")
        if self.mood == "deaf" or (self.mood == "silent" and counts):
            return None
        if self.mood == "loading":
            return 503, '{"error": {"message": "Loading model"}}'
        if not counts:
            return 200, '{"status": "ok"}'
        if path == "/metrics" and self.kind in _COUNTED:
            return 200, self._metrics()
        said = {"/running": self._running, "/v1/models": self._listed, "/api/ps": self._loaded}.get(path)
        return (404, "{}") if said is None else (200, json.dumps(said()))

    def _metrics(self) -> str:
        moves = self.mood in ("well", "saturated")
        self.steps += 7 if moves else 0
        self.waiting += 3 if self.mood == "saturated" else 0
        running = {"idle": 0, "saturated": _SLOTS}.get(self.mood, 1)
        waiting = self.waiting if self.mood == "saturated" else 0
        text = _COUNTED[self.kind].format(running=running, waiting=waiting, steps=self.steps)
        return f"# HELP a double of the lab\n{text}"

    def _running(self) -> Any:
        rows = [{"model": m, "state": "ready", "cmd": c, "proxy": p, "ttl": 60} for m, c, p in self.below]
        return {"running": rows}

    def _listed(self) -> Any:
        meta = {"llamaswap": {"type": "model", "labctl": self.digest}}
        return {"object": "list", "data": [{"id": model, "meta": meta} for model, _, _ in self.below]}

    def _loaded(self) -> Any:
        size = 4 << 30
        return {"models": [{"model": "m", "size": size, "size_vram": int(size * self.in_vram)}]}


def _server(engine: Moody, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            said = engine.answer(self.path)
            if said is None:
                engine.closing.wait(60)
                return
            self.send_response(said[0])
            self.end_headers()
            self.wfile.write(said[1].encode())

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *given: Any) -> None:
            """Stay silent; what is asked is noted elsewhere."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of a client that went away."""

    return Server(("127.0.0.1", port), Handler)


class OnHost(Moody):
    """One whose mood is in a file, and which notes in a file what it was asked."""

    def __init__(self, kind: str, port: int, mood: Path, asked: Path | None) -> None:
        super().__init__(kind, port=port)
        self._mood, self._asked = mood, asked

    def answer(self, path: str) -> tuple[int, str] | None:
        """Answer in the mood of the moment."""
        said = self._mood.read_text().strip() if self._mood.exists() else "well"
        self.mood = said if said in MOODS else "well"
        if self._asked is not None:
            with self._asked.open("a") as file:
                file.write(f"{path}\n")
        return super().answer(path)


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=sorted(HARMLESS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mood", type=Path, required=True)
    parser.add_argument("--asked", type=Path)
    given, _ = parser.parse_known_args()
    OnHost(given.kind, given.port, given.mood, given.asked).server.serve_forever()


if __name__ == "__main__":
    main()
