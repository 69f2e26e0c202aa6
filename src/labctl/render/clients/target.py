"""Which endpoint a client shall use, how it is reached, and what may be asked of it.

The best is one place for everything that is always there: a llama-swap with peers on an always-on host that
can be reached over the network. Where there is none, a llama-swap or an engine that serves the model; what
can be reached comes before what needs a tunnel. Among equals the one with the most models wins, then the
first of the rack file.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.inventory.coldstart import ColdStart, cold_start
from labctl.inventory.endpoints import Endpoint, Served, address_from, base_url, endpoints
from labctl.inventory.explain import did_you_mean
from labctl.inventory.rack import Rack
from labctl.inventory.services import LlamaSwap

KEY = "LABCTL_API_KEY"
CHATTING = frozenset(("chat", "vision"))
# Where the inventory states no context: small enough for any model, large enough for a coding agent's start.
UNKNOWN_CONTEXT = 16384


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint as a client outside of the rack uses it.

    ``tunnel`` is the ssh command that must run beside it, empty where it is reached directly. ``models`` are
    those of interest, the first one being what a client should use unless told otherwise.
    """

    rack: str
    endpoint: Endpoint
    base_url: str
    tunnel: tuple[str, ...]
    models: tuple[Served, ...]

    @property
    def asks_for_key(self) -> bool:
        """Return whether the endpoint wants a key."""
        return self.endpoint.key is not None

    @property
    def slowest(self) -> ColdStart:
        """Return the longest cold start among the models."""
        return max((cold_start(served) for served in self.models), key=lambda cold: cold.first_byte_s)

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
            where = f"{self.endpoint.service.listen} of {self.endpoint.host.name}"
            yield f"it listens on {where} only; keep this running beside the client: {' '.join(self.tunnel)}"
        yield self._key_note(folder)
        slowest = max(self.models, key=lambda served: cold_start(served).first_byte_s)
        yield f"a first answer may take {cold_start(slowest)}; model {slowest.id} on {slowest.host.name}"
        unknown = [served.id for served in self.of(CHATTING) if served.context is None]
        if unknown:
            yield (
                f"the rack file states no context for {', '.join(unknown[:5])}"
                f"{', ...' if len(unknown) > 5 else ''}; clients that want one get {UNKNOWN_CONTEXT} tokens"
            )

    def _key_note(self, folder: Path) -> str:
        secret = self.endpoint.key
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
    fitting = [
        endpoint
        for endpoint in endpoints(rack)
        if host in (None, endpoint.host.name)
        and (wanted is None or wanted in [served.id for served in endpoint.models()])
        and endpoint.models()
    ]
    if not fitting:
        what = f"model {wanted}" if wanted else "any model"
        raise LabctlError(
            f"nothing {'on ' + host if host else 'in this rack'} serves {what}",
            hint="add a LlamaServer(...) or a LlamaSwap(...) to `services` of a host",
        )
    return target(rack, min(fitting, key=_rank), wanted)


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
    address = address_from(endpoint, None)
    tunnel: tuple[str, ...] = ()
    if address is None:
        address, listen = "127.0.0.1", endpoint.service.listen
        ssh = rack.ssh_for(endpoint.host)
        far = f"[{listen}]" if ":" in listen else listen
        port = () if ssh.port == 22 else ("-p", str(ssh.port))
        there = f"{ssh.user}@{endpoint.host.address}"
        tunnel = ("ssh", "-N", *port, "-L", f"{endpoint.port}:{far}:{endpoint.port}", there)
    models = tuple(
        served for served in endpoint.models() if served.id == wanted or (wanted is None and served.listed)
    )
    return Target(rack.name, endpoint, base_url(address, endpoint.port), tunnel, models)
