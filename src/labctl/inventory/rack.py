"""The rack: every host, and what they share.

``Rack.groups()`` gives plain pyinfra what it wants to find in an inventory file: group ``hosts`` with each
host's connection data, and one group per role. Connections derived here are strict: the key of the rack, no
agent, no user configuration, only host keys that ``labctl enroll`` has pinned, and nothing that rests on
SHA-1.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from labctl.inventory.connect import nodelay_transport
from labctl.inventory.engines import EngineBuild
from labctl.inventory.fields import Address, BaseAddress, Label, PackageName, TimeZone
from labctl.inventory.gatewaying import Gateway
from labctl.inventory.health import Health
from labctl.inventory.hosts import Host, Ssh
from labctl.inventory.idle import Controller
from labctl.inventory.models import Model
from labctl.inventory.power import Circuit
from labctl.inventory.remembered import remembered
from labctl.inventory.services import RayCluster
from labctl.inventory.spec import Spec
from labctl.inventory.tariff import Tariff
from labctl.inventory.web import Web

ROLE_GROUPS = {"gpu": "gpu", "always-on": "always_on", "storage": "storage"}
_WEAK = {
    "kex": (
        "diffie-hellman-group-exchange-sha1",
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group1-sha1",
    ),
    "macs": ("hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"),
    "ciphers": ("3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc"),
    "keys": ("ssh-rsa",),
    "pubkeys": ("ssh-rsa",),
}


@remembered(4)
def _by_name(rack: "Rack") -> dict[str, Model]:
    """Return the models of a rack by id and alias; of two with one name the first."""
    found: dict[str, Model] = {}
    for model in rack.models:
        for name in (model.id, *model.aliases):
            found.setdefault(name, model)
    return found


class Rack(Spec):
    """Everything that labctl looks after."""

    name: Label = Field(description="Name of the rack, shown in reports.")
    hosts: tuple[Host, ...] = Field(description="The machines.")
    circuits: tuple[Circuit, ...] = Field(default=(), description="The circuits that they are plugged into.")
    models: tuple[Model, ...] = Field(default=(), description="The models that services serve.")
    engines: tuple[EngineBuild, ...] = Field(
        default=(), description="Builds of engines that labctl installs where services need them."
    )
    clusters: tuple[RayCluster, ...] = Field(default=(), description="Hosts joined for one large model.")
    mirror: BaseAddress | None = Field(
        default=None,
        description="Folder with copies of models (ID/FILE) and engines (FILE), asked before their own "
        "addresses: file:///... on the host, or http.",
    )
    ssh: Ssh = Field(default=Ssh(), description="How to log in, unless a host says otherwise.")
    timezone: TimeZone = Field(
        default="Etc/UTC", description='Time zone of every host, such as "Europe/Berlin".'
    )
    ntp: tuple[Address, ...] = Field(default=(), description="Time servers; default: the distribution's.")
    packages: tuple[PackageName, ...] = Field(
        default=(), description="Debian packages to install on every host."
    )
    controller: Controller | None = Field(
        default=None, description="What wakes hosts and lets them sleep; default: none, labctl asks directly."
    )
    controller_key: Path | None = Field(
        default=None,
        description="Public key file of the controller, relative to the rack file's folder; it may only ask.",
    )
    gateway: Gateway | None = Field(
        default=None, description="One address for all models of the rack, which wakes their hosts."
    )
    health: Health | None = Field(
        default=None,
        description="How health is looked after by itself on the controller's host; default: when asked.",
    )

    web: Web | None = Field(
        default=None, description="The rack in a browser, and its metrics, on the controller's host."
    )

    tariff: Tariff | None = Field(
        default=None, description="What electricity costs; default: `labctl energy` shows no money."
    )

    def host(self, name: str) -> Host:
        """Return the host of that name; raise ``KeyError`` if there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def models_by_name(self) -> Mapping[str, Model]:
        """Return the models by id and alias; of two with one name the first."""
        return _by_name(self)

    def model(self, wanted: str) -> Model:
        """Return the model with that id or alias; raise ``KeyError`` if there is none."""
        return _by_name(self)[wanted]

    def ssh_for(self, host: Host) -> Ssh:
        """Return how to log in to that host."""
        return host.ssh if host.ssh is not None else self.ssh

    def key_for(self, host: Host, folder: Path) -> Path:
        """Return the private key for that host, for a rack whose file lies in ``folder``."""
        return folder / self.ssh_for(host).key.expanduser()

    def host_data(self, host: Host, folder: Path) -> dict[str, Any]:
        """Return pyinfra's data for one host of a rack whose file lies in ``folder``."""
        ssh = self.ssh_for(host)
        return {
            "ssh_hostname": host.address,
            "ssh_port": ssh.port,
            "ssh_user": ssh.user,
            "ssh_key": str(self.key_for(host, folder)),
            "ssh_known_hosts_file": str(folder / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "ssh_config_file": "/dev/null",
            "ssh_allow_agent": False,
            "ssh_look_for_keys": False,
            "ssh_paramiko_connect_kwargs": {
                "transport_factory": nodelay_transport,
                "channel_timeout": 10,
                "banner_timeout": 10,
                "auth_timeout": 10,
                "disabled_algorithms": {kind: list(names) for kind, names in _WEAK.items()},
            },
            "_sudo": ssh.user != "root",
            "spec": host,
        }

    def groups(self, folder: Path | None = None) -> dict[str, Any]:
        """Return the groups for pyinfra; call it as ``globals().update(rack.groups())`` in the rack file.

        ``folder`` is where keys and ``known_hosts`` lie; by default, that of the file which makes the call.
        """
        where = (folder or Path(sys._getframe(1).f_code.co_filename).parent).resolve()
        groups: dict[str, Any] = {
            "hosts": ([(host.name, self.host_data(host, where)) for host in self.hosts], {"rack": self})
        }
        for role, group in ROLE_GROUPS.items():
            groups[group] = [host.name for host in self.hosts if role in host.roles]
        return groups
