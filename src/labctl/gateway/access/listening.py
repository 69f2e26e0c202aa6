"""Decide where a gateway without keys may listen: where only this machine reaches it.

A name is not resolved: what is not surely loopback is not.
"""

from __future__ import annotations

from ipaddress import ip_address

from labctl.domain.gateway.table import Table
from labctl.domain.problem import LabctlError


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address; a path of a unix socket (or "") is one."""
    if address in ("", "localhost") or address.startswith(("/", "\0", "@")):
        return True
    try:
        parsed = ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def refuse_open_door(table: Table, bound: str) -> None:
    """Refuse a listener on an address, as the bound socket says it, where a gateway without keys shows there.

    Raises:
        LabctlError: everybody on the network could use the models and wake the hosts.
    """
    if not table.keys and not is_loopback(bound):
        raise LabctlError(
            f"the gateway has no keys and would listen on {bound}, where others reach it",
            hint="give it keys (Gateway.keys), or have it listen on 127.0.0.1",
        )
