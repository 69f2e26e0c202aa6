"""Put the web page together: its table, the way to the controller, and what the health checks left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labctl import wiring
from labctl.cli import printer
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from labctl.domain.health.results import Findings
    from labctl.web.sight import Ask, Sources

SILENCE_S = 10.0
"""How long the controller may say nothing to an order, before browsers are told so."""

LOOK_S = 4.0
"""The same for a look. A scrape waits for two such silences at most, and Prometheus waits for 10 s: it is to
hear that the controller is away, and not to take the page for it."""

_LOOKS = frozenset({"status", "events", "energy"})

_MOST_BYTES = 16 * 1024 * 1024


def run(path: Path) -> None:
    """Serve the table at ``path`` until a signal ends it.

    Raises:
        LabctlError: it cannot begin.
    """
    from labctl.web import serving
    from labctl.web.reading import read_table

    table = read_table(path)
    scheme = "https" if table.certificate else "http"
    printer.err(
        f"the rack on {scheme}://{f'[{table.listen}]' if ':' in table.listen else table.listen}:{table.port}"
    )
    sources = sources_of(Path(table.controller), Path(table.results))
    serving.serve(table, path.parent, sources, wiring.notify(), watchdog_s=wiring.watchdog_s())


def sources_of(socket: Path, results: Path) -> Sources:
    """Return where the page's contents come from: the controller's socket, and the file of results."""
    from labctl.adapters.clock import wall_s
    from labctl.web.sight import Sources

    return Sources(asks(socket), lambda: findings_in(results), wall_s, wiring.clock().monotonic)


def asks(socket: Path) -> Ask:
    """Return what asks the controller at a socket; each question is a connection of its own."""
    from labctl.controller.api.client import Controller, silent

    def ask(verb: str, by: str, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        silence_s = LOOK_S if verb in _LOOKS else SILENCE_S
        try:
            conversation = wiring.conversation_here(socket, silence_s=silence_s)
        except OSError as error:
            raise silent(
                f"{socket}: {error.strerror or error}", "systemctl status labctl-controller"
            ) from None
        with Controller(conversation, by) as controller:
            return list(controller.ask(verb, **fields))

    return ask


def findings_in(path: Path) -> Findings | None:
    """Return what the health checks left in a file; None: nothing, or nothing whole."""
    from labctl.domain.health.results import results_of

    try:
        with path.open("rb") as file:
            return results_of(json.loads(file.read(_MOST_BYTES)))
    except (OSError, ValueError, RecursionError):
        return None


def rendered(rack: Path) -> Path:
    """Write the table of a rack file and what it names to a private folder; return the table's path.

    Raises:
        LabctlError: the rack has no web page, or a secret cannot be read.
    """
    from labctl.inventory import load_rack
    from labctl.render import web as wanted

    loaded = load_rack(rack)
    socket = str(wiring.controller_socket())
    parts = wanted.ready(loaded.rack, loaded.folder, wiring.environment(), loaded.place, socket)
    folder = wiring.private_dir(wiring.state_home())
    for part in ("web", loaded.rack.name):
        folder = wiring.private_dir(folder / part)
    for name, content in {**parts.files, "table.json": parts.table.encode()}.items():
        place = folder / name
        try:
            place.unlink(missing_ok=True)
            with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        except OSError as error:
            raise LabctlError(f"{place}: cannot be written: {error.strerror}") from None
    return folder / "table.json"
