"""The hosts of these tests, as fixtures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ops_hosts import Canned, Diffs, Here
from pyinfra.context import ctx_host, ctx_state

from labctl.ops.command import Script

Evaluate = Callable[[Mapping[str, list[str]], Any, dict[str, Any]], list[Script]]


@pytest.fixture
def diffs() -> Iterator[Diffs]:
    logger = logging.getLogger("pyinfra")
    tap, level = Diffs(), logger.level
    logger.addHandler(tap)
    logger.setLevel(logging.INFO)
    yield tap
    logger.setLevel(level)
    logger.removeHandler(tap)


@pytest.fixture
def _state() -> Iterator[SimpleNamespace]:
    state = SimpleNamespace(config=SimpleNamespace(DIFF=True), is_executing=False)
    with ctx_state.use(state):
        yield state


@pytest.fixture
def here(tmp_path: Path, _state: SimpleNamespace) -> Iterator[Here]:
    host = Here(tmp_path)
    with ctx_host.use(host):
        yield host


@pytest.fixture
def canned(_state: SimpleNamespace) -> Evaluate:
    def evaluate(said: Mapping[str, list[str]], operation: Any, arguments: dict[str, Any]) -> list[Script]:
        with ctx_host.use(Canned(said)):
            return list(operation._inner(**arguments))

    return evaluate
