"""What the gateways share: where files lie, how an upstream's key is named, and the marks of a restart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from labctl.inventory.services import OthersGateway
from labctl.inventory.upstreams import LeftOut, Upstream
from labctl.render import HEADER
from labctl.render.credentials import Credential
from labctl.render.llamaswap.words import document

FOLDER = "/etc/labctl"
# Asked for by nobody, but some programs insist on a key.
NO_KEY = "none"
OWN_KEY = "LABCTL_GATEWAY_KEY"


def config_path(gateway: OthersGateway, kind: str, suffix: str) -> str:
    """Return where a gateway's configuration lies on its host."""
    return f"{FOLDER}/{kind}/{gateway.name}.{suffix}"


def variable(upstream: Upstream) -> str:
    """Return the variable that holds an upstream's key; names of hosts and services have no capitals."""
    return "KEY_" + re.sub(r"[^A-Z0-9]", "_", upstream.name.upper())


def upstream_keys(
    gateway: OthersGateway, upstreams: Sequence[Upstream], *, environment: bool
) -> list[Credential]:
    """Return the keys of upstreams as variables, or as files below the unit's credentials."""
    return [
        Credential(
            gateway.name,
            upstream.name,
            upstream.endpoint.key,
            f"{variable(upstream)}={{secret}}\n" if environment else "{secret}\n",
            environment=environment,
        )
        for upstream in upstreams
        if upstream.endpoint.key is not None
    ]


def own_key(gateway: OthersGateway, prefix: str = "") -> list[Credential]:
    """Return the key that clients must show, as the variable ``OWN_KEY``."""
    if gateway.api_key is None:
        return []
    form = f"{OWN_KEY}={prefix}{{secret}}\n"
    return [Credential(gateway.name, "own", gateway.api_key, form, environment=True)]


def with_reasons(wanted: Mapping[str, Any], left_out: Sequence[LeftOut]) -> str:
    """Return a YAML document below the header and a line for each service that is left out."""
    lines = [HEADER, *(f"# Left out: {one}" for one in left_out)]
    return "\n".join(lines) + "\n" + document(wanted)


def mark(content: str) -> str:
    """Return a line for the unit, so that another configuration means another unit, hence one restart."""
    return f"configuration {hashlib.sha256(content.encode()).hexdigest()}"
