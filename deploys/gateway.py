"""The gateway: one endpoint for all models of the rack, on one always-on host, and nowhere else.

It gets the table of what it may ask, the keys that its upstreams want, and its own certificate: no key of a
host, no secret that switches power, no rack file. Whatever changes means other instances beside those that
serve; the old ones go when the new ones are ready, and no connection is lost.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra import logger
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack
from labctl.inventory.controlling import STORE_GROUP
from labctl.inventory.gatewaying import FOLDER, TABLE, USER
from labctl.ops import apt, files, leftovers, systemd, users
from labctl.ops import controller as own
from labctl.ops import gateway as rolling
from labctl.render import controller as program
from labctl.render import gateway as wanted
from labctl.render import gateway_table as tables

PACKAGES = ("python3-venv", "iproute2")


@deploy("Gateway")
def gateway() -> None:
    """Install, configure and roll the gateway where the inventory wants it, and remove it elsewhere."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    if not wanted.runs_on(rack, spec):
        rolling.gone(
            name="gateway that moved away",
            socket=wanted.SOCKET,
            pattern=wanted.INSTANCES,
            paths=(wanted.SOCKET_PATH, wanted.TEMPLATE_PATH),
        )
        leftovers.within(name="what it read", folder=FOLDER, keep=())
        return
    for reason in tables.dropped(rack):
        logger.warning(f"{host.name}: the gateway does not serve {reason}")
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent
    parts = wanted.ready(rack, wanted.places(rack), folder, os.environ)
    apt.packages(name="packages", names=PACKAGES)
    account(rack)
    build = environment(rack)
    configuration(parts, f"{program.folder_for(build)}/bin/python")
    instances(rack, build, wanted.instances(rack, build, parts))


def account(rack: Rack) -> None:
    """Have the user that it runs as; the controller of its host asks for it too, to know who may nudge it."""
    groups = (STORE_GROUP,) if wanted.places(rack).store else ()
    for group in groups:
        users.group(name="group of the store, for the gateway", group=group, system=True)
    users.program(name="the gateway's user", runs_as=USER, groups=groups)


def instances(rack: Rack, build: str, names: tuple[str, ...]) -> None:
    """Have exactly these instances, and the socket that they share."""
    systemd.unit(
        name="what an instance is",
        unit=wanted.TEMPLATE,
        content=wanted.unit(rack, build),
        enabled=None,
        running=None,
    )
    systemd.unit(
        name="socket",
        unit=wanted.SOCKET,
        content=wanted.socket(rack, names[0]),
        enabled=None,
        running=None,
    )
    rolling.rolled(
        name="instances",
        wanted=names,
        socket=wanted.SOCKET,
        pattern=wanted.INSTANCES,
        listens=wanted.held(rack),
    )


def environment(rack: Rack) -> str:
    """Have labctl itself, which the controller shares where both run on one host; return its digest."""
    bundle = program.bundle()
    digest = program.digest(rack, bundle)
    assert rack.controller is not None
    own.environment(
        name="labctl itself, for the gateway",
        target=program.folder_for(digest),
        digest=digest,
        bundle=bundle,
        python=rack.controller.python,
        options=program.options(rack),
        unit="",
    )
    return digest


def configuration(parts: wanted.Ready, python: str) -> None:
    """Have everything that the gateway reads in one folder; the table comes last, since it names the rest."""
    files.directory(name="folder", path=FOLDER, mode="750", group=USER)
    for one in parts.beside:
        files.put(
            name=one.name,
            dest=one.dest,
            content=parts.contents[one.name],
            mode="400" if one.hidden else "640",
            user=USER if one.hidden else "root",
            group=USER,
            secret=one.hidden,
        )
    files.put(
        name="table",
        dest=TABLE,
        content=parts.table,
        mode="640",
        group=USER,
        validate=(python, "-I", "-m", "labctl.cli.gateway_run", "--check"),
    )
    keep = (TABLE, *(one.dest for one in parts.beside))
    leftovers.within(name="what it reads no more", folder=FOLDER, keep=keep)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    gateway()
