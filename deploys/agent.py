"""The agent: what the controller may ask a host, and nothing more.

The agent is one file that runs under the host's own Python; there is no daemon and no open port. The
controller's key opens a forced command, which knows the agent's verbs only. Without ``controller_key`` in the
inventory nobody may ask, and a key that was granted before is taken back.

What the agent must know of its host lies in ``agent.json``, which root and the agent's user may read, and so
do the keys by which it asks engines what they do. Below ``/run/labctl`` anybody may see whether labctl is at
work, and root's scripts may hold the host awake with a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack
from labctl.inventory.secrets import value_of
from labctl.ops import files, leftovers, users
from labctl.render import access, agent_bundle, agent_config


@deploy("Agent")
def agent() -> None:
    """Install the agent, its user, and the controller's key."""
    rack: Rack = host.data.rack
    keys: tuple[str, ...] = ()
    if rack.controller_key is not None:
        # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
        folder = Path(host.data.ssh_known_hosts_file).parent
        keys = (agent_bundle.authorized_keys_line((folder / rack.controller_key.expanduser()).read_text()),)

    files.directory(name="folder", path=str(Path(agent_bundle.PATH).parent))
    files.put(name="program", dest=agent_bundle.PATH, content=agent_bundle.zipapp_bytes(), mode="755")
    users.user(
        name="user and controller's key",
        user=access.AGENT_USER,
        system=True,
        home=access.AGENT_HOME,
        # A forced command is run by the user's shell, so it needs a real one; there is no password.
        shell="/bin/sh",
        authorized_keys=keys,
    )
    files.put(
        name="what the agent may do as root",
        dest=access.AGENT_SUDOERS,
        content=access.agent_sudoers((*access.ROOT_VERBS, *access.INNER_VERBS)),
        mode="440",
        validate=access.CHECK_SUDOERS,
    )
    knowledge()


def knowledge() -> None:
    """Tell the agent what its host is for, and make the folders that it looks into."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    keys = agent_config.keys(spec)
    group = access.AGENT_USER
    for path in agent_config.folders(spec):
        files.directory(name=f"folder {path}", path=path)
    files.put(
        name="what the agent knows of its host",
        dest=agent_config.PATH,
        content=agent_config.config(rack, spec),
        mode="640",
        group=group,
    )
    leftovers.within(
        name="keys that the agent needs no more",
        folder=agent_config.KEYS,
        keep=tuple(key.path for key in keys),
    )
    if keys:
        files.directory(name="folder of the agent's keys", path=agent_config.KEYS, mode="750", group=group)
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent
    for key in keys:
        files.put(
            name=f"key {key.path} for the agent",
            dest=key.path,
            content=value_of(key.secret, folder, os.environ) + "\n",
            mode="640",
            group=group,
            secret=True,
        )
    files.put(name="folders below /run at boot", dest=agent_config.TMPFILES, content=agent_config.tmpfiles())
    files.put(
        name="processor's energy for the agent to read",
        dest=agent_config.RULES,
        content=agent_config.udev_rules(),
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    agent()
