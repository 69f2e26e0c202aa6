"""Fixtures for the tests of power back-ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.agent.build import zipapp_bytes


@pytest.fixture(scope="session")
def agent_pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the executable zip on disk, in a directory of its own."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(zipapp_bytes())
    path.chmod(0o755)
    return path


Secret = Callable[[str, str], Path]


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    """Return what writes a secret into a file of the rack's folder, which is ``tmp_path``."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(text)
        return Path(name)

    return write
