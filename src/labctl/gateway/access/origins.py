"""Decide whether a gateway without keys talks to a program of this machine, or to somebody's web page.

A gateway that asks for no key listens on loopback only, and yet any web page that is open in a browser there
can send requests to it: directly (the browser then tells the page's ``Origin``), or by a name of its own that
it points at 127.0.0.1 (then ``Host`` is that name). Both would wake hosts and read answers for strangers. So
without keys only loopback origins and loopback names are served; programs send neither, or the right one.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def _is_of_this_machine(netloc: str) -> bool:
    """Return whether a host with or without a port is a name or an address of loopback."""
    try:
        name = urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def foreign_because(origin: str, host: str) -> str:
    """Return why a request comes from a strange web page; empty: it does not, as far as can be told.

    ``origin`` and ``host`` are the headers' values, empty where they were not sent. An origin that is
    "null" (a file, a sandbox) may be anybody's.
    """
    if origin and not (
        origin.startswith(("http://", "https://")) and _is_of_this_machine(origin.partition("//")[2])
    ):
        return f"a web page of {origin} asked"
    if host and not _is_of_this_machine(host):
        return f"it was asked for as {host}, which is no name of this machine's loopback"
    return ""
