"""What runs on a host: one systemd unit for each service of the inventory.

A service that left the inventory is stopped and its unit removed; drop-ins beside a unit
(``NAME.service.d/``) belong to whoever wrote them and are never touched. A unit whose text changed is
restarted once. Model files come before the units that read them, checked against their sha256 before they
take their place.
"""

from __future__ import annotations

from deploys.models import model_files
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack
from labctl.ops import leftovers, systemd, users
from labctl.render import units


@deploy("Services")
def services() -> None:
    """Bring the services of a host in line with the inventory."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    wanted = [(service, units.service(rack, spec, service)) for service in spec.services]

    leftovers.units(
        name="services that left the inventory",
        pattern=f"{units.UNIT_DIR}/labctl-*.service",
        second_line=units.MARKER,
        keep=tuple(unit.path for _, unit in wanted),
    )
    if wanted:
        accounts(spec)
    model_files(rack, spec)
    for service, unit in wanted:
        systemd.unit(name=f"service {service.name}", unit=unit.name, content=unit.content)


def accounts(spec: Host) -> None:
    """Make the user that services run as, and the groups that own the GPUs."""
    for group in units.gpu_groups(spec):
        users.group(name=f"group {group}", group=group, system=True)
    if any(service.user == units.SERVICE_USER for service in spec.services):
        users.user(
            name="user of the services",
            user=units.SERVICE_USER,
            system=True,
            home="/nonexistent",
            create_home=False,
            shell="/usr/sbin/nologin",
        )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    services()
