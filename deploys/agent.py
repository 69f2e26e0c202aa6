"""The agent: what the controller may ask a host, and nothing more.

The agent is one file that runs under the host's own Python; there is no daemon and no open port. The
controller's key opens a forced command, which knows the agent's verbs only. Without ``controller_key`` in the
inventory nobody may ask, and a key that was granted before is taken back.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Rack
from labctl.ops import files, users
from labctl.render import access, agent_bundle


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
        content=access.agent_sudoers(access.ROOT_VERBS),
        mode="440",
        validate=access.CHECK_SUDOERS,
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    agent()
