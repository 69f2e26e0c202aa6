"""Pieces of files on hosts over a real SSH connection: bytes come through whole, and names stay names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loopback import Lan

from labctl import wiring
from labctl.adapters.ssh import SshRemote
from labctl.domain.problem import LabctlError
from labctl.fitting.host_ranges import HostRanges


def test_pieces_come_through_whole_and_are_read_as_root(lan: Lan, tmp_path: Path) -> None:
    content = os.urandom(5 * 1024**2)
    path = tmp_path / "a model's $(id).gguf"
    path.write_bytes(content)
    source = wiring.readers(SshRemote(), {"box": lan.start()}).host("box", str(path))
    assert source.size == len(content)
    assert source.read(100, 4 * 1024**2) == content[100 : 100 + 4 * 1024**2]
    assert source.read(len(content) - 3, 1000) == content[-3:]
    assert all(" sudo -H -n -- " in command for command in lan.hosts[0].commands)


def test_a_file_that_is_not_there_says_what_the_host_said(lan: Lan) -> None:
    source = HostRanges(SshRemote(), "box", lan.start(), "/nowhere/model.gguf")
    with pytest.raises(
        LabctlError, match=r"box:/nowhere/model\.gguf: is no file there .*No such file"
    ) as found:
        _ = source.size
    assert "is the path right, and was the model fetched?" in str(found.value)
    with pytest.raises(LabctlError, match=r"cannot be read .*No such file"):
        source.read(0, 10)


def test_a_host_that_hangs_up_is_named(lan: Lan) -> None:
    source = HostRanges(SshRemote(), "box", lan.start("hangs-up"), "/model.gguf")
    with pytest.raises(LabctlError, match=r"host box: box:/model\.gguf: cannot be read: "):
        _ = source.size
