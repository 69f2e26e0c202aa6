"""Fixtures of the controller's tests: a controller over a rack that lies and a store of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lying_rack import Nature, Sim, host_policy, policy_of, sim_of, world_of

from labctl.adapters.store.sqlite import SqliteFile


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit without a flush: no test here takes the power away, and some commit ten thousand times."""
    begin = SqliteFile.begin

    def fast(self: SqliteFile, *, write: bool, sure: bool) -> dict[str, Any]:
        return begin(self, write=write, sure=False)

    monkeypatch.setattr(SqliteFile, "begin", fast)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Callable[..., Sim]]:
    """Return a maker of controllers over a rack of gpu1 (and whoever is named), all proven."""
    made: list[Sim] = []

    def make(*, natures: dict[str, Nature] | None = None, armed: bool = True, **changes: Any) -> Sim:
        names = list(natures or {"gpu1": Nature()})
        policy = policy_of(*(host_policy(name, **{"quiet_s": 60.0, **changes}) for name in names))
        world = world_of(policy, **(natures or {}))
        sim = sim_of(tmp_path, policy, world, armed=armed)
        made.append(sim)
        return sim

    yield make
    for sim in made:
        sim.doors.store.close()
