"""Run the controller in the foreground: put its parts together, open its door, stop when told to.

What it says goes to standard error, a line each, where systemd keeps it. SIGTERM and Ctrl-C let acts under
way come to their end first.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from labctl import __version__, wiring
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.controller.service import Service
    from labctl.inventory import LoadedRack

_LOG = "labctl.controller"


def run(path: Path) -> ExitCode:
    """Run the controller of a rack file, or of the rack as data, until a signal ends it.

    Raises:
        LabctlError: it cannot begin.
    """
    from labctl.controller import run as running
    from labctl.controller.notify import Notify
    from labctl.inventory.sleeping import policy_of

    loaded = _load(path)
    _log_to_stderr()
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # Not the pid alone: after a restart of the machine another process may have the same.
    name = f"{socket.gethostname()} {secrets.token_hex(4)}"
    parts = running.assembled(wiring.controller_doors(loaded), policy_of(loaded.rack), name)
    running.run(
        parts, over=over, notify=Notify(wiring.notify_socket()), serve=lambda asked: serve(loaded, asked)
    )
    return ExitCode.OK


def serve(loaded: LoadedRack, service: Service) -> Callable[[], None]:
    """Open the door of a controller, and return what closes it.

    Raises:
        LabctlError: another controller keeps it, or its place cannot be used.
    """
    from labctl.controller.api.peers import allowed
    from labctl.controller.api.server import Door, Server, greeting
    from labctl.controller.api.verbs import Verbs

    log = logging.getLogger(_LOG)
    operators = () if loaded.rack.controller is None else loaded.rack.controller.operators
    who = allowed(operators)
    for name in who.missing:
        log.warning("the operator %s is no user of this machine", name)
    door = Door(wiring.controller_socket(), who, greeting(loaded.rack.name, __version__), log.error)
    server = Server(door, Verbs(service, wiring.clock().monotonic).answer)
    server.start()
    return server.stop


def _load(path: Path) -> LoadedRack:
    from labctl.inventory import load_rack
    from labctl.inventory.data import load_data

    loaded = load_data(path) if path.suffix == ".json" else load_rack(path)
    if loaded.rack.controller is None:
        raise LabctlError(
            f"{path}: this rack has no controller",
            hint="name the host it shall run on: Rack(controller=Controller(host=...))",
        )
    return loaded


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger(_LOG)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
