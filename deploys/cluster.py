"""Ray nodes: on every host of a cluster one unit, which vLLM on the head waits for and is bound to.

A host that left its cluster loses the unit. The environment that holds Ray, and the firewall's rules for it,
are other deploys' part and come before.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra import logger
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack
from labctl.inventory.secrets import value_of
from labctl.ops import files, leftovers, systemd, users
from labctl.render import cluster as nodes
from labctl.render import credentials, units


@deploy("Cluster")
def cluster() -> None:
    """Bring the Ray node of a host in line with the rack's clusters."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    unit = nodes.node(rack, spec)

    leftovers.units(
        name="Ray node of a cluster that the host left",
        pattern=f"{units.UNIT_DIR}/{nodes.NODE_UNIT}",
        second_line=nodes.MARKER,
        keep=() if unit is None else (unit.path,),
    )
    if unit is None:
        return
    for word in nodes.advice(rack, spec):
        logger.warning(f"{host.name}: {word}")
    account(spec)
    files.directory(name="Ray: folder of labctl's programs", path=str(Path(nodes.WAIT_PROGRAM).parent))
    files.put(name="Ray: wait for all nodes", dest=nodes.WAIT_PROGRAM, content=nodes.wait_program())
    for one in unit.secrets:
        # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
        value = value_of(one.secret, Path(host.data.ssh_known_hosts_file).parent, os.environ)
        files.directory(name="folder of the secrets", path=credentials.FOLDER, mode="700")
        files.put(
            name="Ray: token",
            dest=one.path,
            content=one.content(value),
            mode="600",
            secret=True,
            restarts=unit.name,
        )
    systemd.unit(name="Ray node", unit=unit.name, content=unit.content)


def account(spec: Host) -> None:
    """Make the user that nodes run as, and the groups that own the GPUs."""
    for group in units.gpu_groups(spec):
        users.group(name=f"group {group}", group=group, system=True)
    users.program(name="user of the services", runs_as=units.SERVICE_USER)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    cluster()
