"""The gateway's instances: exactly those of the inventory serve, and a change loses no connection.

Instances share one listening socket, which is systemd's. New ones are started beside the old and have said
that they are ready before an old one is told to stop; that one accepts no more and serves what it has to its
end. New ones that do not start are stopped again, and the old ones serve on. Only where the address itself
changes must the old ones let go of it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops import diff
from labctl.ops.command import Commands, Script, operation, text
from labctl.ops.leftovers import OwnFiles
from labctl.render import HEADER

_RUNS = ("active", "reloading", "activating")
_ROLL_S = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """What a host's gateway is doing: its socket's state, and its instances by theirs.

    ``listens``: the socket is open at the right address. ``enabled`` are the instances that start at boot.
    """

    socket: str = "inactive"
    listens: bool = False
    instances: Mapping[str, str] = field(default_factory=dict)
    enabled: tuple[str, ...] = ()

    @property
    def running(self) -> tuple[str, ...]:
        """Return the instances that serve, without those that drain."""
        return tuple(unit for unit, state in self.instances.items() if state in _RUNS)


class Instances(FactBase[Seen]):
    """What a host's gateway is doing."""

    @override
    @staticmethod
    def default() -> Seen:
        """Return that there is none."""
        return Seen()

    @override
    def command(self, socket: str, pattern: str, listens: str) -> StringCommand:
        """Return the command that looks at the socket and at all instances of ``pattern``."""
        words = map(QuoteString, (text("gateway-facts"), "labctl-gateway-facts", socket, pattern, listens))
        return StringCommand("sh", "-c", *words)

    @override
    def process(self, output: list[str]) -> Seen:
        """Read a line for each thing."""
        lines = [line.split() for line in output]
        socket = next((line for line in lines if line[:1] == ["socket"] and len(line) > 2), [])
        return Seen(
            socket[1] if socket else "inactive",
            bool(socket) and socket[2] == "yes",
            {line[1]: line[2] for line in lines if line[:1] == ["instance"] and len(line) > 2},
            tuple(line[1] for line in lines if line[:1] == ["enabled"] and len(line) > 1),
        )


@operation
def rolled(wanted: tuple[str, ...], *, socket: str, pattern: str, listens: str) -> Commands:
    """Have exactly the instances ``wanted`` serve, and start at boot.

    Args:
        wanted: their units; each is named after everything that it runs on.
        socket: the unit of the socket that they share.
        pattern: of all units that may be instances, as systemctl takes it.
        listens: where the socket listens, as ss writes it.
    """
    seen: Seen = host.get_fact(Instances, socket=socket, pattern=pattern, listens=listens)
    new = [unit for unit in wanted if unit not in seen.running]
    old = [unit for unit in dict.fromkeys((*seen.running, *seen.enabled)) if unit not in wanted]
    moves = seen.socket != "active" or not seen.listens
    if not (new or old or moves or set(wanted) - set(seen.enabled)):
        return
    notes = [f"{unit} starts" for unit in new]
    notes += [f"{unit} serves what it has, and ends" for unit in old]
    if moves:
        notes.append(f"listens on {listens}")
    diff.show(socket, b"", b"", notes=notes or ["starts at boot"])
    yield Script("gateway-roll", socket, pattern, listens, *wanted, timeout_s=_ROLL_S)


@operation
def gone(socket: str, pattern: str, paths: tuple[str, ...]) -> Commands:
    """Have no gateway here: no socket, no instances, and no files of their units at ``paths``."""
    found = [path for path in paths if host.get_fact(OwnFiles, pattern=path)]
    if not found:
        host.noop("there is no gateway here")
        return
    for path in found:
        diff.show(path, b"", b"", notes=["is removed, once what it serves has ended"])
    yield Script("gateway-gone", HEADER, socket, pattern, *found)
