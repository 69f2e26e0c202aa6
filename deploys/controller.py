"""The controller: labctl itself on one always-on host, as a service that wakes the others and lets them rest.

It gets the rack as data, the pinned host keys, the secrets that switch power, and its own key, which opens
the agent's door on the other hosts and nothing else. The operator's key never comes here. A host that is
not the controller's any more loses the unit and all that it read, secrets above all; its store stays.

The store's folder belongs to a group, so that the gateway of this host can use it too; what is made in there
is for that group and for nobody else (``adapters.store.sqlite``).
"""

from __future__ import annotations

from pathlib import Path

from deploys.gateway import account
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from deploys import health as watching
from deploys import web as pages
from labctl.inventory import Host, Ipmi, Rack
from labctl.inventory.controlling import HOME, STORE_FOLDER, STORE_GROUP
from labctl.ops import apt, engines, files, leftovers, systemd, users
from labctl.ops import controller as own
from labctl.render import controller as wanted
from labctl.render import gateway as gateways
from labctl.render import units

# What its sandbox hides is hidden from these too: ping, neighbours and BMCs are asked by programs.
PACKAGES = ("python3-venv", "iproute2")


@deploy("Controller")
def controller() -> None:
    """Install, configure and start the controller where the inventory wants it, and remove it elsewhere."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    here = wanted.runs_on(rack, spec)
    path = f"{units.UNIT_DIR}/{wanted.UNIT}"
    leftovers.units(name="controller that moved away", pattern=path, keep=(path,) if here else ())
    leftovers.files(name="ping that it needed", pattern=wanted.PING, keep=(wanted.PING,) if here else ())
    if not here or rack.controller is None:
        leftovers.within(name="what it read", folder=wanted.FOLDER, keep=())
        return
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    pinned = Path(host.data.ssh_known_hosts_file)
    bmc = any(isinstance(part, Ipmi) for other in rack.hosts for part in (other.wake, other.power))
    apt.packages(name="packages", names=[*PACKAGES, *(["ipmitool"] if bmc else [])])
    accounts(rack, spec)
    bundle = wanted.bundle()
    digest = wanted.digest(rack, bundle)
    target = wanted.folder_for(digest)
    own.environment(
        name="labctl itself",
        target=target,
        digest=digest,
        bundle=bundle,
        python=rack.controller.python,
        options=wanted.options(rack),
        unit=wanted.UNIT,
    )
    engines.link(
        name="labctl in use",
        path=f"{wanted.SHELF}/current",
        build=target.rpartition("/")[2],
        units=(wanted.UNIT,),
    )
    configuration(rack, pinned)
    files.put(name="ping without privilege", dest=wanted.PING, content=wanted.ping(), restarts=wanted.UNIT)
    systemd.unit(name="service", unit=wanted.UNIT, content=wanted.unit(rack, digest), watch_s=2.0)


def accounts(rack: Rack, spec: Host) -> None:
    """Have the users of the store on this host, their group, and the folder that they share."""
    users.group(name="group of the store", group=STORE_GROUP, system=True)
    users.program(name="user", runs_as=wanted.USER, home=HOME, groups=(STORE_GROUP,))
    if gateways.runs_on(rack, spec):
        account(rack)  # at its start the controller looks once who may nudge it
    if rack.web is not None:
        pages.account()
    if rack.health is not None:
        watching.account()
    files.directory(
        name="folder of the store", path=STORE_FOLDER, mode="2770", user=wanted.USER, group=STORE_GROUP
    )


def configuration(rack: Rack, pinned: Path) -> None:
    """Have everything that the controller reads in one folder; ``pinned`` is the file of pinned host keys."""
    files.directory(name="folder", path=wanted.FOLDER, mode="750", group=wanted.USER)
    files.put(
        name="rack",
        dest=wanted.RACK,
        content=wanted.rack_json(rack),
        mode="640",
        group=wanted.USER,
        restarts=wanted.UNIT,
    )
    files.put(
        name="pinned host keys",
        dest=f"{wanted.FOLDER}/{wanted.KNOWN_HOSTS}",
        content=pinned.read_bytes() if pinned.exists() else b"",
        mode="640",
        group=wanted.USER,
        restarts=wanted.UNIT,
    )
    for one in wanted.copied(rack):
        files.put(
            name=f"its copy of {one.source}",
            dest=one.dest,
            content=wanted.content_of(one, pinned.parent),
            mode=one.mode,
            user=one.owner,
            group=wanted.USER,
            secret=one.secret,
            restarts=wanted.UNIT,
        )
    leftovers.within(name="what it reads no more", folder=wanted.FOLDER, keep=wanted.read(rack))


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    controller()
