"""Decide where a gateway without keys may listen: where only this machine reaches it.

A name is not resolved: what is not surely loopback is not.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

from labctl.domain.gateway.table import Table
from labctl.domain.problem import LabctlError


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    if address == "localhost":
        return True
    try:
        parsed = ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def refuse_open_door(table: Table, sockets: Iterable[socket.socket]) -> None:
    """Refuse listening sockets that others reach, where the table has no keys.

    What they are bound to counts, not what the table says: somebody else may have opened them.

    Raises:
        LabctlError: everybody on the network could use the models and wake the hosts.
    """
    if table.keys:
        return
    for one in sockets:
        if one.family != socket.AF_UNIX and not is_loopback(bound := one.getsockname()[0]):
            raise LabctlError(
                f"the gateway has no keys and would listen on {bound}, where others reach it",
                hint="give it keys (Gateway.keys), or have it listen on 127.0.0.1",
            )
