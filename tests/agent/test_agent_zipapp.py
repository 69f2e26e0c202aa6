"""The file that hosts get: the same bytes each time, old Pythons, nothing but the standard library."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from labctl.agent.build import SHEBANG, zipapp_bytes

_DIGEST = (
    "import hashlib, sys\n"
    "from labctl.agent.build import zipapp_bytes\n"
    "print(hashlib.sha256(zipapp_bytes()).hexdigest())\n"
    "assert not {'pyinfra', 'gevent', 'pynvml'} & set(sys.modules), 'the build loads more than it needs'\n"
)


def bundled() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(zipapp_bytes())) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def own() -> dict[str, bytes]:
    return {name: content for name, content in bundled().items() if name != "pynvml.py"}


def test_two_builds_in_different_surroundings_give_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for seed, zone, mask in (("0", "UTC", 0o022), ("77", "Asia/Tokyo", 0o077)):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        argv = [sys.executable, "-c", _DIGEST]
        done = subprocess.run(argv, env=environment, cwd=tmp_path, umask=mask, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert digests == {hashlib.sha256(zipapp_bytes()).hexdigest()}


def test_it_holds_the_agent_and_the_nvml_binding_and_nothing_else() -> None:
    names = list(bundled())
    assert names == sorted(names)
    assert "labctl/agent/main.py" in names and "pynvml.py" in names
    assert not {"labctl/agent/build.py", "labctl/agent/access.py"} & set(names)
    outside = {name for name in names if not name.startswith("labctl/agent/")}
    domain = {f"labctl/domain/{name}.py" for name in ("__init__", "capping", "cap_json", "pci")}
    assert outside == {"__main__.py", "labctl/__init__.py", "pynvml.py"} | domain
    assert "labctl/agent/prune.py" not in names
    assert zipapp_bytes().startswith(SHEBANG)


def test_what_is_shipped_reads_as_python_3_9() -> None:
    for name, content in bundled().items():
        ast.parse(content, name, feature_version=(3, 9))


def test_what_is_shipped_imports_itself_and_the_standard_library_only() -> None:
    foreign = []
    for name, content in own().items():
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            known = {*sys.stdlib_module_names, "pynvml"} | ({"labctl"} if name == "__main__.py" else set())
            foreign += [f"{name}: {module}" for module in modules if module.split(".")[0] not in known]
    assert foreign == []


def _pythons() -> list[str]:
    """Return the system's own Pythons; version managers' shims need a shell and an environment."""
    return sorted(
        str(path) for path in Path("/usr/bin").glob("python3*") if re.fullmatch(r"python3(\.\d+)?", path.name)
    )


@pytest.mark.parametrize("python", _pythons())
@pytest.mark.parametrize("flags", [[], ["-I"], ["-S"], ["-O"]], ids=lambda flags: " ".join(flags) or "plain")
def test_it_runs_alone_in_an_empty_environment(
    agent_pyz: Path, tmp_path: Path, python: str, flags: list[str]
) -> None:
    done = subprocess.run(
        [python, "-W", "error", *flags, agent_pyz, "report"],
        env={},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["system"]["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_directory_full_of_traps_changes_nothing(agent_pyz: Path, tmp_path: Path) -> None:
    for name in (
        "json",
        "labctl",
        "pynvml",
        "os",
        "re",
        "socket",
        "ctypes",
        "sitecustomize",
        "usercustomize",
    ):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('trapped')\n")
    done = subprocess.run([agent_pyz, "report"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["system"]
