"""What runs on a host: one systemd unit for each service of the inventory.

A service that left the inventory is stopped and its unit removed; drop-ins beside a unit
(``NAME.service.d/``) belong to whoever wrote them and are never touched. A unit whose text changed is
restarted once. Model files come before the units that read them, checked against their sha256 before they
take their place. So do secrets: files that only root may read, written only when they changed, which systemd
hands to the unit that they are for.
"""

from __future__ import annotations

import os
from pathlib import Path

from deploys.models import model_files
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, LlamaSwap, Ollama, PgVector, Rack
from labctl.inventory.secrets import value_of
from labctl.ops import backend, engines, files, leftovers, ollama, systemd, users
from labctl.render import cluster, credentials, gateways, places, units
from labctl.render.engines.ollama import CONFIGS as OLLAMA
from labctl.render.engines.ollama import PORT, address
from labctl.render.engines.torch import CONFIGS as TABBYAPI

CONFIG_FOLDERS = (OLLAMA, TABBYAPI, *gateways.FOLDERS)


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
    node = cluster.node(rack, spec)
    surroundings([unit for _, unit in wanted], () if node is None else node.secrets)
    tried = places.tried_units(rack, spec)
    if tried:
        engines.proved(
            name="backend that was proved", path=places.AUTO, choice=backend.ENVIRONMENT, units=tried
        )
    for service, unit in wanted:
        if isinstance(service, LlamaSwap | PgVector):
            continue  # started by deploys/llamaswap.py and deploys/gateways.py, after its configuration
        systemd.unit(name=f"service {service.name}", unit=unit.name, content=unit.content)
        if isinstance(service, Ollama) and service.models:
            known_to_ollama(rack, spec, service, unit)


def known_to_ollama(rack: Rack, spec: Host, service: Ollama, unit: units.Unit) -> None:
    """Make the rack's models known to an Ollama that runs."""
    marks = {model: rack.model(model) for model in service.models}
    ollama.models(
        name=f"models of {service.name}",
        program=places.program(rack, spec, service),
        address=address(service, str(service.port or PORT)),
        served=tuple(
            ollama.Served(model.id, config.path, f"{config.content.splitlines()[-1]} {model.sha256}")
            for model, config in zip(marks.values(), unit.files, strict=True)
        ),
    )


def accounts(spec: Host) -> None:
    """Make the user that services run as, and the groups that own the GPUs."""
    for group in units.gpu_groups(spec):
        users.group(name=f"group {group}", group=group, system=True)
    if any(service.user == units.SERVICE_USER for service in spec.services):
        users.program(name="user of the services", runs_as=units.SERVICE_USER)


def surroundings(wanted: list[units.Unit], others: tuple[credentials.Credential, ...]) -> None:
    """Write the secrets and the configuration of the services; each is restarted once if one changed.

    ``others`` are secrets that another deploy has written.
    """
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent
    secrets = [(unit, one) for unit in wanted for one in unit.secrets]
    leftovers.within(
        name="secrets that nobody reads",
        folder=credentials.FOLDER,
        keep=(*(one.path for _, one in secrets), *(one.path for one in others)),
    )
    if secrets:
        files.directory(name="folder of the secrets", path=credentials.FOLDER, mode="700")
    for unit, one in secrets:
        value = value_of(one.secret, folder, os.environ)
        files.put(
            name=f"secret {one.name} of {one.service}",
            dest=one.path,
            content=one.content(value),
            mode="600",
            secret=True,
            restarts=unit.name,
        )
    configs = [(unit, one) for unit in wanted for one in unit.files]
    for place in CONFIG_FOLDERS:
        leftovers.files(
            name=f"configurations in {place} that nobody reads",
            pattern=f"{place}/*",
            keep=tuple(one.path for _, one in configs),
        )
    for place in sorted({str(Path(one.path).parent) for _, one in configs}):
        files.directory(name=f"folder {place}", path=place)
    for unit, one in configs:
        files.put(name=f"configuration {one.path}", dest=one.path, content=one.content, restarts=unit.name)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    services()
