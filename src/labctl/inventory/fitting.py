"""Whether what a rack file has loaded together fits each host's memory.

For every way in which a host can be loaded (``served``), all that is loaded then is estimated and added up:
the way itself, what is always loaded, and of other loaders that way which takes most of the memory in
question. So a host fits if every one of its sets fits beside the worst of all others.

Unsure: a model whose size could not be read makes the verdict of its sets "not known", with the reason. A
host of which no memory is known (no card, no ``memory_gib``) is not checked, and of one whose main memory
nobody stated the cards alone are; both are said. What was measured takes the place of what was estimated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

from labctl.domain.fit.cure import Part, cures
from labctl.domain.fit.estimate import estimate
from labctl.domain.fit.measured import Measured, corrected
from labctl.domain.fit.terms import Device, Estimate, ModelShape, Use, Verdict
from labctl.domain.fit.together import Pool, judge, pools
from labctl.domain.outcome import counted
from labctl.domain.problem import LabctlError, Problem
from labctl.inventory import memory, profiles, uses
from labctl.inventory.hosts import Host
from labctl.inventory.models import Model
from labctl.inventory.rack import Rack
from labctl.inventory.served import Loads, OneModel, Served, Way, build_of, loads, refusal
from labctl.inventory.services import LlamaServer, Ollama

Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of models, by their id: shapes, bytes of projectors, and why a shape is not known."""

    shapes: Mapping[str, ModelShape] = field(default_factory=dict)
    projectors: Mapping[str, int] = field(default_factory=dict)
    silent: Mapping[str, Problem] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    disk_bytes_s: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one host: ``estimate`` counts what was measured, ``plain`` does not.

    Without an estimate, ``why`` says why there is none.
    """

    served: Served
    use: Use | None = None
    estimate: Estimate | None = None
    plain: Estimate | None = None
    measured: Measured | None = None
    why: Problem | None = None


@dataclass(frozen=True, slots=True)
class SetFit:
    """The verdict on one way in which a host is loaded; ``lacks`` is in bytes, 0 where it fits."""

    title: str
    path: Where
    models: tuple[str, ...]
    verdict: Verdict
    lacks: int = 0


@dataclass(frozen=True, slots=True)
class HostFit:
    """All that is to be said of a host."""

    loads: Loads
    rows: tuple[Row, ...]
    sets: tuple[SetFit, ...]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool | None:
        """Return whether every set fits; None where one is not known and none is over, or nothing is."""
        found = {one.verdict.fits for one in self.sets} | ({False} if self.loads.refused else set())
        return False if False in found else True if found == {True} else None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants to try instead of what the rack file says: tokens for each of so many users."""

    context: int | None = None
    users: int | None = None

    def of(self, use: Use) -> Use:
        """Return the use with what was asked for; users who are counted have a cache of their own."""
        changed = use if self.context is None else replace(use, context=self.context)
        if self.users is None:
            return changed
        return replace(changed, sequences=self.users, unified_cache=False)


def tried(rack: Rack, host: Host, model: Model, *, beside: Loads | None = None) -> Loads:
    """Return a host that serves one model more, on all its cards, beside what is always loaded there.

    It runs under the engine that serves it elsewhere in the rack, else under llama-server.
    """
    every = (served for one in loads(rack) for served in one.served if served.model.id == model.id)
    known = next(every, None)
    engine: OneModel | Ollama = LlamaServer(name="fit", model=model.id, port=1)
    if known is not None:
        engine = known.engine.model_copy(update={"gpus": (), "rpc": (), "cluster": None})
    served = Served(host.name, engine.name, model, engine, (), memory.of(host))
    always = [ways for ways in beside.loaders if len(ways) == 1] if beside is not None else []
    own = (Way(f"{model.id} on {host.name}", (), (served,)),)
    return Loads(host, (), memory.of(host), (own, *always))


def checked(rack: Rack, names: Sequence[str] | None = None) -> tuple[Loads, ...]:
    """Return what is loaded on those hosts (None: all) of which anything can be said."""
    wanted = None if names is None else set(names)
    return tuple(one for one in loads(rack) if wanted is None or one.host.name in wanted)


def can_be_judged(loaded: Loads) -> bool:
    """Return whether a host has any memory of known size, so that models are worth a look."""
    return bool(loaded.served) and any(pool.known for pool in pools(loaded.devices))


def use_key(rack: Rack, served: Served, use: Use) -> str:
    """Return under which name a measurement of this model in this use is kept."""
    pins = [placed.sha256 or placed.path for placed in served.model.layout()]
    cards = [device.kind for device in served.devices]
    words = json.dumps([pins, build_of(rack, served), asdict(use), cards], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:32]


def row(rack: Rack, served: Served, sizes: Sizes, asked: Asked = Asked()) -> Row:
    """Return what one model takes on its host."""
    shape = sizes.shapes.get(served.model.id)
    draft = rack.model(served.model.draft).id if served.model.draft is not None else None
    for model in (served.model.id, draft):
        if model is not None and model not in sizes.shapes:
            unread = Problem(f"how large {model} is was not asked")
            return Row(served, why=sizes.silent.get(model, unread))
    assert shape is not None
    parts = uses.Parts(
        None if draft is None else sizes.shapes[draft], sizes.projectors.get(served.model.id, 0)
    )
    use = asked.of(uses.use(served, shape, parts))
    if use.context < 1:
        reason = (
            f"how long the context of {served.model.id} is stands neither in its files nor in the rack file"
        )
        word = dict(uses.options(served)).get("context", "")
        return Row(served, use, why=Problem(reason, f"state {word}" if word else ""))
    try:
        plain = _estimate(served, shape, use, sizes)
    except LabctlError as error:
        return Row(served, use, why=error.problems[0])
    measured = sizes.measured.get(use_key(rack, served, use)) if sizes.measured else None
    return Row(served, use, corrected(plain, measured) if measured else plain, plain, measured)


def _estimate(served: Served, shape: ModelShape, use: Use, sizes: Sizes) -> Estimate:
    found = _of_shape(shape, use, served.devices, sizes.disk_bytes_s.get(served.host))
    return replace(found, model=served.model.id)


@lru_cache(maxsize=4096)  # racks have the same model on the same cards many times
def _of_shape(shape: ModelShape, use: Use, devices: tuple[Device, ...], rate: int | None) -> Estimate:
    return estimate("", shape, use, devices, disk_bytes_s=rate)


def host_fit(rack: Rack, loaded: Loads, sizes: Sizes, asked: Asked = Asked()) -> HostFit:
    """Return the verdict on every set of a host."""
    rows = tuple(row(rack, served, sizes, asked) for served in loaded.served)
    by_key = {one.served.key: one for one in rows}
    notes = (*loaded.notes, *_notes(loaded, rows))
    if not can_be_judged(loaded):
        return HostFit(loaded, rows, (), notes)
    always = [way for ways in loaded.loaders if len(ways) == 1 for way in ways]
    turns = [ways for ways in loaded.loaders if len(ways) > 1]
    judging = _Judging(loaded, by_key, sizes)
    if not turns:
        path, titles = always[0].path, " and ".join(way.title for way in always)
        members = tuple(one for way in always for one in way.members)
        return HostFit(loaded, rows, (judging.fit(Way(titles, path, members), ()),), notes)
    sets = []
    for ways in turns:
        others = [*((way,) for way in always), *(other for other in turns if other is not ways)]
        sets += [judging.fit(way, others) for way in ways]
    return HostFit(loaded, rows, tuple(sets), notes)


def _notes(loaded: Loads, rows: Sequence[Row]) -> Iterator[str]:
    every = pools(loaded.devices)
    if not any(pool.known for pool in every):
        yield f"nothing is known of its memory ({_lacks(loaded.host)}), so nothing was checked"
    elif not all(pool.known for pool in every if not pool.decides):
        yield "memory_gib is not stated, so what models need of main memory was not checked"
    for one in rows:
        if flags := uses.uncounted(one.served):
            yield f"{one.served.service}: not counted of extra_args: {' '.join(flags)}"


def _lacks(host: Host) -> str:
    """Return what of the inventory would say how much memory a host has, and does not."""
    if not host.gpus:
        return "no Gpu, no memory_gib"
    if any(profiles.of(gpu).unified for gpu in host.gpus):
        return "no unified_memory_gib"
    return "no Gpu that labctl knows or that states memory_gib"


@dataclass(frozen=True, slots=True)
class _OfPool:
    """A verdict by one pool. ``rank`` orders them: over by most, not known, the one with least left."""

    verdict: Verdict
    rank: tuple[int, float]
    lacks: int
    members: tuple[Served, ...]


class _Judging:
    """Judges the sets of one host."""

    def __init__(self, loaded: Loads, rows: Mapping[tuple[str, str, str], Row], sizes: Sizes) -> None:
        self._host = loaded.host.name
        self._devices = loaded.devices
        self._pools = pools(loaded.devices)
        self._rows = rows
        self._sizes = sizes

    def fit(self, way: Way, others: Sequence[tuple[Way, ...]]) -> SetFit:
        """Return the verdict on a way beside the worst of the other loaders."""
        models = tuple(one.model.id for one in way.members)
        beside = [one for ways in others for other in ways for one in other.members]
        for one in (*way.members, *beside):
            if why := self._rows[one.key].why:
                because = f"whether {one.model.id} fits is not known: {why.reason}"
                return SetFit(way.title, way.path, models, Verdict(None, because, why.hint))
        found = [self._of_pool(pool, way, others) for pool in self._pools]
        worst = max(found, key=lambda one: one.rank)
        verdict = worst.verdict
        if verdict.fits is False:
            hint = cures([self._part(one) for one in worst.members], self._devices)
            verdict = replace(verdict, hint=hint)
        used = {name: size for one in found for name, size in one.verdict.used.items()}
        return SetFit(way.title, way.path, models, replace(verdict, used=used), worst.lacks)

    def _of_pool(self, pool: Pool, way: Way, others: Sequence[tuple[Way, ...]]) -> _OfPool:
        """Return the verdict by one pool alone, beside what takes most of it."""
        members = way.members
        for ways in others:
            worst = max(ways, key=lambda one: pool.taken(self._estimates(one.members)))
            members = (*members, *worst.members)
        running = self._estimates(members)
        verdict, taken = judge(running, pool.devices), pool.taken(running)
        lacks = max(0, taken - pool.usable) if pool.known else 0
        if verdict.fits is False:
            return _OfPool(verdict, (2, lacks), lacks, members)
        rank = (1, 0.0) if verdict.fits is None else (0, taken / pool.usable if pool.usable else 0.0)
        return _OfPool(verdict, rank, 0, members)

    def _estimates(self, members: Sequence[Served]) -> list[Estimate]:
        return [self._seen(found) for one in members if (found := self._rows[one.key].estimate)]

    def _seen(self, whole: Estimate) -> Estimate:
        """Return an estimate with this host's devices by their own names."""
        mine = f"{self._host}/"
        if not any(share.device.startswith(mine) for share in whole.shares):
            return whole
        shares = [
            replace(share, device=share.device.removeprefix(mine))
            for share in whole.shares
            if share.device.startswith(mine)
        ]
        return replace(whole, shares=tuple(shares))

    def _part(self, served: Served) -> Part:
        found = self._rows[served.key]
        shape = self._sizes.shapes[served.model.id]
        assert found.estimate is not None
        assert found.use is not None
        return Part(
            served.model.id,
            self._seen(found.estimate),
            found.use,
            lambda use: self._seen(_estimate(served, shape, use, self._sizes)),
            uses.options(served),
            uses.slots(found.use),
        )


def of_model(fit: HostFit, model: str) -> HostFit:
    """Return what of a host's verdicts is about one model."""
    rows = tuple(one for one in fit.rows if one.served.model.id == model)
    return replace(fit, rows=rows, sets=tuple(one for one in fit.sets if model in one.models))


def refusals(fit: HostFit) -> Iterator[tuple[Where, Problem]]:
    """Yield what does not fit on a host, the worst combination of each set, with its path in the rack."""
    yield from refusal(fit.loads)
    over: dict[str, list[SetFit]] = {}
    for one in fit.sets:
        if one.verdict.fits is False:
            over.setdefault(one.title, []).append(one)
    for title, every in over.items():
        worst = max(every, key=lambda one: one.lacks)
        others = len(every) - 1
        verb = "is" if others == 1 else "are"
        more = f"; {counted(others, 'more combination')} of it {verb} over" if others else ""
        reason = f"{title}: {worst.verdict.because}{more}"
        yield worst.path, Problem(reason, worst.verdict.hint, host=fit.loads.host.name)


def unknowns(fit: HostFit) -> Iterator[tuple[Where, Problem]]:
    """Yield why a verdict is not known, once for each model that is the reason, or each set."""
    told: set[str] = set()
    for one in fit.rows:
        if one.why is not None and can_be_judged(fit.loads) and one.served.model.id not in told:
            told.add(one.served.model.id)
            reason = f"whether {one.served.model.id} fits is not known: {one.why.reason}"
            yield one.served.path, Problem(reason, one.why.hint, host=fit.loads.host.name)
    for place in fit.sets:
        if place.verdict.fits is None and not told and place.verdict.because not in told:
            told.add(place.verdict.because)
            reason = f"{place.title}: {place.verdict.because}"
            yield place.path, Problem(reason, place.verdict.hint, host=fit.loads.host.name)
