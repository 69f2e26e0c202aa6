"""Other people's gateways, and PostgreSQL with pgvector: only where the inventory has them.

Configuration and keys come before the unit that reads them; a change of either is one restart. PostgreSQL is
the distribution's, without the cluster that its package would start by itself, unless PostgreSQL was there
before: then whatever runs there stays as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, PgVector, Rack
from labctl.inventory.services import Gateway
from labctl.ops import apt, files, pgvector, systemd, users
from labctl.ops.facts_apt import Packages
from labctl.render import HEADER, credentials, gateways, units
from labctl.render.gateways.pgvector import PROGRAMS

# The package asks this folder before it makes a cluster of its own.
NO_CLUSTER = "/etc/postgresql-common/createcluster.d/labctl.conf"


@deploy("Gateways")
def gateway_services() -> None:
    """Bring the gateways and vector stores of a host in line with the inventory."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    for service in spec.services:
        if isinstance(service, Gateway):
            gateway(rack, spec, service)
        elif isinstance(service, PgVector):
            vector_store(rack, spec, service)


def gateway(rack: Rack, spec: Host, wanted: Gateway) -> None:
    """Bring one gateway in line."""
    unit = units.service(rack, spec, wanted)
    configuration(rack, spec, wanted)
    secrets = gateways.launch(rack, spec, wanted).secrets
    if secrets:
        files.directory(name="folder of secrets", path=credentials.FOLDER, mode="700")
    for secret in secrets:
        files.put(
            name=f"{wanted.name}: {secret.name} key",
            dest=secret.path,
            content=secret.content(credentials.value_of(secret.secret, folder(), os.environ)),
            mode="600",
            secret=True,
            restarts=unit.name,
        )
    systemd.unit(name=f"service {wanted.name}", unit=unit.name, content=unit.content)


def configuration(rack: Rack, spec: Host, wanted: Gateway | PgVector) -> None:
    """Put the files that a service reads, which hold no secret."""
    for file in gateways.launch(rack, spec, wanted).files:
        place = Path(file.path)
        files.directory(name=f"folder {place.parent}", path=str(place.parent))
        files.put(name=f"{wanted.name}: {place.name}", dest=file.path, content=file.content)


def vector_store(rack: Rack, spec: Host, wanted: PgVector) -> None:
    """Bring PostgreSQL with pgvector, its one database and that database's owner in line."""
    chosen = pgvector.choice(wanted)
    secret = credentials.value_of(wanted.password, folder(), os.environ)
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
    users.user(
        name=f"user {wanted.user}",
        user=wanted.user,
        system=True,
        home="/nonexistent",
        create_home=False,
        shell="/usr/sbin/nologin",
    )
    configuration(rack, spec, wanted)
    unit = units.service(rack, spec, wanted)
    systemd.unit(name=f"service {wanted.name}", unit=unit.name, content=unit.content)
    pgvector.database(
        name=f"database {wanted.database}",
        wanted=wanted,
        verifier=pgvector.verifier(wanted, secret, spec.name),
    )


def folder() -> Path:
    """Return the rack file's folder, from which the inventory's paths of secrets start."""
    return Path(host.data.ssh_known_hosts_file).parent


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    gateway_services()
