"""The gateway: has it a host that never sleeps, something to serve, and a key where others can reach it?

Whoever serves everybody must not be used by everybody: beyond loopback it needs keys. It works from the
controller's store, so there must be a controller, and where the store is a file they share a host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from labctl.inventory.checks.finding import Finding, Where, missing, twice
from labctl.inventory.clusters import devices_of
from labctl.inventory.gatewaying import Gateway
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import Ollama
from labctl.inventory.upstreams import Reach, reach

_AT: Where = ("gateway",)


def gateway(rack: Rack) -> Iterator[Finding]:
    """Yield what keeps the gateway from running, or lets in whom nobody meant."""
    wanted = rack.gateway
    if wanted is None:
        return
    yield from _open(wanted)
    yield from _names(wanted)
    yield from _limits(wanted)
    host = next((one for one in rack.hosts if one.name == wanted.host), None)
    if host is None:
        yield missing((*_AT, "host"), "host", wanted.host, [one.name for one in rack.hosts])
        return
    yield from _store(rack, wanted)
    if "always-on" not in host.roles:
        reason = f"{host.name} has not the role always-on, and who wakes others must not sleep"
        yield Finding((*_AT, "host"), reason, 'add roles=["always-on"] to it, or name another host')
    yield from _port(rack, wanted, host)
    found = reach(rack, host, wanted)
    yield from _outside(rack, wanted, found)
    yield from _serves(rack, wanted, found)
    yield from _refers(rack, wanted, found)
    yield from _lent(rack, found)


def _store(rack: Rack, wanted: Gateway) -> Iterator[Finding]:
    if rack.controller is None:
        yield Finding(
            _AT,
            "needs a controller, which wakes the hosts that it asks for",
            "add controller=Controller(host=...) to the rack",
        )
    elif rack.controller.store_url_file is None and rack.controller.host != wanted.host:
        yield Finding(
            (*_AT, "host"),
            f"the store is a file on {rack.controller.host}, where the controller runs",
            f"run it on {rack.controller.host} too, or give the controller `store_url_file`",
        )


def _open(wanted: Gateway) -> Iterator[Finding]:
    if not ipaddress.ip_address(wanted.listen).is_loopback and not wanted.keys:
        yield Finding(
            (*_AT, "listen"),
            f"listens on {wanted.listen} without a key: anyone who reaches the host could use it",
            'add keys=[GatewayKey(name="...", ...)] (labctl gateway keys new), or listen on "127.0.0.1"',
        )


def _names(wanted: Gateway) -> Iterator[Finding]:
    yield from twice(
        ((*_AT, "keys", place, "name"), one.name, "another key") for place, one in enumerate(wanted.keys)
    )
    # A key that two have is one key, and nobody could tell who shows it.
    yield from twice(
        ((*_AT, "keys", place), one.secret or one.sha256, f"key {one.name}")
        for place, one in enumerate(wanted.keys)
    )
    for place, one in enumerate(wanted.keys):
        if one.name == "anonymous":
            reason = "is what logs call clients without a key"
            yield Finding((*_AT, "keys", place, "name"), reason, "choose another name")
    yield from twice(
        ((*_AT, "models", place, "model"), one.model, "another entry")
        for place, one in enumerate(wanted.models)
    )
    yield from twice(
        ((*_AT, "treats", place, "host"), one.host, "another entry")
        for place, one in enumerate(wanted.treats)
    )


def _outside(rack: Rack, wanted: Gateway, found: Reach) -> Iterator[Finding]:
    """Yield servers outside that bear the name of another, that cannot be asked, or that nobody may ask."""
    taken = {host.name: f"host {host.name}" for host in rack.hosts}
    for upstream in found.upstreams:
        # Files with keys are called like what they are for.
        for name in (upstream.name, *(f"{upstream.name}-to-{one.host.name}" for one in upstream.models)):
            taken.setdefault(name, f"{upstream.endpoint.name}, which the gateway calls so")
    others = [
        ((*_AT, "outside", place, "name"), one.name, one.name) for place, one in enumerate(wanted.outside)
    ]
    yield from twice(
        [*(((), name, who) for name, who in taken.items()), *others],
        "choose another name",
    )
    known = rack.models_by_name()
    for place, beyond in enumerate(wanted.outside):
        path = (*_AT, "outside", place)
        if beyond.ca_file is not None and not beyond.url.startswith("https:"):
            reason = f"{beyond.url} shows no certificate"
            yield Finding((*path, "ca_file"), reason, "remove it, or use https://")
        first: dict[str, str] = {}
        for name in beyond.models:
            id_ = known[name].id if name in known else name
            if id_ in first:
                reason = f"{first[id_]} and {name} are one model, and it can have one name there"
                yield Finding((*path, "models"), reason, "remove one of them")
            first.setdefault(id_, name)
    if wanted.outside and wanted.keys and not any(key.outside for key in wanted.keys):
        reason = "may be asked for nobody: no key has outside=True"
        hint = "add outside=True to the keys that may be served there, or remove `outside`"
        yield Finding((*_AT, "outside"), reason, hint)


def _limits(wanted: Gateway) -> Iterator[Finding]:
    limits = wanted.limits
    most, name = max((limits.json_body, "json_body"), (limits.form, "form"))
    if most > limits.held:
        reason = f"one body may be {most} bytes, but all that are held only {limits.held}"
        yield Finding((*_AT, "limits", "held"), reason, f"make it more, or `{name}` less")


def _port(rack: Rack, wanted: Gateway, host: Host) -> Iterator[Finding]:
    taken = [(rack.ssh_for(host).port, "0.0.0.0", "sshd")]
    taken += [(one.port, one.listen, f"service {one.name}") for one in host.services if one.port is not None]
    own = ipaddress.ip_address(wanted.listen)
    for port, listen, who in taken:
        other = ipaddress.ip_address(listen)
        if port == wanted.port and (own == other or own.is_unspecified or other.is_unspecified):
            reason = f"port {port} is taken already by {who}"
            yield Finding((*_AT, "port"), reason, "choose another port")
            break
    index = rack.hosts.index(host)
    for place, one in enumerate(host.services):
        if one.name == "gateway":
            reason = "is the name of the rack's own gateway there: labctl-gateway.socket"
            yield Finding(("hosts", index, "services", place, "name"), reason, "choose another name")


def _serves(rack: Rack, wanted: Gateway, found: Reach) -> Iterator[Finding]:
    names = [one.name for one in rack.hosts]
    serving = {served.host.name for upstream in found.upstreams for served in upstream.models}
    shut = {one.endpoint.host.name: one for one in reversed(found.left_out)}
    for place, name in enumerate(wanted.hosts):
        path = (*_AT, "hosts", place)
        if name not in names:
            yield missing(path, "host", name, names)
        elif name in wanted.hosts[:place]:
            yield Finding(path, f"{name} is in the list already", "remove it")
        elif name in shut:
            port = shut[name].endpoint.port
            hint = f'give it listen="0.0.0.0", an api_key, and open_ports=[{port}] to its host'
            yield Finding(path, f"cannot serve {shut[name]}", f"{hint}, or remove {name} here")
        elif name not in serving:
            yield Finding(path, f"{name} serves no model", "add an engine with a port there, or remove it")
    if not found.upstreams and not wanted.hosts and not wanted.outside:
        reasons = "; ".join(map(str, found.left_out)) or "no service of this rack serves a model"
        yield Finding(
            _AT, f"has nothing to serve: {reasons}", "let it reach a server of models, or remove it"
        )


def _lent(rack: Rack, found: Reach) -> Iterator[Finding]:
    """Yield hosts whose engines use cards of others that may be asleep while they are awake."""
    told = set()
    for served in (one for upstream in found.upstreams for one in upstream.models):
        if isinstance(served.engine, Ollama):
            continue
        for part in devices_of(rack, served.engine, served.host):
            host, other = served.host, part.host
            pair = (host.name, other.name)
            if other.name in (host.name, *host.depends_on) or not other.idle.suspend or pair in told:
                continue
            told.add(pair)
            yield Finding(
                ("hosts", rack.hosts.index(host), "depends_on"),
                f"{served.id} also runs on {other.name}, which may sleep while {host.name} is awake",
                f'add depends_on=["{other.name}"] to {host.name}',
            )


def _refers(rack: Rack, wanted: Gateway, found: Reach) -> Iterator[Finding]:
    """Yield models, hosts and outside servers that are named and that it does not serve."""
    known = rack.models_by_name()

    def id_of(name: str) -> str:
        return known[name].id if name in known else name

    beyond = {one.name: {id_of(name) for name in one.models} for one in wanted.outside}
    models = {served.id for upstream in found.upstreams for served in upstream.models}.union(*beyond.values())
    names = sorted({*models, *(alias for one in known.values() if one.id in models for alias in one.aliases)})
    for place, key in enumerate(wanted.keys):
        for at, name in enumerate(key.models):
            if id_of(name) not in models:
                yield missing((*_AT, "keys", place, "models", at), "model that it serves", name, names)
    for place, entry in enumerate(wanted.models):
        path = (*_AT, "models", place)
        if entry.model not in models:
            yield missing((*path, "model"), "model that it serves", entry.model, sorted(models))
        for at, name in enumerate(entry.last_resort or ()):
            if name in (entry.last_resort or ())[:at]:
                yield Finding((*path, "last_resort", at), f"{name} is in the list already", "remove it")
            elif name not in beyond:
                yield missing((*path, "last_resort", at), "server in `outside`", name, beyond)
            elif entry.model not in beyond[name]:
                reason = f"{name} does not have {entry.model}"
                yield Finding((*path, "last_resort", at), reason, f"add it to `models` of {name}")
    hosts = {served.host.name for upstream in found.upstreams for served in upstream.models}
    for place, treated in enumerate(wanted.treats):
        path = (*_AT, "treats", place)
        if treated.host not in hosts:
            yield missing((*path, "host"), "host that it serves", treated.host, sorted(hosts))
        for at, call in enumerate(treated.wakes or ()):
            if treated.passes is not None and call not in treated.passes:
                yield Finding((*path, "wakes", at), f"{call} is not let through", "add it to `passes`")
