"""Where the controller keeps its things on its host, and how it logs in to the others.

It logs in as the agent's user by its own key, which opens the agent's door and nothing else. So the
connection data of a host differ for it from those of the operator; what makes a connection strict stays.

The store, where it is a file, lies in a folder of its own, which the controller and the gateway of that host
share by their group. That of older versions lay among the controller's own things (``OLD_STORE``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "/etc/labctl/controller"
HOME = "/var/lib/labctl-controller"
USER = "labctl-controller"
AGENT_USER = "labctl-agent"
RACK = f"{FOLDER}/rack.json"
KEY = "key"
KNOWN_HOSTS = "known_hosts"
STORE_URL = "store-url"
STORE_GROUP = "labctl-store"
STORE_FOLDER = "/var/lib/labctl-store"
STORE = f"{STORE_FOLDER}/store.db"
OLD_STORE = f"{HOME}/store.db"
SOCKET = "/run/labctl-controller/socket"
CURRENT = "/opt/labctl/labctl/current"


def python_of() -> str:
    """Return the Python that runs labctl on the controller's host."""
    return f"{CURRENT}/bin/python"


def agent_data(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a host's connection data for the controller: the agent's user, and the key in ``folder``.

    The key opens the agent's door alone, which reads the verb and its flags and no program before them.
    """
    return {
        **data,
        "ssh_user": AGENT_USER,
        "ssh_key": str(folder / KEY),
        "ssh_known_hosts_file": str(folder / KNOWN_HOSTS),
        "ssh_forced": True,
        "_sudo": False,
    }
