"""Health that is looked after by itself: a timer on the controller's host, which tells who is to be told.

Wanted where the rack file has ``Rack(health=Health(...))`` beside a controller, whose labctl it runs. A host
where it is not wanted any more loses the units and all that they read, secrets above all; what was told, and
the newest results, stay.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack
from labctl.inventory.controlling import KEY, KNOWN_HOSTS
from labctl.inventory.health import FOLDER, HOME, RACK, USER
from labctl.ops import files, leftovers, systemd, users
from labctl.render import health as wanted
from labctl.render import units


@deploy("Health")
def health() -> None:
    """Look after health where the inventory wants it, and stop it elsewhere."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    here = wanted.runs_on(rack, spec)
    for unit in wanted.UNITS:
        path = f"{units.UNIT_DIR}/{unit}"
        leftovers.units(name=f"{unit} that moved away", pattern=path, keep=(path,) if here else ())
    if not here:
        leftovers.within(name="what it read", folder=FOLDER, keep=())
        return
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    pinned = Path(host.data.ssh_known_hosts_file)
    account()
    configuration(rack, pinned)
    systemd.unit(name="service", unit=wanted.UNIT, content=wanted.unit(rack), enabled=None, running=None)
    systemd.unit(name="timer", unit=wanted.TIMER, content=wanted.timer(rack))


def account() -> None:
    """Have the user that it runs as; the controller asks for it too, to know who may ask for its status."""
    users.program(name="user that looks after health", runs_as=USER, home=HOME)


def configuration(rack: Rack, pinned: Path) -> None:
    """Have everything that it reads in one folder; ``pinned`` is the file of pinned host keys."""
    files.directory(name="folder", path=FOLDER, mode="750", group=USER)
    files.put(name="rack", dest=RACK, content=wanted.rack_json(rack), mode="640", group=USER)
    files.put(
        name="pinned host keys",
        dest=f"{FOLDER}/{KNOWN_HOSTS}",
        content=pinned.read_bytes() if pinned.exists() else b"",
        mode="640",
        group=USER,
    )
    secrets = {f"{FOLDER}/{KEY}": wanted.key_content(rack, pinned.parent)}
    secrets |= {one.dest: one.content(pinned.parent, os.environ).encode() for one in wanted.kept(rack)}
    for dest, content in secrets.items():
        files.put(
            name=f"its copy of {Path(dest).name}",
            dest=dest,
            content=content,
            mode="400",
            user=USER,
            group=USER,
            secret=True,
        )
    leftovers.within(name="what it reads no more", folder=FOLDER, keep=wanted.read(rack))


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    health()
