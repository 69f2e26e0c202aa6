"""The commands about the rack file: start one, check it, print its schema. None connects to anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import wiring
from labctl.cli import printer
from labctl.domain.problem import ExitCode, LabctlError, Problem

if TYPE_CHECKING:
    from labctl.inventory import LoadedRack


@click.command(
    epilog="""\b
Examples:
  labctl init my-rack     create my-rack/inventory/rack.py and a key pair
  labctl init .           the same in the current folder
"""
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Start a new rack: a commented example to edit, and a key pair for it.

    Creates DIR/inventory with rack.py, keys/operator (never share it), keys/operator.pub and a .gitignore. An
    existing DIR/inventory is left alone.
    """
    from labctl import content
    from labctl.inventory.scaffold import create

    made = create(directory, content.example_rack().read_bytes())
    shown = directory / "inventory"
    printer.out(f"created {shown / 'rack.py'} and the key pair {shown / 'keys' / 'operator'}")
    printer.out()
    printer.out("Describe your machines in rack.py and put the public key on each of them, for example with")
    printer.out(f"  ssh-copy-id -i {shown / 'keys' / made.public_key.name} admin@HOST")
    printer.out()
    printer.out("Then:")
    for command, purpose in (
        ("validate", "is the file right?"),
        ("enroll HOST...", "pin the SSH host keys of your machines"),
        ("plan", "what would be changed?"),
    ):
        place = "" if directory == Path() else f"cd {directory} && "
        printer.out(f"  {place + 'labctl ' + command:<40}  # {purpose}")


def _load(file: Path) -> tuple[LoadedRack, list[str]]:
    """Return the rack and the hosts without a pinned key; raise ``LabctlError`` for both files."""
    from labctl.inventory import known_hosts, load_rack, watts

    problems: list[Problem] = []
    pinned: tuple[known_hosts.KnownHost, ...] = ()
    loaded = None
    try:
        loaded = load_rack(file)
        problems += watts.refusals(loaded)
    except LabctlError as error:
        problems += error.problems
    try:
        pinned = known_hosts.load(file.parent / "known_hosts")
    except LabctlError as error:
        problems += error.problems
    if loaded is None or problems:
        raise LabctlError(problems)
    return loaded, [
        host.name
        for host in loaded.rack.hosts
        if not known_hosts.lookup(pinned, host.address, loaded.rack.ssh_for(host).port)
    ]


def _notes(loaded: LoadedRack, strangers: list[str]) -> list[str]:
    """Say what is fine for a rack file, but in the way of ``labctl plan``."""
    notes = []
    keys = {loaded.rack.key_for(host, loaded.folder) for host in loaded.rack.hosts}
    notes += [f"the key {key} does not exist yet" for key in sorted(keys) if not key.is_file()]
    notes += _notes_on_controller(loaded)
    notes += _notes_on_gateway(loaded)
    if strangers:
        notes.append(f"not enrolled yet: {', '.join(strangers)} (labctl enroll {' '.join(strangers)})")
    return notes


def _notes_on_controller(loaded: LoadedRack) -> list[str]:
    """Say which of its files the controller could not use."""
    from labctl.render import controller

    rack, notes = loaded.rack, []
    if rack.controller_key and not (loaded.folder / rack.controller_key.expanduser()).is_file():
        notes.append(f"the key {loaded.folder / rack.controller_key.expanduser()} does not exist yet")
    for one in controller.copied(rack) if rack.controller else ():
        try:
            controller.content_of(one, loaded.folder)
        except LabctlError as error:
            notes.append(str(error))
    return notes


def _notes_on_gateway(loaded: LoadedRack) -> list[str]:
    """Say which of its keys and files the gateway could not use, and which models it does not serve."""
    if loaded.rack.gateway is None:
        return []
    from labctl.render import gateway
    from labctl.render.gateway_table import dropped

    notes = [f"the gateway does not serve {reason}" for reason in dropped(loaded.rack)]
    try:
        gateway.ready(
            loaded.rack, gateway.places(loaded.rack), loaded.folder, wiring.environment(), loaded.place
        )
    except LabctlError as error:
        notes += map(str, error.problems)
    return notes


def _summary(loaded: LoadedRack) -> dict[str, Any]:
    rack = loaded.rack
    return {
        "ok": True,
        "file": str(loaded.path),
        "rack": rack.name,
        "hosts": len(rack.hosts),
        "gpus": sum(len(host.gpus) for host in rack.hosts),
        "services": sum(len(host.services) for host in rack.hosts),
        "models": len(rack.models),
        "groups": {name: list(members) for name, members in loaded.groups.items()},
    }


@click.command(
    epilog="""\b
Examples:
  labctl validate                        ./inventory/rack.py
  labctl validate inventory/rack.py      this file
  labctl validate --json | jq .problems  for scripts
"""
)
@click.argument("rack", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, problems included.")
def validate(rack: str | None, *, as_json: bool) -> int:
    """Check the rack file and show every error at once, with its line.

    Also checks that the parts agree (names, addresses, ports, references, circles), that power supplies and
    circuits give the watts that are needed, and that the file of pinned host keys can be read. Connects to
    nothing and changes nothing. Exit code 2 if anything is wrong.
    """
    from labctl.inventory.report import in_short

    try:
        loaded, strangers = _load(wiring.find_inventory(rack))
    except LabctlError as error:
        if not as_json:
            raise
        from dataclasses import asdict

        printer.emit_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
        return error.code
    found = _summary(loaded)
    notes = _notes(loaded, strangers)
    if as_json:
        printer.emit_json({**found, "problems": [], "not_enrolled": strangers, "notes": notes})
        return ExitCode.OK
    counts = ", ".join(
        f"{found[what]} {name if found[what] != 1 else name[:-1]}"
        for what, name in (
            ("hosts", "hosts"),
            ("gpus", "GPUs"),
            ("services", "services"),
            ("models", "models"),
        )
    )
    printer.out(f"{in_short(loaded.path)}: rack {loaded.rack.name} is valid ({counts})")
    for note in notes:
        printer.out(f"note: {note}")
    return ExitCode.OK


@click.command(
    epilog="""\b
Examples:
  labctl schema > rack.schema.json
  labctl schema --indent 0 | jq '."$defs".Host.properties | keys'
"""
)
@click.option(
    "--indent",
    type=click.IntRange(0, 8),
    default=2,
    show_default=True,
    help="Spaces for each level; 0 prints one line.",
)
def schema(indent: int) -> None:
    """Print the JSON Schema of everything that a rack may say."""
    import json

    from labctl.inventory import Rack

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Rack.model_json_schema()}
    printer.out(json.dumps(document, indent=indent or None, ensure_ascii=False))
