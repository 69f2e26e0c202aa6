"""An engine on loopback that answers what a test says, and notes what it was asked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ServingEngine:
    """``answers`` has status and JSON by path, else it is 404; ``asked`` is (path, body) in order.

    ``first`` are answers that are given once, before those.
    """

    def __init__(self, **answers: tuple[int, Any]) -> None:
        self.answers: dict[str, tuple[int, Any]] = dict(answers)
        self.first: dict[str, list[tuple[int, Any]]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                outer.asked.append((self.path, body))
                outer.keys.append(self.headers["Authorization"])
                once = outer.first.get(self.path)
                status, said = once.pop(0) if once else outer.answers.get(self.path, (404, None))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())

            def log_message(self, *given: Any) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def row(self, kind: str, unit: str = "labctl-e.service", **more: Any) -> dict[str, Any]:
        """Return the engine as the host's settings have it."""
        return {"service": "e", "kind": kind, "unit": unit, "url": self.url, "key_file": None, **more}

    def posted(self) -> list[tuple[str, Any]]:
        """Return what was ordered."""
        return [one for one in self.asked if one[1] is not None]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
