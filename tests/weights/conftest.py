"""Local hosts and a hub that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hosts import Hub, LocalHosts


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.end()


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[LocalHosts]:
    made = LocalHosts(tmp_path / "hosts")
    made.folder.mkdir()
    yield made
    made.stop()
