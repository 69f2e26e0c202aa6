"""A rack whose models are real GGUF headers before holes, behind a web server that serves pieces of files."""

from __future__ import annotations

import functools
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "fitting"))

from made_gguf import llama

PIN = "{:064x}"
NAMES = "Command, Gpu, Host, LlamaServer, LlamaSwap, Model, Rack, SwapGroup, SwapMatrix, Swapped"


class Pieces(BaseHTTPRequestHandler):
    """Serves byte ranges of the files of a folder, and notes what was asked for."""

    def __init__(self, folder: Path, asked: list[str], *given: Any) -> None:
        self._folder, self._asked = folder, asked
        super().__init__(*given)

    def do_GET(self) -> None:
        path = self._folder / self.path.lstrip("/")
        self._asked.append(self.path)
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        assert found is not None
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
        with path.open("rb") as file:
            file.seek(first)
            data = file.read(last - first + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


class Shelf:
    """A folder of models behind a web server."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pieces, folder, self.asked))
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.made: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, gib: float) -> None:
        """Make a model of about so many GiB: a header, and a hole for its weights."""
        layers = 8
        llama(ff=int(gib * 1024**3 / layers / 1024 / 2 / 3) // 32 * 32, layers=layers).write(
            self.folder / f"{name}.gguf"
        )
        self.made.append(name)

    def models(self) -> str:
        """Return the models as the rack file has them."""
        pins = {name: PIN.format(place + 1) for place, name in enumerate(self.made)}
        return "".join(
            f'        Model(id="{name}", source="{self.url}/{name}.gguf", sha256="{pin}"),\n'
            for name, pin in pins.items()
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def rack_text(
    shelf: Shelf, services: str, fields: str = 'gpus=[Gpu(model="RTX 3090", slot="slot0")],'
) -> str:
    """Return a rack file; the services begin on line 6 and are indented by twelve."""
    return (
        f"from labctl.inventory import {NAMES}\n"
        "rack = Rack(\n"
        '    name="desk",\n'
        f'    hosts=[Host(name="rig", address="10.0.0.1", {fields}\n'
        "        services=[\n"
        f"{services}"
        "        ])],\n"
        "    models=[\n"
        f"{shelf.models()}"
        "    ],\n"
        ")\n"
        "globals().update(rack.groups())\n"
    )


def swapped(*names: str) -> str:
    """Return engines under llama-swap, one a line."""
    return "".join(
        f'                Swapped(engine=LlamaServer(name="e-{name}", model="{name}", ctx_size=4096, '
        f'parallel=1, binary="/usr/bin/llama-server")),\n'
        for name in names
    )
