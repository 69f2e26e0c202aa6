"""Which endpoint a client shall use, how it is reached, and what may be asked of it.

The best is the rack's gateway, which wakes hosts; then one place for everything that is always there: a
llama-swap with peers on an always-on host. Where there is none, a llama-swap or an engine that serves the
model. What can be reached over the network comes before what needs a tunnel. Among equals the one with the
most models wins, then the first of the rack file.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.inventory.coldstart import ColdStart, cold_start
from labctl.inventory.endpoints import Endpoint, Served, address_from, base_url, endpoints, reached
from labctl.inventory.explain import did_you_mean
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.secrets import Secret
from labctl.inventory.services import LlamaSwap

KEY = "LABCTL_API_KEY"
CHATTING = frozenset(("chat", "vision"))
# Where the inventory states no context: small enough for any model, large enough for a coding agent's start.
UNKNOWN_CONTEXT = 16384


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint as a client outside of the rack uses it.

    ``tunnel`` is the ssh command that must run beside it, empty where it is reached directly. ``models`` are
    those of interest, the first one being what a client should use unless told otherwise. ``key`` is where
    its key is read; ``keys`` are the names of a gateway's, of which each client has one. ``colds`` tells of
    models how long a first answer may take, where that is not what their host and engine say.
    """

    rack: str
    name: str
    host: Host
    listen: str
    base_url: str
    tunnel: tuple[str, ...]
    models: tuple[Served, ...]
    key: Secret | None = None
    keys: tuple[str, ...] = ()
    certificate: Path | None = None
    colds: Mapping[str, ColdStart] = field(default_factory=dict)

    @property
    def asks_for_key(self) -> bool:
        """Return whether the endpoint wants a key."""
        return self.key is not None or bool(self.keys)

    def serves(self, wanted: str | None, host: str | None) -> bool:
        """Return whether it is on that host and has that model; None is any."""
        ids = [served.id for served in self.models]
        return host in (None, self.host.name) and bool(ids if wanted is None else wanted in ids)

    def cold(self, served: Served) -> ColdStart:
        """Return how long the first answer of a model may take."""
        return self.colds.get(served.id) or cold_start(served)

    @property
    def slowest(self) -> ColdStart:
        """Return the longest cold start among the models."""
        return max(map(self.cold, self.models), key=lambda cold: cold.first_byte_s)

    @property
    def first_byte_s(self) -> int:
        """Return the seconds that a client must wait for a first byte."""
        return self.slowest.first_byte_s

    @property
    def whole_s(self) -> int:
        """Return the seconds that a client must allow from the request to the last byte."""
        return self.slowest.whole_s

    def only(self, kinds: Collection[str]) -> Target:
        """Return the same with models of these kinds alone; those that chat come first."""
        kept = [served for served in self.models if served.kind in kinds]
        return replace(self, models=tuple(sorted(kept, key=lambda served: served.kind not in CHATTING)))

    def of(self, kinds: Collection[str]) -> tuple[Served, ...]:
        """Return the models of these kinds."""
        return tuple(served for served in self.models if served.kind in kinds)

    def notes(self, folder: Path) -> Iterator[str]:
        """Yield what a person must know beside the snippet: tunnel, key, cold start, guessed contexts.

        ``folder`` is the rack file's, from which the paths of secrets start.
        """
        if self.tunnel:
            where = f"{self.listen} of {self.host.name}"
            yield f"it listens on {where} only; keep this running beside the client: {' '.join(self.tunnel)}"
        yield self._key_note(folder)
        if self.certificate is not None:
            path = shlex.quote(str(folder / self.certificate.expanduser()))
            yield f"clients that do not trust its certificate need it: {path}"
        slowest = max(self.models, key=lambda served: self.cold(served).first_byte_s)
        yield f"a first answer may take {self.cold(slowest)}; model {slowest.id} on {slowest.host.name}"
        unknown = [served.id for served in self.of(CHATTING) if served.context is None]
        if unknown:
            yield (
                f"the rack file states no context for {', '.join(unknown[:5])}"
                f"{', ...' if len(unknown) > 5 else ''}; clients that want one get {UNKNOWN_CONTEXT} tokens"
            )

    def _key_note(self, folder: Path) -> str:
        secret = self.key
        if secret is None and self.keys:
            whose = f"the key of {' or '.join(self.keys)}"
            return f"export {KEY}=... is {whose}, which labctl gateway keys new showed once"
        if secret is None:
            return f"it asks for no key; for clients that insist on one: export {KEY}=none"
        if secret.env is not None:
            return f'its key is in ${secret.env}: export {KEY}="${secret.env}"'
        path = shlex.quote(str(folder / (secret.file or "")))
        return f'its key is in {path}: export {KEY}="$(head -n1 {path})"'


def choose(rack: Rack, *, model: str | None = None, host: str | None = None) -> Target:
    """Return the best endpoint for a model and a host, both of which may be left open.

    Raises:
        LabctlError: nothing serves that, or there is no such model or host.
    """
    wanted = None if model is None else _id_of(rack, model)
    if host is not None and host not in [known.name for known in rack.hosts]:
        raise LabctlError(
            f"there is no host called {host!r}", hint=did_you_mean(host, [one.name for one in rack.hosts])
        )
    fitting = sorted(
        (
            endpoint
            for endpoint in endpoints(rack)
            if host in (None, endpoint.host.name)
            and (wanted is None or wanted in [served.id for served in endpoint.models()])
            and endpoint.models()
        ),
        key=_rank,
    )
    found = [target(rack, endpoint, wanted) for endpoint in fitting[:1]]
    gateway = gateway_target(rack, wanted)
    if gateway is not None and gateway.serves(wanted, host):
        found.insert(0, gateway)
    if not found:
        what = f"model {wanted}" if wanted else "any model"
        raise LabctlError(
            f"nothing {'on ' + host if host else 'in this rack'} serves {what}",
            hint="add a LlamaServer(...) or a LlamaSwap(...) to `services` of a host",
        )
    return min(found, key=lambda one: bool(one.tunnel))


def _id_of(rack: Rack, name: str) -> str:
    try:
        return rack.model(name).id
    except KeyError:
        known = [known for model in rack.models for known in (model.id, *model.aliases)]
        raise LabctlError(f"there is no model called {name!r}", hint=did_you_mean(name, known)) from None


def _rank(endpoint: Endpoint) -> tuple[int, ...]:
    reachable = address_from(endpoint, None) is not None
    swap = isinstance(endpoint.service, LlamaSwap)
    front = swap and bool(endpoint.peers) and endpoint.always_on
    return (not reachable, not front, not swap, not endpoint.always_on, -len(endpoint.models()))


def target(rack: Rack, endpoint: Endpoint, wanted: str | None = None) -> Target:
    """Return an endpoint as a machine outside of the rack uses it, with one model or all listed ones."""
    models = tuple(
        served for served in endpoint.models() if served.id == wanted or (wanted is None and served.listed)
    )
    url, tunnel = _way(rack, endpoint.host, endpoint.service.listen, endpoint.port)
    listen = endpoint.service.listen
    return Target(rack.name, endpoint.name, endpoint.host, listen, url, tunnel, models, endpoint.key)


def gateway_target(rack: Rack, wanted: str | None = None) -> Target | None:
    """Return the rack's own gateway in the same way; None where there is none.

    Of the hosts that have a model, the one with the smallest context and the slowest start count, since
    nobody knows which of them will answer.
    """
    stated = rack.gateway
    if stated is None:
        return None
    from labctl.render import gateway_table

    here: dict[str, list[Served]] = {}
    for line in gateway_table.lines_of(rack):
        for served in line.models:
            here.setdefault(served.id, []).append(served)
    usable = [
        one for one in stated.keys if wanted is None or not one.models or wanted in _ids(rack, one.models)
    ]
    models, colds = [], {}
    for model in gateway_table.models_of(rack) if usable or not stated.keys else ():
        if model.id not in here or not (model.id == wanted or (wanted is None and model.listed)):
            continue
        cold = max(map(cold_start, here[model.id]), key=lambda one: one.load_s)
        # It has those who ask wait for as long, wherever the model then is.
        colds[model.id] = replace(cold, wake_s=ceil(model.wait_s))
        models.append(min(here[model.id], key=lambda one: one.context or sys.maxsize))
    host = rack.host(stated.host)
    url, tunnel = _way(rack, host, stated.listen, stated.port)
    return Target(
        rack.name,
        f"{host.name}/gateway",
        host,
        stated.listen,
        url if stated.certificate is None else url.replace("http:", "https:", 1),
        tunnel,
        tuple(models),
        next((one.secret for one in sorted(usable, key=lambda one: bool(one.models)) if one.secret), None),
        tuple(one.name for one in usable),
        stated.certificate,
        colds,
    )


def _ids(rack: Rack, names: Collection[str]) -> set[str]:
    known = rack.models_by_name()
    return {known[name].id if name in known else name for name in names}


def _way(rack: Rack, host: Host, listen: str, port: int) -> tuple[str, tuple[str, ...]]:
    """Return the base URL of what listens on a host, and the tunnel that leads to it where one must."""
    address = reached(host, listen, None)
    if address is not None:
        return base_url(address, port), ()
    ssh = rack.ssh_for(host)
    far = f"[{listen}]" if ":" in listen else listen
    own = () if ssh.port == 22 else ("-p", str(ssh.port))
    there = f"{ssh.user}@{host.address}"
    return base_url("127.0.0.1", port), ("ssh", "-N", *own, "-L", f"{port}:{far}:{port}", there)
