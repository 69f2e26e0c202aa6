"""Our operations under plain ``pyinfra``: they need nothing of labctl's own worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ops_hosts import ME, MY_GROUP

DEPLOY = f"""
from labctl.ops import files, systemd
OWNER = {{"user": "{ME}", "group": "{MY_GROUP}"}}
ROOT = __import__("pathlib").Path(__file__).resolve().parent
files.directory(name="folder", path=f"{{ROOT}}/etc", mode="755", **OWNER)
new = files.put(name="text", dest=f"{{ROOT}}/etc/a b.conf", content="it's\\n", **OWNER)
files.put(name="key", dest=f"{{ROOT}}/etc/key", content="hunter2", mode="600", secret=True, **OWNER)
files.link(name="link", path=f"{{ROOT}}/etc/link", target="a b.conf")
files.put(name="only if", dest=f"{{ROOT}}/etc/marker", content="x", _if=new.did_change, **OWNER)
"""


def _pyinfra(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pyinfra", *options, "@local", "deploy.py"]
    environment = {**os.environ, "HOME": str(directory)}
    return subprocess.run(
        argv,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _untouched(directory: Path) -> dict[str, tuple[int, int]]:
    """Return what any write would change: inode and ctime (reading moves the atime)."""
    seen = {path.name: path.lstat() for path in directory.iterdir()}
    return {name: (stat.st_ino, stat.st_ctime_ns) for name, stat in seen.items()}


def test_a_deploy_runs_and_the_second_time_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "deploy.py").write_text(DEPLOY)
    dry = _pyinfra(tmp_path, "--dry", "--diff")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "etc").exists()
    assert "+it's" in dry.stdout + dry.stderr

    first = _pyinfra(tmp_path, "-y", "-vvv", "--debug", "--diff")
    assert first.returncode == 0, first.stdout + first.stderr
    assert (tmp_path / "etc/a b.conf").read_text() == "it's\n"
    assert (tmp_path / "etc/key").read_text() == "hunter2"
    assert (tmp_path / "etc/marker").exists()
    said = first.stdout + first.stderr
    assert "hunter2" not in said
    assert "aHVudGVyMg" not in said

    before = _untouched(tmp_path / "etc")
    second = _pyinfra(tmp_path, "-y")
    assert second.returncode == 0, second.stderr
    assert _untouched(tmp_path / "etc") == before
    assert second.stderr.count("No changes") == 5
