"""What other people's services need beside their unit: PostgreSQL with pgvector, where the inventory has one.

Gateways themselves need nothing more than a unit, its keys and its configuration, which deploys/services.py
writes for every service.

PostgreSQL is the distribution's, without the cluster that its package would start by itself, unless
PostgreSQL was there before: then whatever runs there stays as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, PgVector, Rack
from labctl.inventory.secrets import value_of
from labctl.ops import apt, files, pgvector, systemd, users
from labctl.ops.facts_apt import Packages
from labctl.render import HEADER, units
from labctl.render.gateways.pgvector import PROGRAMS

# The package asks this folder before it makes a cluster of its own.
NO_CLUSTER = "/etc/postgresql-common/createcluster.d/labctl.conf"


@deploy("Vector stores")
def vector_stores() -> None:
    """Bring every PostgreSQL with pgvector of a host in line with the inventory."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    for service in spec.services:
        if isinstance(service, PgVector):
            vector_store(rack, spec, service)


def vector_store(rack: Rack, spec: Host, wanted: PgVector) -> None:
    """Bring one PostgreSQL, its one database and that database's owner in line."""
    chosen = pgvector.choice(wanted)
    secret = value_of(wanted.password, Path(host.data.ssh_known_hosts_file).parent, os.environ)
    there = host.get_fact(Packages, names=["postgresql-common"])
    if not there.is_present("postgresql-common"):
        files.directory(name="folder of cluster settings", path=str(Path(NO_CLUSTER).parent))
        files.put(
            name="no cluster of the package's own",
            dest=NO_CLUSTER,
            content=f"{HEADER}\ncreate_main_cluster = false\n",
        )
    apt.packages(name="packages of PostgreSQL", names=chosen.packages)
    files.directory(name="folder of programs", path=str(Path(PROGRAMS).parent))
    files.link(name="programs of PostgreSQL", path=PROGRAMS, target=chosen.folder)
    users.program(name=f"user {wanted.user}", runs_as=wanted.user)
    unit = units.service(rack, spec, wanted)
    systemd.unit(name=f"service {wanted.name}", unit=unit.name, content=unit.content)
    pgvector.database(
        name=f"database {wanted.database}",
        wanted=wanted,
        verifier=pgvector.verifier(wanted, secret, spec.name),
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    vector_stores()
