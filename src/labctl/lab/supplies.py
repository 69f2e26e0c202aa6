"""What a rack with graphics cards needs besides Debian: the fake library, stand-in programs, their packages.

All of it is made once and kept in the cache. It needs a C compiler, and for AMD cards FUSE; a machine without
them can still carry the rack, but then no host has any cards, and whoever boots the rack is told why.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.commands import attempt, run
from labctl.lab.fake import nvml
from labctl.lab.fake.boards import AmdBoard, require
from labctl.lab.fake.mount import lacking as lacking_fuse
from labctl.lab.fake.packages import Contents, repository, rows
from labctl.lab.spec import LabSpec

INSIDE = "/opt/lab/packages"
MIRROR_INSIDE = "/opt/lab/mirror"
MIRROR_TAG = "lab-mirror"
_PROGRAMS = ("persistenced", "rocminfo", "vulkaninfo")
_SMI_MAIN = "import sys\n\nfrom smi.main import main\n\nsys.exit(main(sys.argv))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ROOM = 48
_BLANK = "@" * _ROOM
_MODULE = f"""\
#define KEEP __attribute__((section(".modinfo"), used, aligned(1)))
static const char v[] KEEP = "version={_BLANK}";
static const char l[] KEEP = "license=NVIDIA";
static const char n[] KEEP = "name=nvidia";
"""


def lacks(spec: LabSpec) -> tuple[str, ...]:
    """Return why this machine can't imitate the cards of a rack; nothing if it can, or if there are none."""
    models = {model for host in spec.hosts for model in host.gpus}
    if not models:
        return ()
    compiler = "" if nvml.compiler() else "there is no C compiler: apt-get install gcc libc6-dev"
    fuse = lacking_fuse() if any(isinstance(require(model), AmdBoard) for model in models) else None
    return tuple(reason for reason in (compiler, fuse) if reason)


def packages_for(spec: LabSpec, progress: Callable[[str], None]) -> Path | None:
    """Return the folder of the stand-in packages; None, and the reason told, where no host gets cards."""
    if not any(host.gpus for host in spec.hosts):
        return None
    reasons = lacks(spec)
    if reasons:
        progress(f"no host gets its graphics cards, since {'; '.join(reasons)}")
        return None
    return stand_ins(spec.cache_dir)


def note(spec: LabSpec, packages: Path | None) -> None:
    """Write down for the sandbox where the packages are, or that there are none."""
    _noted(spec).write_text(str(packages or ""))


def packages_of(spec: LabSpec) -> Path | None:
    """Return what was noted: the folder of the stand-in packages, or None."""
    noted = _noted(spec)
    said = noted.read_text() if noted.exists() else ""
    return Path(said) if said else None


def mirror_folder(cache: Path) -> Path:
    """Return where the mirror of engines and models lies on this machine, whether it is there or not."""
    return cache / "mirror"


def mirror_shown(cache: Path) -> tuple[str, ...]:
    """Return the option by which nspawn shows the mirror to a host; none while there is no mirror."""
    place = mirror_folder(cache)
    return (f"--bind-ro={place}:{MIRROR_INSIDE}",) if place.is_dir() else ()


def mirror_disk(cache: Path, image: Path) -> None:
    """Write the mirror as it is now to a disk for a virtual machine; an empty one while there is none.

    A folder that is shared by 9p would stop answering when the machine has slept: Linux' driver does not
    take part in a suspend.
    """
    place = mirror_folder(cache)
    place.mkdir(parents=True, exist_ok=True)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    image.unlink(missing_ok=True)
    options = ("-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "root_owner=0:0")
    run("mke2fs", *options, "-L", MIRROR_TAG, "-d", str(place), str(image), f"{64 + size * 2 // 2**20}M")


def _noted(spec: LabSpec) -> Path:
    return spec.home / "stand-in-packages"


def stand_ins(cache: Path) -> Path:
    """Return the folder of the stand-in packages, built if its content is new.

    Raises:
        LabctlError: something can't be built, or a row is wrong.
    """
    packages = rows()
    programs = files("labctl.lab.fake").joinpath("programs")
    made = {name: programs.joinpath(f"{name}.py").read_bytes() for name in _PROGRAMS}
    made |= {"nvml": nvml.library(cache).read_bytes(), "nvidia-smi": nvidia_smi()}
    blank = _blank_module(cache)
    versions = {package.upstream for package in packages if "@nvidia-ko" in package.files.values()}
    modules = {version: _stamped(blank, version) for version in versions}
    return repository(cache, packages, Contents(made, modules))


def nvidia_smi() -> bytes:
    """Return the stand-in for nvidia-smi: one file, which Python runs; the same bytes each time."""
    modules = files("labctl.lab.fake").joinpath("programs/smi")
    texts = {f"smi/{one.name}": one.read_text() for one in modules.iterdir() if one.name.endswith(".py")}
    buffer = io.BytesIO(b"#!/usr/bin/python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in sorted((texts | {"__main__.py": _SMI_MAIN}).items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return buffer.getvalue()


def _blank_module(cache: Path) -> bytes:
    """Return a kernel module's file that modinfo can read, with room for a version."""
    built = cache / f"module-{hashlib.sha256(_MODULE.encode()).hexdigest()[:12]}.ko"
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = built.with_name(f".{os.getpid()}.ko")
        done = attempt(str(nvml.compiler()), "-c", "-o", str(partial), "-xc", "-", stdin=_MODULE)
        if done.returncode:
            raise LabctlError(f"the stand-in kernel module can't be built: {done.stderr.strip()[-300:]}")
        partial.rename(built)
    return built.read_bytes()


def _stamped(blank: bytes, version: str) -> bytes:
    if len(version) > _ROOM:
        raise LabctlError(f"{version!r} is too long for the version of a driver")
    return blank.replace(_BLANK.encode(), version.encode().ljust(_ROOM, b"\0"))
