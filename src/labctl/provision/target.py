"""Decide what a run is about, before anything is contacted: the rack, its hosts, the deploys.

Everything that can be known to be wrong is said here, with exit code 2: the rack file, a rack that needs more
watts than its power supplies and circuits give (with hosts that the run leaves alone: they draw theirs), the
names in ``--limit`` and ``--only``, keys and files of a gateway that the run installs, the pinned host keys,
and hosts that have none. Such a host would only be refused later, one by one; here all of them are named with
the command that mends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import content
from labctl.domain import limits
from labctl.domain.problem import LabctlError
from labctl.inventory import LoadedRack, known_hosts, load_rack, watts
from labctl.provision import deploys
from labctl.render import gateway


@dataclass(frozen=True, slots=True)
class Target:
    """A validated rack file, and what of it a run is about."""

    rack: Path
    loaded: LoadedRack
    hosts: tuple[str, ...]
    deploys: tuple[Path, ...]
    known_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the rack."""
        return self.loaded.rack.name


def aim(
    rack: Path,
    files: str | None,
    *,
    environment: Mapping[str, str],
    limit: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Target:
    """Load and check all that a run needs.

    Args:
        rack: the rack file.
        files: the deploy file or directory, if one was named.
        environment: the variables of the process that runs labctl.
        limit: names of hosts and groups; all if there are none.
        only: names of deploys; all if there are none.

    Raises:
        LabctlError: with all that is wrong in the rack file, its budget, the limits, the deploys or the
            pinned keys.
    """
    loaded = load_rack(rack)
    if over := watts.refusals(loaded):
        raise LabctlError(over)
    names = tuple(loaded.host_data)
    hosts = limits.select(names, loaded.groups, limit)
    if not hosts:
        raise LabctlError(f"{rack} has no hosts", hint="add a Host(...) to it")
    chosen = deploys.resolve(Path(files) if files else content.deploys_dir(), only)
    _require_gateway(loaded, hosts, chosen, environment)
    _require_enrolled(loaded, hosts)
    return Target(rack, loaded, hosts, chosen, (*names, *loaded.groups))


def _require_gateway(
    loaded: LoadedRack, hosts: Sequence[str], chosen: Sequence[Path], environment: Mapping[str, str]
) -> None:
    """Raise ``LabctlError`` for each file that the gateway could not use, where the run installs one."""
    ours = {content.deploys_dir() / "site.py", content.deploys_dir() / "gateway.py"}
    stated = loaded.rack.gateway
    if stated is not None and stated.host in hosts and ours.intersection(chosen):
        gateway.ready(loaded.rack, gateway.places(loaded.rack), loaded.folder, environment, loaded.place)


def _require_enrolled(loaded: LoadedRack, hosts: Sequence[str]) -> None:
    pinned = known_hosts.load(loaded.known_hosts)
    missing = []
    for host in hosts:
        data = loaded.host_data[host]
        if not known_hosts.lookup(pinned, str(data["ssh_hostname"]), int(data["ssh_port"])):
            missing.append(host)
    if missing:
        whose = "this host has" if len(missing) == 1 else "these hosts have"
        raise LabctlError(
            f"{whose} no pinned host key: {', '.join(missing)}",
            hint=f"compare and pin: labctl enroll {' '.join(missing)}",
        )
