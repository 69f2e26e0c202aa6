"""What the web page's host gets: a table, its certificate, and a unit; of keys only their hashes.

It runs beside the controller and has none of its secrets: whatever takes the page over can look, and wish
what the page's buttons wish.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from labctl import render
from labctl.domain import budget
from labctl.domain.problem import LabctlError, Problem
from labctl.domain.web_table import Key, Meter, Share, Table
from labctl.inventory import Host, Rack, Web, WebKey, controlling, health
from labctl.inventory.secrets import value_of
from labctl.inventory.watts import power_of
from labctl.inventory.web import FOLDER, TABLE, USER
from labctl.render import beside as reading
from labctl.render.credentials import FOLDER as SECRETS
from labctl.render.gateway import Place

UNIT = "labctl-web.service"
CERTIFICATE, PRIVATE_KEY = "certificate.pem", "private-key.pem"
_WHO = "the web page"


@dataclass(frozen=True, slots=True)
class Ready:
    """All that it reads: the table, and the files beside it by name; empty: no TLS."""

    table: str
    files: Mapping[str, bytes]


def runs_on(rack: Rack, host: Host) -> bool:
    """Return whether the web page runs on that host: where the controller does."""
    return rack.web is not None and rack.controller is not None and rack.controller.host == host.name


def ready(
    rack: Rack,
    folder: Path,
    environment: Mapping[str, str],
    place: Place = lambda _: ("", None),
    controller: str = controlling.SOCKET,
) -> Ready:
    """Read every secret of a rack's web page and return all that it runs on.

    Args:
        rack: the rack.
        folder: the rack file's folder, to which paths of the inventory are relative.
        environment: the variables of the process that runs labctl.
        place: tells file and line of a field, as ``LoadedRack.place`` does.
        controller: the socket of the controller.

    Raises:
        LabctlError: secrets or files cannot be read, others may read them, or they do not fit together.
    """
    web = _web(rack)
    keys: dict[str, Key] = {}
    for number in range(len(web.keys)):
        one = _key(web.keys[number], number, folder, environment, place)
        if one.sha256 in keys:
            twin = keys[one.sha256].name
            raise LabctlError(f"web: {one.name} is the same key as {twin}", hint="give each a key of its own")
        keys[one.sha256] = one
    files = {}
    if web.certificate is not None and web.private_key is not None:
        certificate, key = (folder / one.expanduser() for one in (web.certificate, web.private_key))
        data = reading.content(certificate, _WHO, hidden=False)
        files[CERTIFICATE] = reading.pem(certificate, data, key=False)
        files[PRIVATE_KEY] = reading.pem(key, reading.content(key, _WHO, hidden=True), key=True)
        reading.pair(certificate, key, _WHO)
    table = Table(
        1,
        rack.name,
        web.listen,
        web.port,
        controller,
        health.RESULTS,
        tuple(keys.values()),
        web.names,
        *((CERTIFICATE, PRIVATE_KEY) if files else ("", "")),
        meters_of(rack),
        (rack.health or health.Health()).stale_s,
    )
    return Ready(f"{json.dumps(asdict(table), indent=1, sort_keys=True)}\n", files)


def _key(one: WebKey, number: int, folder: Path, environment: Mapping[str, str], place: Place) -> Key:
    if one.secret is None:
        return Key(one.name, (one.sha256 or "").lower(), one.acts)
    try:
        value = value_of(one.secret, folder, environment)
    except LabctlError as error:
        file, line = place(("web", "keys", number, "secret"))
        told = (Problem(each.reason, each.hint, file, line) for each in error.problems)
        raise LabctlError(list(told)) from None
    return Key(one.name, hashlib.sha256(value.encode()).hexdigest(), one.acts)


def _web(rack: Rack) -> Web:
    if rack.web is None:
        raise LabctlError("this rack has no web page", hint="add web=Web() to the rack")
    return rack.web


def meters_of(rack: Rack) -> tuple[Meter, ...]:
    """Return the power supplies and circuits of a rack, with each host's share."""
    power = power_of(rack)
    hosts = {host.name: host for host in power.hosts}
    upstream = {circuit.name: circuit.upstream for circuit in power.circuits}
    found = []
    for meter in budget.budget_of(power).meters:
        shares = []
        for name in [meter.host] if meter.kind == "psu" else hosts:
            host = hosts[name]
            taps = {
                supply: 1.0 if meter.kind == "psu" else 1 / supply.efficiency
                for supply in host.supplies
                if (supply.name == meter.name if meter.kind == "psu"
                    else meter.name in budget.chain(upstream, supply.circuit))
            }  # fmt: skip
            if taps:
                shares.append(_share(rack.host(name), host, taps))
        found.append(Meter(meter.title, meter.kind, meter.limit_w, tuple(shares)))
    return tuple(found)


def _share(spec: Host, host: budget.Host, taps: Mapping[budget.Supply, float]) -> Share:
    """Return a host's share in a meter; ``taps`` are its supplies there, and what their watts count for."""
    factors = [
        sum(budget.share(host, supply, card.name) * times for supply, times in taps.items())
        for card in host.cards
    ]
    named = {
        ref: factor
        for gpu, factor in zip(spec.gpus, factors, strict=True)
        for ref in (gpu.uuid, gpu.pci)
        if ref
    }
    base = sum(budget.base_share(host, supply) * times for supply, times in taps.items())
    return Share(host.name, base, named, sum(factors) / len(factors) if factors else 0.0)


def unit(rack: Rack, parts: Ready) -> str:
    """Return its unit; whatever it reads is in a mark, so that a change means one restart."""
    digest = hashlib.sha256(parts.table.encode())
    for name in sorted(parts.files):
        digest.update(hashlib.sha256(parts.files[name]).digest())
    web = _web(rack)
    return render.text(
        "web.service.j2",
        mark=f"table {digest.hexdigest()[:12]}",
        python=controlling.python_of(),
        table=TABLE,
        user=USER,
        port=web.port,
        controller_folder=controlling.FOLDER,
        store_folder=controlling.STORE_FOLDER,
        secrets_folder=SECRETS,
    )


__all__ = ["FOLDER", "TABLE", "UNIT", "USER", "Ready", "meters_of", "ready", "runs_on", "unit"]
