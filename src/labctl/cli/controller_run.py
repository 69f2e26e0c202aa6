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
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from labctl import __version__, wiring
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.controller.doors import Doors
    from labctl.controller.service import Service
    from labctl.inventory import LoadedRack
    from labctl.ports import Said
    from labctl.ports.power import Switch

_LOG = "labctl.controller"


def run(path: Path) -> ExitCode:
    """Run the controller of a rack file, or of the rack as data, until a signal ends it.

    Raises:
        LabctlError: it cannot begin.
    """
    from labctl.adapters.seats import Seats
    from labctl.controller import run as running
    from labctl.inventory.sleeping import policy_of
    from labctl.inventory.tariff import energy_policy

    loaded = _load(path)
    _log_to_stderr()
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # Not the pid alone: after a restart of the machine another process may have the same.
    name = f"{socket.gethostname()} {secrets.token_hex(4)}"
    seats = Seats(_home(loaded) / "seats")
    with suppress(OSError):  # without a seat its successor waits for its beats to be missed, and no more
        seats.sit(name)
    doors = doors_of(loaded, over, gone=seats.empty)
    energy = energy_policy(loaded.rack.timezone, loaded.rack.tariff)
    parts = running.assembled(doors, policy_of(loaded.rack), name, energy)
    running.run(parts, over=over, notify=wiring.notify(), serve=lambda asked: serve(loaded, asked))
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


def doors_of(loaded: LoadedRack, over: threading.Event, *, gone: Callable[[str], bool]) -> Doors:
    """Return everything that a controller acts through, for a rack as its own host has it.

    Whatever rests when ``over`` is set ends with a ``PowerError``; power that is cut is given again then.
    ``gone`` says whether another controller's process is dead for certain.

    Raises:
        StoreError: the store cannot be used.
        LabctlError: the address of its database cannot be read.
    """
    from labctl.adapters.clock import SleeplessClock
    from labctl.adapters.power.cycle import Pace, cycle
    from labctl.adapters.ssh import SshRemote
    from labctl.controller.doors import AGENT, Doors
    from labctl.inventory.controlling import OLD_STORE, STORE, agent_data
    from labctl.ports.power import PowerError

    ssh, clock = SshRemote(), SleeplessClock()
    data = {name: agent_data(one, loaded.folder) for name, one in loaded.host_data.items()}
    if loaded.path.suffix != ".json" and loaded.rack.controller_key is not None:
        key = loaded.folder / loaded.rack.controller_key.expanduser().with_suffix("")
        data = {name: {**one, "ssh_key": str(key)} for name, one in data.items()}

    def ask(host: str, verb: str, stdin: bytes, deadline_s: float) -> Said:
        return ssh.run(host, data[host], (AGENT, verb), root=False, stdin=stdin, deadline_s=deadline_s)

    def rest(seconds: float) -> None:
        if over.wait(seconds):
            raise PowerError(
                "refused", "the controller was told to stop", "it goes on when it is started again"
            )

    pace = Pace(wait=rest, now=clock.monotonic)
    place = _store_place(loaded)
    if place == Path(STORE):
        wiring.move_store(Path(OLD_STORE), Path(STORE))
    return Doors(
        store=wiring.store(place, create=True),
        talker=ssh,
        remote=ssh,
        looks=wiring.looks(loaded),
        switches=_switches(loaded, ask),
        clock=clock,
        data=data,
        rest=rest,
        cycle=lambda switch, verdict: cycle(switch, verdict, pace).because,
        gone=gone,
        meters=wiring.meters(loaded),
    )


def _switches(loaded: LoadedRack, ask: Callable[[str, str, bytes, float], Said]) -> dict[str, Switch]:
    """Return what switches the power of each host; ``ask`` has another host's agent do something."""
    from labctl.adapters.power.pair import Pair

    found: dict[str, Switch] = {}
    for host in loaded.rack.hosts:
        note = partial(logging.getLogger(_LOG).info, "host=%s note=%s", host.name)
        wakes = wiring.switch_for(loaded, host.name, ask=ask, note=note)
        powers = None if host.power is None else wiring.power_of(loaded, host.name)
        found[host.name] = wakes if powers is None else Pair(wakes, powers, note=note)
    return found


def _home(loaded: LoadedRack) -> Path:
    """Return the folder of a controller's own files on this machine."""
    from labctl.inventory.controlling import HOME

    return Path(HOME) if loaded.path.suffix == ".json" else wiring.private_dir(wiring.state_home())


def _store_place(loaded: LoadedRack) -> str | Path:
    """Return where the store of a rack is, as its controller's host has it."""
    from labctl.inventory.controlling import STORE, STORE_URL

    deployed = loaded.path.suffix == ".json"
    named = None if loaded.rack.controller is None else loaded.rack.controller.store_url_file
    if named is None:
        return Path(STORE) if deployed else _home(loaded) / "store.db"
    file = loaded.folder / (STORE_URL if deployed else Path(named).expanduser())
    try:
        address = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise LabctlError(f"{file}: the address of the store cannot be read: {error}") from None
    if "://" not in address:
        # Never taken for a file's name, which would be shown: it may be a password.
        form = "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        raise LabctlError(f"{file}: holds no address of a database", hint=f"its form is {form}")
    return address


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
