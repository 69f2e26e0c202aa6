"""What we ship is what we built: two builds are equal, and the wheel alone is a complete labctl."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from labctl import __version__

ROOT = Path(__file__).resolve().parent.parent
WHAT_A_BUILD_READS = (
    "requirements.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "src",
    "deploys",
    "templates",
    "inventory/rack.py",
)
A_MOMENT = "1767225600"


def _build(place: Path) -> Path:
    """Build the wheel from a copy of the sources in ``place``, and return its path."""
    source = place / "source"
    for name in WHAT_A_BUILD_READS:
        origin, copy = ROOT / name, source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / "__pycache__").mkdir()
            (copy / "__pycache__" / "left.cpython-311.pyc").write_bytes(os.urandom(8))
        else:
            shutil.copyfile(origin, copy)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist")],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": A_MOMENT},
        check=True,
        capture_output=True,
    )
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment whose ``labctl`` is the wheel's, with the dependencies from here."""
    site = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return {**os.environ, "PYTHONPATH": str(site), "HOME": str(site), "LABCTL_STATE": str(site / "state")}


def _labctl(env: dict[str, str], cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from labctl.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *argv],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_two_builds_of_the_same_source_are_equal(wheel: Path, tmp_path: Path) -> None:
    again = _build(tmp_path)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


def test_the_wheel_holds_the_deploys_templates_pins_and_example_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("labctl/_content/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("labctl/_content/")
        }
    expected = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for folder in ("deploys", "templates")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in ("inventory/rack.py", "requirements.lock"):
        expected[name] = (ROOT / name).read_bytes()
    assert packed == expected


def test_the_wheel_holds_no_key_and_no_known_hosts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert [
            name
            for name in archive.namelist()
            if "known_hosts" in Path(name).name and not name.endswith(".py")
        ] == []
        assert [name for name in archive.namelist() if "/keys/" in name] == []


def test_the_wheel_carries_licence_and_entry_points(wheel: Path) -> None:
    info = f"labctl-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert b"Apache License" in archive.read(f"{info}/licenses/LICENSE")
        points = archive.read(f"{info}/entry_points.txt").decode()
    assert "labctl = labctl.cli.main:main" in points
    assert "labctl-agent = labctl.agent.main:main" in points


def test_the_wheel_alone_tells_its_version(installed: dict[str, str], tmp_path: Path) -> None:
    done = _labctl(installed, tmp_path, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"labctl {__version__}"), done.stderr


def test_the_wheel_alone_starts_a_rack_that_is_valid(installed: dict[str, str], tmp_path: Path) -> None:
    started = _labctl(installed, tmp_path, "init", "my-rack")
    assert started.returncode == 0, started.stderr
    checked = _labctl(installed, tmp_path / "my-rack", "validate")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_content_is_found_from_wheel_and_checkout_alike(
    installed: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "from labctl import content\n"
        "for path in (content.deploys_dir() / 'site.py', content.templates_dir(), content.example_rack()):\n"
        "    assert path.exists(), path\n"
        "    print(path)\n"
    )
    places = {}
    for name, path in (("wheel", installed["PYTHONPATH"]), ("checkout", str(ROOT / "src"))):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        places[name] = done.stdout.splitlines()
    content = Path(installed["PYTHONPATH"]) / "labctl" / "_content"
    relative = ["deploys/site.py", "templates", "inventory/rack.py"]
    assert places == {
        "wheel": [str(content / r) for r in relative],
        "checkout": [str(ROOT / r) for r in relative],
    }


def test_the_wheel_alone_makes_a_store(installed: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from labctl import adapters, wiring\n"
        "assert adapters.__file__.startswith(sys.argv[2]), adapters.__file__\n"
        "store = wiring.store(sys.argv[1], create=True)\n"
        "store.enlist(['box'], now=0.0)\n"
        "print(*store.known(now=0.0).hosts)\n"
        "store.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "store.db"), installed["PYTHONPATH"]],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "box\n"), done.stderr
