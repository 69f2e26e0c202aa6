"""Say how soon each model and host could serve, from the table and from what was last seen.

The rule: a model is as near as its nearest upstream. It counts as loaded only where somebody told so, or
where it is loaded whenever its host is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from math import inf

from labctl.domain.gateway.table import Host, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.gateway.terms import HostNow, World

from .documents import HostStatus, ModelNow, State

ON_THE_WAY = frozenset({Mode.WAKING, Mode.VERIFYING})
NEARNESS = {state: at for at, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Prospect:
    """One upstream for a model: its state, and in how many seconds it could answer (None: nobody knows)."""

    state: State
    expected_s: float | None
    served: Served
    upstream: Upstream

    @property
    def rank(self) -> tuple[int, float]:
        """Return what the nearest has the least of."""
        return NEARNESS[self.state], inf if self.expected_s is None else self.expected_s


def host_expected_s(now: HostNow) -> float | None:
    """Return in how many seconds a host could serve; 0 for now, None where nothing will bring it."""
    if now.mode in ADMITS:
        return 0.0
    if now.mode in ON_THE_WAY:
        return max(now.left_s, 0.0)
    return None if now.refused else now.comes_s


def host_state(now: HostNow) -> State:
    """Return a host's state in the words of a model's that is loaded whenever its host is ready."""
    if now.mode in ADMITS:
        return State.READY
    if now.mode in ON_THE_WAY:
        return State.WAKING
    if now.refused or now.mode is Mode.FAILED:
        return State.UNAVAILABLE
    return State.UNKNOWN if now.mode is Mode.UNKNOWN else State.ASLEEP


class Outlook:
    """What pages tell of the rack; ``loaded`` as for ``pages.Around``."""

    def __init__(
        self, table: Table, world: Callable[[], World], loaded: Callable[[str], Collection[str]]
    ) -> None:
        """Find each model once by each of its names."""
        self._world = world
        self._loaded = loaded
        upstreams = {upstream.name: upstream for upstream in table.upstreams}
        self.hosts = {host.name: host for host in table.hosts}
        self.models = {name: model for model in table.models for name in (*model.aliases, model.id)}
        self.listed = tuple(model for model in table.models if model.listed)
        self._served: dict[str, list[tuple[Served, Upstream]]] = {model.id: [] for model in table.models}
        for served in table.served:
            self._served[served.model].append((served, upstreams[served.upstream]))

    def now(self, host: Host) -> HostNow:
        """Return a host as it was seen last.

        While the store can't be used, one that never sleeps counts as awake, as it does for requests.
        """
        world = self._world()
        seen = world.hosts[host.name]
        return replace(seen, mode=Mode.READY) if world.trouble and not host.sleeps else seen

    def prospects(self, model: Model) -> list[Prospect]:
        """Return all upstreams of a model, the nearest first; among equals as in the table."""
        return sorted(self._prospects(model), key=lambda prospect: prospect.rank)

    def _prospects(self, model: Model) -> Iterator[Prospect]:
        for served, upstream in self._served[model.id]:
            if not upstream.host:
                yield Prospect(State.OUTSIDE, 0.0, served, upstream)
                continue
            now = self.now(self.hosts[upstream.host])
            state, expected_s = host_state(now), host_expected_s(now)
            is_loaded = not served.load_s or served.asked_as in self._loaded(upstream.name)
            if state is State.READY and not is_loaded:
                state = State.AWAKE
            if expected_s is not None and state is not State.READY:
                expected_s += served.load_s
            yield Prospect(state, expected_s, served, upstream)

    def model_now(self, model: Model, *, outside: bool) -> ModelNow:
        """Return the state of a model, for somebody who may be served outside of the rack or may not."""
        prospects = [one for one in self.prospects(model) if outside or one.state is not State.OUTSIDE]
        best = prospects[0] if prospects else None
        hosts = dict.fromkeys(p.upstream.host for p in prospects if p.upstream.host)
        return ModelNow(
            state=best.state if best else State.UNAVAILABLE,
            expected_s=best.expected_s if best else None,
            kind=model.kind,
            hosts=tuple(hosts),
            loaded=tuple(
                dict.fromkeys(
                    p.upstream.host for p in prospects if p.state is State.READY and p.upstream.host
                )
            ),
            aliases=model.aliases,
            context=model.context,
        )

    def models_at(self, host: str) -> tuple[str, ...]:
        """Return the ids of the models that a host serves."""
        return tuple(
            model
            for model, served in self._served.items()
            if any(upstream.host == host for _, upstream in served)
        )

    def host_status(self, host: Host, may: Callable[[str], bool]) -> HostStatus:
        """Return the state of a host, with those of its models that ``may`` be seen."""
        now = self.now(host)
        return HostStatus(
            name=host.name,
            mode=now.mode,
            since=now.since,
            because=now.because,
            expected_s=host_expected_s(now),
            refused=now.refused,
            leases=now.leases,
            sleeps=host.sleeps,
            wakeable=host.wakeable,
            models=tuple(filter(may, self.models_at(host.name))),
        )
