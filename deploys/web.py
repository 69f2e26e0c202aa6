"""The web page and the rack's metrics: a process beside the controller, on its host, and nowhere else.

It runs from the labctl that the controller's deploy installs, as a user of its own, and reads one folder: no
key of a host, no secret that switches power, and of its own keys the hashes.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack
from labctl.ops import files, leftovers, systemd, users
from labctl.render import units
from labctl.render import web as wanted


@deploy("Web page")
def web() -> None:
    """Install, configure and start the web page where the inventory wants it, and remove it elsewhere."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    here = wanted.runs_on(rack, spec)
    path = f"{units.UNIT_DIR}/{wanted.UNIT}"
    leftovers.units(name="web page that moved away", pattern=path, keep=(path,) if here else ())
    if not here:
        leftovers.within(name="what it read", folder=wanted.FOLDER, keep=())
        return
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    parts = wanted.ready(rack, Path(host.data.ssh_known_hosts_file).parent, os.environ)
    account()
    files.directory(name="folder", path=wanted.FOLDER, mode="750", group=wanted.USER)
    kept = [wanted.TABLE]
    for name, content in parts.files.items():
        hidden = name == wanted.PRIVATE_KEY
        kept.append(f"{wanted.FOLDER}/{name}")
        files.put(
            name=name,
            dest=kept[-1],
            content=content,
            mode="400" if hidden else "640",
            user=wanted.USER if hidden else "root",
            group=wanted.USER,
            secret=hidden,
            restarts=wanted.UNIT,
        )
    files.put(
        name="table",
        dest=wanted.TABLE,
        content=parts.table,
        mode="640",
        group=wanted.USER,
        restarts=wanted.UNIT,
    )
    leftovers.within(name="what it reads no more", folder=wanted.FOLDER, keep=tuple(kept))
    systemd.unit(name="service", unit=wanted.UNIT, content=wanted.unit(rack, parts), watch_s=2.0)


def account() -> None:
    """Have the user that it runs as; the controller asks for it too, to know what he may ask."""
    users.program(name="the web page's user", runs_as=wanted.USER)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    web()
