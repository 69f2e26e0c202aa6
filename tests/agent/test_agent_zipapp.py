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

from labctl.agent import prune
from labctl.agent.build import SHEBANG, zipapp_bytes
from labctl.domain.problem import LabctlError

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
    domain = {f"labctl/domain/{name}.py" for name in ("__init__", "capping", "capstep", "cap_json", "pci")}
    assert outside == {"__main__.py", "labctl/__init__.py", "pynvml.py"} | domain
    assert "labctl/agent/prune.py" not in names
    assert zipapp_bytes().startswith(SHEBANG)


def test_what_is_shipped_reads_as_python_3_9() -> None:
    for name, content in bundled().items():
        ast.parse(content, name, feature_version=(3, 9))


# What came with Python 3.10 and would be a surprise on a host with 3.9; mypy knows the later ones.
_SINCE_3_10 = {
    *("pairwise", "aclosing", "bit_count", "eventfd", "splice", "orig_argv", "stdlib_module_names", "anext"),
    *("NoneType", "UnionType", "EllipsisType", "TypeAlias", "TypeGuard", "ParamSpec", "Concatenate", "aiter"),
    *("EncodingWarning", "get_annotations", "covariance", "correlation", "linear_regression", "is_typeddict"),
    *("F_GETPIPE_SZ", "F_SETPIPE_SZ", "hardlink_to"),
}
_KEYWORDS_SINCE_3_10 = {"strict": {"zip"}, "slots": {"dataclass"}, "kw_only": {"dataclass", "field"}}


def test_what_is_shipped_uses_nothing_that_is_newer_than_python_3_9() -> None:
    newer = []
    for name, content in own().items():
        for node in ast.walk(ast.parse(content)):
            used = getattr(node, "attr", None) or getattr(node, "id", None)
            if isinstance(node, ast.alias):
                used = node.name
            if used in _SINCE_3_10:
                newer.append(f"{name}: {used}")
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
                newer += [
                    f"{name}: {called}({keyword.arg}=)"
                    for keyword in node.keywords
                    if called in _KEYWORDS_SINCE_3_10.get(keyword.arg or "", set())
                ]
    assert newer == []


def test_annotations_stay_text_so_that_an_old_python_need_not_understand_them() -> None:
    without = [
        name
        for name, content in own().items()
        if b"|" in content and b"from __future__ import annotations" not in content
    ]
    assert without == []


def test_the_standard_library_is_used_as_an_old_python_has_it(tmp_path: Path) -> None:
    for name, content in own().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    oldest_that_mypy_knows = "3.10"
    argv = [
        *(
            sys.executable,
            "-m",
            "mypy",
            "--python-version",
            oldest_that_mypy_knows,
            "--cache-dir",
            os.devnull,
        ),
        *("--config-file", os.devnull, "--ignore-missing-imports", "-p", "labctl"),
    ]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the binding, cut down ---


def test_the_cut_binding_is_small_and_has_all_that_the_agent_uses(tmp_path: Path) -> None:
    import pynvml

    whole = Path(pynvml.__file__).stat().st_size
    (tmp_path / "pynvml.py").write_bytes(bundled()["pynvml.py"])
    names = sorted(prune.used(own().values()))
    assert len(names) > 30 and "nvmlDeviceSetPowerManagementLimit" in names
    assert (tmp_path / "pynvml.py").stat().st_size < whole / 8
    # Every name that any of its functions takes from the module or from Python must be there.
    program = (
        "import builtins, dis, inspect, json, pynvml, sys\n"
        "missing = [n for n in json.load(sys.stdin) if not hasattr(pynvml, n)]\n"
        "def codes(code):\n"
        "    yield code\n"
        "    for const in code.co_consts:\n"
        "        if inspect.iscode(const):\n"
        "            yield from codes(const)\n"
        "whole = compile(open(pynvml.__file__).read(), 'pynvml', 'exec')\n"
        "for code in codes(whole):\n"
        "    for step in dis.get_instructions(code):\n"
        "        if step.opname in ('LOAD_GLOBAL', 'LOAD_NAME'):\n"
        "            n = step.argval\n"
        "            if not hasattr(pynvml, n) and not hasattr(builtins, n):\n"
        "                missing.append(n)\n"
        "classes = {'__qualname__', '__module__', '__name__'}\n"
        "print(json.dumps(sorted(set(missing) - classes)))\n"
        "assert pynvml.NVMLError(18).__class__.__name__ == 'NVMLError_LibRmVersionMismatch'\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program],
        input=json.dumps(names),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={},
    )
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (0, "", [])


def test_the_cut_binding_keeps_its_licence() -> None:
    text = bundled()["pynvml.py"].decode()
    assert (
        text.startswith("#") and "Redistributions of source code must retain" in text.partition("import")[0]
    )


def test_a_binding_without_something_that_is_needed_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "used", lambda sources: frozenset({"nvmlInit", "nvmlDeviceFly"}))
    with pytest.raises(LabctlError, match="does not have nvmlDeviceFly"):
        zipapp_bytes.__wrapped__()


def test_what_is_kept_is_what_is_used_in_turn() -> None:
    binding = (
        b"# licence\n\nimport os\nimport sys\nfrom ctypes import *\n"
        b"NVML_ERROR_A = 1\nSIZE = 8\nOTHER = 9\n_cache = dict()\n"
        b"def wrap(f):\n    return f\n\n"
        b"@wrap\ndef used():\n    return _cache, deep()\n"
        b"def unused():\n    return os, OTHER\n"
        b"def deep():\n    return sys, SIZE\n"
        b"_cache['x'] = 1\n"
        b"used()\n"
    )
    cut = prune.pruned(binding, {"used"}).decode()
    for kept in ("# licence", "import sys", "from ctypes", "NVML_ERROR_A", "SIZE", "@wrap", "_cache['x']"):
        assert kept in cut
    assert "used()" in cut.splitlines()
    for left in ("import os", "OTHER", "unused"):
        assert left not in cut
    assert prune.pruned(cut.encode(), {"used"}).decode() == cut


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


def test_a_report_loads_little_since_every_module_is_paid_for_in_cpu_time(agent_pyz: Path) -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from labctl.agent import report\n"
        "print(' '.join(sorted(set(sys.modules) - before)))\n"
    )
    argv = ["/usr/bin/python3", "-IS", "-c", program, agent_pyz]
    loaded = set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    heavy = {
        "dataclasses",
        "inspect",
        "subprocess",
        "tempfile",
        "argparse",
        "logging",
        "pynvml",
        "ast",
        "shutil",
    }
    assert "labctl.agent.nvidia" in loaded
    assert not heavy & loaded
