"""llama-swap: the configuration that it really took, its unit, and what it serves afterwards.

User, models, keys and the files of its engines come before it, by deploys/services.py.
The configuration comes before the unit, since llama-swap does not start without it, and is looked at after
the unit, which may have been started for the first time. A change of the configuration alone is a reload.
Either stops every loaded model, so the plan says which those are; an unchanged one stops none.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, LlamaSwap, Rack
from labctl.inventory.secrets import value_of
from labctl.ops import files, leftovers, llamaswap, systemd
from labctl.render import places, units
from labctl.render.llamaswap import FOLDER, Config, config


@deploy("llama-swap")
def llama_swap() -> None:
    """Bring every llama-swap of a host in line with the inventory."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    wanted = [service for service in spec.services if isinstance(service, LlamaSwap)]
    leftovers.files(
        name="configurations of llama-swaps that left",
        pattern=f"{FOLDER}/*.yaml",
        keep=tuple(f"{FOLDER}/{swap.name}.yaml" for swap in wanted),
    )
    if not wanted:
        return
    files.directory(name="folder of llama-swap's configurations", path=FOLDER)
    for swap in wanted:
        one(rack, spec, swap)


def one(rack: Rack, spec: Host, swap: LlamaSwap) -> None:
    """Bring one llama-swap in line."""
    made = config(rack, spec, swap)
    unit = units.service(rack, spec, swap)
    goal = llamaswap.Swap(
        unit=unit.name,
        unit_content=unit.content,
        path=made.path,
        content=made.text,
        trial=made.trial,
        program=places.program(rack, spec, swap),
        url=url(swap),
        digest=made.digest,
        listed=made.listed,
        commands=made.commands,
        keys=keys(made),
        env=swap.env,
        keyed=swap.api_key is not None,
        sleeps=made.sleeps,
    )
    llamaswap.configured(name=f"configuration of {swap.name}", swap=goal)
    systemd.unit(name=f"service {swap.name}", unit=unit.name, content=unit.content)
    llamaswap.serving(name=f"{swap.name} serves its configuration", swap=goal)


def keys(made: Config) -> tuple[tuple[str, str], ...]:
    """Return the path and the sha256 of each key's file, which deploys/services.py writes."""
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent
    contents = [(one.path, one.content(value_of(one.secret, folder, os.environ))) for one in made.secrets]
    return tuple((path, hashlib.sha256(content.encode()).hexdigest()) for path, content in contents)


def url(swap: LlamaSwap) -> str:
    """Return where a llama-swap answers on its own host."""
    address = ipaddress.ip_address(swap.listen)
    if address.is_unspecified:
        return f"http://{'[::1]' if address.version == 6 else '127.0.0.1'}:{swap.port}"
    return f"http://{f'[{address}]' if address.version == 6 else address}:{swap.port}"


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    llama_swap()
