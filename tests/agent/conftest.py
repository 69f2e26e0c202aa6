"""Fixtures: the agent as hosts get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from host_tree import Tree
from serving_engine import ServingEngine
from sleeping_host import SleepingHost

from capped_host import MakeBox, make_box
from fake_gpus import MakeNvml
from labctl.agent.build import zipapp_bytes


@pytest.fixture(scope="session")
def agent_pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the executable zip on disk, in a directory of its own."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(zipapp_bytes())
    path.chmod(0o755)
    return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SleepingHost:
    """Return a quiet host without cards that can sleep and be woken by a magic packet."""
    return SleepingHost(tmp_path, monkeypatch)


@pytest.fixture
def engine() -> Iterator[ServingEngine]:
    """Return an engine on loopback."""
    made = ServingEngine()
    yield made
    made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a quiet host as a tree of files."""
    return Tree(tmp_path)


@pytest.fixture
def box(loaded_nvml: MakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeBox:
    """Make a host with these NVIDIA cards, which its PCI bus shows too."""

    return make_box(loaded_nvml, tmp_path, monkeypatch)
