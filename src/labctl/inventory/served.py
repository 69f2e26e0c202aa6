"""What may be loaded at the same time on each host, as the rack file says.

A host has several loaders, which know nothing of each other, and each has at any time one of its ways loaded:

- an engine that is a service by itself has one way: it is always loaded, and counts beside every other;
- llama-swap has those that its matrix or its groups allow (``domain.swapsets``);
- Ollama loads by itself what fits. With ``max_loaded_models`` stated, any so many of its models have to fit
  together; without, each of them alone;
- an engine of another host that uses this one's cards (llama.cpp's RPC, a Ray cluster) counts as always
  loaded, since this host does not decide about it.

A ``Command`` is a program of which labctl knows nothing: it takes part in llama-swap's sets with nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

from labctl.domain.fit.terms import Device
from labctl.domain.problem import Problem
from labctl.domain.swapsets import (
    ALONE,
    MOST_SETS,
    UNGROUPED,
    Combination,
    Group,
    SetError,
    group_sets,
    matrix_sets,
)
from labctl.inventory import memory
from labctl.inventory.builds import Choice, cards_of, choose
from labctl.inventory.clusters import devices_of, find_host
from labctl.inventory.hosts import Host
from labctl.inventory.models import Model
from labctl.inventory.rack import Rack
from labctl.inventory.services import (
    Command,
    LlamaServer,
    LlamaSwap,
    Ollama,
    Sglang,
    TabbyApi,
    Vllm,
    each_engine,
)
from labctl.inventory.swapping import model_of

Where = tuple[str | int, ...]
OneModel = LlamaServer | Vllm | Sglang | TabbyApi


@dataclass(frozen=True, slots=True)
class Served:
    """A model that an engine can have loaded; ``devices`` are those that it may use, main memory last.

    Devices of another host than the engine's bear that host's name and a slash before their own.
    """

    host: str
    service: str
    model: Model
    engine: OneModel | Ollama
    path: Where
    devices: tuple[Device, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what tells it from all others of the rack."""
        return self.host, self.service, self.model.id


@dataclass(frozen=True, slots=True)
class Way:
    """What a loader may have loaded at the same time; ``title`` is how it is spoken of."""

    title: str
    path: Where
    members: tuple[Served, ...]


@dataclass(frozen=True, slots=True)
class Loads:
    """Everything that may be loaded on a host: for each loader its ways. ``refused`` could not be read."""

    host: Host
    path: Where
    devices: tuple[Device, ...]
    loaders: tuple[tuple[Way, ...], ...]
    notes: tuple[str, ...] = ()
    refused: tuple[tuple[Where, SetError], ...] = ()

    @property
    def served(self) -> tuple[Served, ...]:
        """Return every model that any of its loaders may load, once."""
        every = (one for ways in self.loaders for way in ways for one in way.members)
        return tuple({one.key: one for one in every}.values())


def loads(rack: Rack) -> tuple[Loads, ...]:
    """Return what may be loaded on every host of the rack, in its order."""
    lent = list(_lent(rack))
    return tuple(_loads(rack, place, host, lent) for place, host in enumerate(rack.hosts))


def build_of(rack: Rack, served: Served) -> str:
    """Return a name for the engine's build, by which measurements are told apart."""
    engine = served.engine
    if engine.binary is not None:
        return f"{engine.kind} {engine.binary}"
    host = find_host(rack, served.host)
    choice = None if host is None else choose(rack, host, engine)
    builds = choice.builds if isinstance(choice, Choice) else ()
    words = [f"{build.version} {getattr(build, 'backend', '')}".strip() for build in builds]
    return " ".join([engine.kind, *words])


def _loads(rack: Rack, place: int, host: Host, lent: Sequence[Served]) -> Loads:
    at: Where = ("hosts", place)
    loaders: list[tuple[Way, ...]] = []
    notes: list[str] = []
    refused: list[tuple[Where, SetError]] = []
    for index, service in enumerate(host.services):
        path = (*at, "services", index)
        if isinstance(service, LlamaSwap | Ollama):
            try:
                loaders.append(tuple(_ways(rack, host, service, path)))
            except SetError as error:
                refused.append((path, error))
            notes += [
                _unknown(engine.name) for _, engine in each_engine(service) if isinstance(engine, Command)
            ]
        elif isinstance(service, OneModel):
            one = _served(rack, host, service, path)
            loaders.append((Way(f"service {service.name}", path, (one,)),))
        elif isinstance(service, Command) and service.model is not None:
            notes.append(_unknown(service.name))
    for one in lent:
        if one.host != host.name and any(device.name.startswith(f"{host.name}/") for device in one.devices):
            loaders.append((Way(f"service {one.service} of {one.host}", one.path, (one,)),))
    kept = tuple(ways for ways in loaders if any(way.members for way in ways))
    return Loads(host, at, memory.of(host), kept, tuple(notes), tuple(refused))


def _unknown(name: str) -> str:
    return f"{name} is not counted: labctl does not know what its program takes"


def _served(rack: Rack, host: Host, engine: OneModel, path: Where) -> Served:
    model = model_of(rack, engine) or rack.model(engine.model)
    return Served(host.name, engine.name, model, engine, path, devices(rack, host, engine))


def devices(rack: Rack, host: Host, engine: OneModel) -> tuple[Device, ...]:
    """Return what an engine may use, in the order in which it counts it, main memory of its host last."""
    cards: list[Device] = []
    for part in devices_of(rack, engine, host):
        found = memory.cards(part.host, part.gpus)
        cards += found if part.host.name == host.name else [_far(part.host.name, one) for one in found]
    return (*cards, memory.of(host)[-1])


def _far(host: str, device: Device) -> Device:
    pool = f"{host}/{device.shared}" if device.shared else ""
    return replace(device, name=f"{host}/{device.name}", shared=pool)


def _lent(rack: Rack) -> Iterator[Served]:
    """Yield every engine that uses cards of other hosts, those under llama-swap included."""
    for place, host in enumerate(rack.hosts):
        for index, service in enumerate(host.services):
            path: Where = ("hosts", place, "services", index)
            engines = (
                [((*path, "models", n, "engine"), one.engine) for n, one in enumerate(service.models)]
                if isinstance(service, LlamaSwap)
                else [(path, service)]
            )
            for where, engine in engines:
                if (isinstance(engine, LlamaServer) and engine.rpc) or (
                    isinstance(engine, Vllm) and engine.cluster is not None
                ):
                    yield _served(rack, host, engine, where)


def _ways(rack: Rack, host: Host, service: LlamaSwap | Ollama, path: Where) -> Iterator[Way]:
    if isinstance(service, LlamaSwap):
        return _swap_ways(rack, host, service, path)
    return _ollama_ways(rack, host, service, path)


def _swap_ways(rack: Rack, host: Host, swap: LlamaSwap, path: Where) -> Iterator[Way]:
    """Yield what llama-swap may have loaded at a time.

    Raises:
        SetError: its sets or groups cannot be read.
    """
    members: dict[str, Served | None] = {}
    for index, one in enumerate(swap.models):
        where = (*path, "models", index, "engine")
        engine = one.engine
        if isinstance(engine, Command):
            members[engine.name if engine.model is None else rack.model(engine.model).id] = None
        else:
            served = _served(rack, host, engine, where)
            members[served.model.id] = served

    def way(title: str, where: Where, combination: Combination) -> Way:
        found = [members[name] for name in members if name in combination]
        return Way(title, where, tuple(one for one in found if one is not None))

    if swap.matrix is not None:
        for name, every in matrix_sets(swap.matrix.sets, swap.matrix.vars, members).items():
            title = f'llama-swap matrix set "{name}"' if name != ALONE else "llama-swap, in no set"
            where = (*path, "matrix", "sets", name) if name != ALONE else path
            yield from (way(title, where, combination) for combination in every)
        return
    groups = [Group(one.name, one.members, one.swap, one.exclusive, one.persistent) for one in swap.groups]
    for names, every in group_sets(groups, members).items():
        first = names.partition(" + ")[0]
        place = next((n for n, group in enumerate(groups) if group.name == first), None)
        title = "llama-swap" if names == UNGROUPED else f'llama-swap group "{names}"'
        where = path if place is None else (*path, "groups", place)
        yield from (way(title, where, combination) for combination in every)


def _ollama_ways(rack: Rack, host: Host, service: Ollama, path: Where) -> Iterator[Way]:
    """Yield what Ollama may have loaded at a time.

    Raises:
        SetError: there are too many combinations to look at each.
    """
    places = (*memory.cards(host, cards_of(host, service)), memory.of(host)[-1])
    every = [
        Served(host.name, service.name, rack.model(name), service, path, places)
        for name in dict.fromkeys(rack.model(one).id for one in service.models)
    ]
    limit = service.max_loaded_models
    count = min(limit or 1, len(every))
    if comb(len(every), count) > MOST_SETS:
        reason = f"has more than {MOST_SETS} combinations of {count} models, too many to look at"
        raise SetError(service.name, reason, "lower max_loaded_models")
    stated = f" with max_loaded_models={limit}" if limit is not None else ""
    for chosen in combinations(every, count):
        yield Way(f"Ollama {service.name}{stated}", path, chosen)


def refusal(loads_: Loads) -> Iterator[tuple[Where, Problem]]:
    """Yield what could not be read of what a host may load."""
    for path, error in loads_.refused:
        yield path, Problem(f"set {error.name!r} {error.reason}", error.hint, host=loads_.host.name)
