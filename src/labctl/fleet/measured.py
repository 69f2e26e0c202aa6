"""Read from hosts what their running engines really took, over SSH; nothing is loaded or changed for it.

Three questions to each host, all answered by its own tools:

- its journal: what llama-server's units said when they loaded (buffers, where printed, and the time);
- ``nvidia-smi``: what each process holds of each card;
- ``ps``: which of these processes serves which model.

What an engine says goes before what the driver says of its process. Whatever is not there is left out.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labctl.domain.fit import journal
from labctl.domain.fit.journal import RAM, Said
from labctl.domain.fit.measured import PROCESS, Measured
from labctl.domain.fit.terms import MIB
from labctl.fleet import sessions
from labctl.fleet.sessions import Answer, Question
from labctl.inventory import LoadedRack, memory
from labctl.inventory.fitting import Sizes, row, use_key
from labctl.inventory.served import Loads, Served
from labctl.inventory.services import LlamaServer
from labctl.ports import Remote

DEADLINE_S = 30.0
_MOST_LINES = 4000
_PROCESSES = Question(
    ("nvidia-smi", "--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader,nounits"),
    root=True,
)
_PS = Question(("ps", "-ww", "-e", "-o", "pid=,args="), root=True)


@dataclass(frozen=True, slots=True)
class Told:
    """What a host told: lines of its units' journals, what processes hold, and their command lines."""

    journals: Mapping[str, Sequence[tuple[float, str]]]
    held: Mapping[int, Mapping[str, int]]
    commands: Mapping[int, str]


def ask(loaded: LoadedRack, hosts: Sequence[Loads], remote: Remote) -> dict[str, Told | Answer]:
    """Ask those hosts; of one that does not answer, return its answer."""
    data = {one.host.name: loaded.host_data[one.host.name] for one in hosts}
    units = {one.host.name: _units(one) for one in hosts}
    journals = sessions.ask(data, lambda host: _journal(units[host]), remote, deadline_s=DEADLINE_S)
    reached = {name: data[name] for name, answer in journals.items() if answer.said is not None}
    held = sessions.ask(reached, _PROCESSES, remote, deadline_s=DEADLINE_S)
    commands = sessions.ask(reached, _PS, remote, deadline_s=DEADLINE_S)
    return {
        name: Told(_lines(answer), _held(held[name]), _commands(commands[name]))
        if name in reached
        else answer
        for name, answer in journals.items()
    }


def _units(one: Loads) -> tuple[str, ...]:
    own = (served.service for served in one.served if served.host == one.host.name)
    return tuple(f"labctl-{service}.service" for service in dict.fromkeys(own))


def _journal(units: Sequence[str]) -> Question:
    named = [word for unit in units for word in ("--unit", unit)]
    return Question(
        (
            # Some releases turn the order round when --grep meets --lines; so it is always asked for.
            *("journalctl", "--no-pager", "--boot", "--reverse", "--output=json", f"--lines={_MOST_LINES}"),
            *("--output-fields=MESSAGE,_SYSTEMD_UNIT", f"--grep={journal.PATTERN}", *named),
        ),
        root=True,
    )


def _text(answer: Answer) -> str:
    return "" if answer.said is None else answer.said.stdout.decode("utf-8", "replace")


def _lines(answer: Answer) -> dict[str, list[tuple[float, str]]]:
    found: dict[str, list[tuple[float, str]]] = {}
    for line in reversed(_text(answer).splitlines()):
        try:
            entry = json.loads(line)
            moment = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
            found.setdefault(str(entry["_SYSTEMD_UNIT"]), []).append((moment, str(entry["MESSAGE"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line that is none of ours
    return found


def _held(answer: Answer) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for cells in csv.reader(_text(answer).splitlines(), skipinitialspace=True):
        if len(cells) == 3 and cells[0].isdecimal() and cells[2].isdecimal():
            cards = found.setdefault(int(cells[0]), {})
            cards[cells[1]] = cards.get(cells[1], 0) + int(cells[2]) * MIB
    return found


def _commands(answer: Answer) -> dict[int, str]:
    pairs = (line.split(None, 1) for line in _text(answer).splitlines())
    return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2 and pair[0].isdecimal()}


def measured(
    loaded: LoadedRack, one: Loads, told: Told, sizes: Sizes, when: str
) -> dict[str, tuple[Served, Measured]]:
    """Return what was measured of a host's models, by the key under which it is kept."""
    found = {}
    for served in one.served:
        made = row(loaded.rack, served, sizes)
        if made.use is None or served.host != one.host.name:
            continue
        said = _said(served, told)
        shares = _shares(served, said) or _by_process(one, served, told)
        if shares or said.load_s is not None:
            size = sizes.shapes[served.model.id].file_bytes or sizes.shapes[served.model.id].weight_bytes
            result = Measured(when, one.host.name, served.model.id, shares, said.load_s, size)
            found[use_key(loaded.rack, served, made.use)] = (served, result)
    return found


def _said(served: Served, told: Told) -> Said:
    """Return what the engine's own unit said; under llama-swap no unit is one engine's alone."""
    alone = isinstance(served.engine, LlamaServer) and "models" not in served.path
    return journal.read(told.journals.get(f"labctl-{served.service}.service", ()) if alone else ())


def _shares(served: Served, said: Said) -> dict[str, dict[str, int]]:
    cards = [device.name for device in served.devices if device.kind != "ram"]
    names = {RAM: served.devices[-1].name, **dict(enumerate(cards))}
    return {names[number]: dict(parts) for number, parts in said.shares.items() if number in names}


def _by_process(one: Loads, served: Served, told: Told) -> dict[str, dict[str, int]]:
    """Return what the model's process holds of each card."""
    cards = {gpu.uuid: memory.name_of(gpu) for gpu in one.host.gpus if gpu.uuid is not None}
    pids = [pid for pid in told.held if _serves(served, told.commands.get(pid, ""))]
    found: dict[str, dict[str, int]] = {}
    for uuid, size in _items(told.held[pid] for pid in pids):
        if uuid in cards:
            parts = found.setdefault(cards[uuid], {PROCESS: 0})
            parts[PROCESS] += size
    return found


def _items(every: Iterable[Mapping[str, int]]) -> Iterable[tuple[str, int]]:
    return (item for one in every for item in one.items())


def _serves(served: Served, command: str) -> bool:
    words = command.split()
    return served.model.main in words
