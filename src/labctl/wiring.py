"""Where labctl meets its surroundings: the environment, its directories, and which adapter serves a port.

This is the only module that reads the environment, so that everything else can be told what to believe. The
order of precedence is always the same: what was typed, then labctl's own variable, then the XDG one, then the
usual place. Nothing is created here except by ``private_dir``.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labctl.domain.problem import LabctlError
from labctl.ports import Clock, Ranges, Remote, Said, Talker

if TYPE_CHECKING:
    from labctl.adapters.power import Surroundings
    from labctl.fitting.gate import Headers
    from labctl.fitting.shapes import Readers
    from labctl.inventory import LoadedRack, Secret
    from labctl.inventory.hosts import Host
    from labctl.ports import Conversation
    from labctl.ports.notify import Notify
    from labctl.ports.power import Looks, Meter, Switch
    from labctl.ports.store import Store

Ask = Callable[[str, str, bytes, float], Said]
"""Runs a verb of the agent: host, verb, what it reads, and seconds that it may take."""
COMPLETION_VARIABLE = "_LABCTL_COMPLETE"
_RACK = Path("inventory/rack.py")


def _home(own: str, xdg: str, usual: str) -> Path:
    if given := os.environ.get(own):
        return Path(given).expanduser().absolute()
    base = os.environ.get(xdg, "")
    # The XDG specification says that a relative path in its variables must be ignored.
    root = Path(base) if base.startswith("/") else Path.home() / usual
    return root / "labctl"


def state_home() -> Path:
    """Return where logs and records live: $LABCTL_STATE, else below $XDG_STATE_HOME or ~/.local/state."""
    return _home("LABCTL_STATE", "XDG_STATE_HOME", ".local/state")


def cache_home() -> Path:
    """Return where things live that may be deleted at any time: $LABCTL_CACHE, else the XDG cache."""
    return _home("LABCTL_CACHE", "XDG_CACHE_HOME", ".cache")


def private_dir(path: Path) -> Path:
    """Create the directory for this user alone where it does not exist yet, and return it.

    Raises:
        LabctlError: it cannot be made, or is something else than a directory.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabctlError(
            f"{path}: cannot be made: {error.strerror}",
            hint="LABCTL_STATE=DIR and LABCTL_CACHE=DIR name other places for labctl's own files",
        ) from error
    return path


def who() -> str:
    """Return who is at work, as another person would need it: user, machine and process."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"


def is_root() -> bool:
    """Return whether this process may do what only root may."""
    return os.geteuid() == 0


def colour_refused() -> bool:
    """Return whether the person asked for no colours (https://no-color.org, or a terminal without any)."""
    return bool(os.environ.get("NO_COLOR")) or dumb_terminal()


def dumb_terminal() -> bool:
    """Return whether the terminal can neither colour nor redraw (an editor's shell, say)."""
    return os.environ.get("TERM") == "dumb"


def completing() -> bool:
    """Return whether a shell started us to complete a word."""
    return COMPLETION_VARIABLE in os.environ


def shell() -> str:
    """Return the name of the person's shell, or nothing when unknown."""
    return Path(os.environ.get("SHELL", "")).name


def inventory_candidates() -> tuple[Path, ...]:
    """Return where a rack file is looked for when none was named, best first."""
    named = os.environ.get("LABCTL_INVENTORY")
    return (Path(named),) if named else (_RACK, Path("/etc/labctl") / _RACK)


def find_inventory(given: str | None) -> Path:
    """Return the absolute path of the rack file; a directory means the ``rack.py`` in it.

    Raises:
        LabctlError: the named file does not exist, or none was named and none is in the usual places.
    """
    candidates = (Path(given),) if given else inventory_candidates()
    for candidate in candidates:
        for path in (candidate, *_racks_in(candidate)):
            if path.is_file():
                return path.absolute()
    if len(candidates) == 1:
        raise LabctlError(f"there is no rack file {candidates[0]}", hint="start one with: labctl init DIR")
    raise LabctlError(
        f"no rack file found; looked for {' and '.join(str(path) for path in candidates)}",
        hint="name one (labctl plan path/to/rack.py), or start one with: labctl init DIR",
    )


def _racks_in(folder: Path) -> tuple[Path, ...]:
    return folder / "rack.py", folder / _RACK


def holds_inventory(folder: Path) -> bool:
    """Return whether a directory, named as the inventory, would lead to a rack file."""
    return any(path.is_file() for path in _racks_in(folder))


def cpu_count() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def worker_argv() -> tuple[str, ...]:
    """Return how to start a worker: always the one of this installation."""
    from labctl.provision.process import WORKER_ARGV

    return WORKER_ARGV


def clock() -> Clock:
    """Return the clock of this machine."""
    from labctl.adapters.clock import SystemClock

    return SystemClock()


def remote() -> Remote:
    """Return the way to run commands on hosts: SSH, to hosts whose keys are pinned."""
    from labctl.adapters.ssh import SshRemote

    return SshRemote()


class _Late:
    """Becomes what ``make`` makes when it is first used: paramiko takes 0.2 s that few need."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: object | None = None

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return getattr(self._made, name)


def shapes(loaded: LoadedRack, *, keep: bool = True) -> Headers:
    """Return the way to read the headers of a rack's models; with ``keep``, each is read once and kept."""
    from labctl.fitting.shapes import Shapes

    cache = private_dir(cache_home() / "shapes") if keep else None
    ways = readers(cast(Remote, _Late(remote)), loaded.host_data)
    return Shapes(loaded.rack, ways, cache, lambda reference: secret(reference, loaded.folder))


def readers(remote: Remote, hosts: Mapping[str, Mapping[str, Any]]) -> Readers:
    """Return the ways to a file; ``hosts`` is connection data, as ``LoadedRack.host_data`` holds it."""
    from labctl.adapters.file_ranges import FileRanges
    from labctl.fitting.host_ranges import HostRanges
    from labctl.fitting.shapes import Readers

    return Readers(
        local=FileRanges,
        web=_web_ranges,
        host=lambda host, path: HostRanges(remote, host, hosts[host], path),
    )


def _web_ranges(url: str, token: str | None) -> AbstractContextManager[Ranges]:
    # Only now: the library takes 13 MB, and most models are read on hosts or were read before.
    from labctl.adapters.http_ranges import HttpRanges

    return HttpRanges(url, token=token)


def secret(reference: Secret, folder: Path) -> str:
    """Return a secret's value, for a rack whose file lies in ``folder``.

    Raises:
        LabctlError: it is not there, others may read it, or it is no plain key.
    """
    from labctl.inventory.secrets import value_of

    return value_of(reference, folder, os.environ)


def talker() -> Talker:
    """Return the way to talk with programs on hosts: SSH, to hosts whose keys are pinned."""
    from labctl.adapters.ssh import SshRemote

    return SshRemote()


def controller_socket() -> Path:
    """Return where the controller of this machine listens: $LABCTL_CONTROLLER, else the usual place."""
    from labctl.controller.api import SOCKET

    return Path(os.environ.get("LABCTL_CONTROLLER") or SOCKET)


def controller_is_here() -> bool:
    """Return whether a controller listens on this machine, or did."""
    return controller_socket().is_socket()


def conversation_here(place: Path | None = None, *, silence_s: float = 60.0) -> Conversation:
    """Return a conversation with the controller of this machine; ``place`` is its socket, if not the usual.

    A controller that says nothing for ``silence_s`` is given up.

    Raises:
        OSError: nobody listens there, or this user may not knock.
    """
    from labctl.adapters.local_socket import LocalConversation

    return LocalConversation(place or controller_socket(), silence_s)


def store(place: str | Path | None = None, *, create: bool = False) -> Store:
    """Return the store of controller, gateways and commands.

    Args:
        place: a file, or the address of a database (``Controller.store_url_file`` holds one); default:
            ``store.db`` among labctl's own state.
        create: whether to make it where there is none; the controller does.

    Raises:
        StoreError: it cannot be used; says why.
    """
    # Only now: SQLAlchemy takes 0.2 s that few commands need.
    from labctl.adapters.store import open_store

    return open_store(place or state_home() / "store.db", create=create)


def move_store(old: Path, new: Path) -> None:
    """Have the store of an older labctl at its new place, if it is still at the old one.

    Raises:
        StoreError: it cannot be moved.
    """
    if old.exists():
        from labctl.adapters.store import move_store as move

        move(old, new)


def switch_for(
    loaded: LoadedRack,
    host: str,
    *,
    ask: Ask | None = None,
    note: Callable[[str], None] | None = None,
) -> Switch:
    """Return what wakes a host; `adapters.power.pair` joins it with what ``power_of`` returns.

    Args:
        loaded: the rack.
        host: its name.
        ask: how to run a verb of the agent on another host, for magic packets that it relays; default: as the
            operator, over SSH.
        note: gets what a person should know though it is no error.
    """
    from labctl.adapters.power import switch_for

    spec = loaded.rack.host(host)
    return switch_for(spec.wake, _surroundings(loaded, spec, ask, note))


def power_of(loaded: LoadedRack, host: str) -> Switch | None:
    """Return what sees or cuts a host's power; None where nothing can."""
    from dataclasses import replace

    from labctl.adapters.power import switch_for

    spec = loaded.rack.host(host)
    around = _surroundings(loaded, spec, None, None)
    if spec.power is not None:
        # It does not start the host by cutting it: that is for what wakes it.
        return switch_for(spec.power, replace(around, restarts=False))
    return None if spec.wake.kind in ("none", "wol") else switch_for(spec.wake, around)


def meters(loaded: LoadedRack) -> dict[str, Meter]:
    """Return what sees the watts of hosts at their plugs, by host."""
    from labctl.adapters.power import meters_of

    return meters_of(loaded.rack.hosts, loaded.folder)


def notify(*, patience_s: float = 1.0, alone: Notify | None = None) -> Notify:
    """Return the way to tell systemd how this process is; without systemd ``alone`` is told, or nobody."""
    from labctl.adapters.notify import SystemdNotify

    place = os.environ.get("NOTIFY_SOCKET")
    return alone if alone is not None and not place else SystemdNotify(place, patience_s)


def watchdog_s() -> float:
    """Return within how many seconds systemd wants to hear that this process lives; 0: it does not care."""
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    given = os.environ.get("WATCHDOG_USEC", "")
    return int(given) / 1_000_000 if mine and given.isdigit() else 0.0


def passed_sockets() -> list[socket.socket]:
    """Return the sockets that systemd opened for this process (sd_listen_fds(3)); they are listening."""
    given = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not given.isdigit():
        return []
    first = 3  # after the standard streams
    return [socket.socket(fileno=first + place) for place in range(int(given))]


def environment() -> Mapping[str, str]:
    """Return the variables of this process, for whoever reads secrets by their names."""
    return os.environ


def gateway_key() -> str:
    """Return the key that commands show to the gateway: $LABCTL_GATEWAY_KEY, or nothing."""
    return os.environ.get("LABCTL_GATEWAY_KEY", "")


def looks(loaded: LoadedRack) -> Looks:
    """Return the way to look at the hosts of a rack from outside."""
    from labctl.adapters.looks import Target, Views

    return Views(
        {
            host.name: Target(host.address, loaded.rack.ssh_for(host).port, power_of(loaded, host.name))
            for host in loaded.rack.hosts
        }
    )


def _surroundings(
    loaded: LoadedRack, host: Host, ask: Ask | None, note: Callable[[str], None] | None
) -> Surroundings:
    from labctl.adapters.power import Surroundings
    from labctl.adapters.power.meter import meter_for

    relay = getattr(host.wake, "relay", None)
    told = note or (lambda _: None)
    return Surroundings(
        loaded.folder,
        host.address,
        meter_for(host.base_w, cards=bool(host.gpus)),
        restarts=host.idle.how in ("power-off", "hibernate"),
        relay=None if relay is None else _relay(loaded, relay, ask),
        note=told,
    )


def _relay(loaded: LoadedRack, host: str, ask: Ask | None) -> Callable[[bytes, float], Said]:
    def run(stdin: bytes, deadline_s: float) -> Said:
        if ask is not None:
            return ask(host, "relay", stdin, deadline_s)
        from labctl.render.agent_bundle import PATH

        way = remote()
        data = loaded.host_data[host]
        return way.run(host, data, (PATH, "relay"), root=False, stdin=stdin, deadline_s=deadline_s)

    return run
