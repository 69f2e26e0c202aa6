"""An apt repository of stand-in packages: what brings a (fake) driver to a host of the lab.

A host with cards has no driver until somebody installs one, by the same package names as on real machines.
The rows are data, in ``nvidia-packages.toml`` and ``amd-packages.toml`` beside this module:

    [[package]]
    name = "libnvidia-ml1"
    version = "580.95.05-1"
    suites = ["bookworm"]          # default: every suite of the lab
    architecture = "amd64"         # default: all
    section = "non-free/libs"      # default: misc
    depends = ["libc6"]            # likewise pre_depends, recommends, suggests, provides, conflicts, ...
    [package.files]                # path = text; or @key: a file that the lab makes (see Contents)
    "/usr/lib/{triplet}/libnvidia-ml.so.{upstream}" = "@nvml"
    [package.links]                # path = target
    "/usr/lib/{triplet}/libnvidia-ml.so.1" = "libnvidia-ml.so.{upstream}"
    [package.scripts]              # preinst, postinst, prerm, postrm; "#!/bin/sh" and "set -e" are put before
    postinst = "depmod"

``{upstream}`` is the version without epoch and Debian revision, ``{triplet}`` the machine's library folder,
``{kernel}`` its kernel's release; they are replaced in paths, texts and scripts. A text that starts with
``#!`` becomes executable; files below /etc are conffiles. One package may stand there in several versions. An
unknown field, an unknown @key or a path that is not absolute is an error, so that a slip does not become a
package that lacks a file.

The repository is built once for each content (rows, made files, this recipe), one flat folder for each suite,
by dpkg-deb with all dates at zero. It is not signed: hosts of a lab, and only they, are told to trust it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError
from labctl.lab.commands import attempt, run
from labctl.lab.spec import SUITES

ROWS = ("nvidia-packages.toml", "amd-packages.toml", "vendor-packages.toml")
VENDOR_IMAGE = "lab-vendor-image"
RECIPE = 1
_RELATIONS = (
    "pre_depends",
    "depends",
    "recommends",
    "suggests",
    "provides",
    "conflicts",
    "replaces",
    "breaks",
)
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
_FIELDS = {"name", "version", "suites", "architecture", "section", "files", "links", "scripts", *_RELATIONS}
_MAINTAINER = "labctl virtual rack <nobody@invalid>"


@dataclass(frozen=True, slots=True)
class Package:
    """One row: what a package is and holds. ``relations`` are its control fields about other packages."""

    name: str
    version: str
    suites: tuple[str, ...] = SUITES
    architecture: str = "all"
    section: str = "misc"
    relations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)

    @property
    def upstream(self) -> str:
        """Return the version without epoch and Debian revision."""
        return self.version.rpartition(":")[2].partition("-")[0]

    @property
    def file_name(self) -> str:
        """Return the name of the package's file, which holds its version without epoch, as apt has it."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.kind}.deb"

    @property
    def kind(self) -> str:
        """Return Debian's name of the architecture; a row for amd64 is for whatever this machine is."""
        return "all" if self.architecture == "all" else run("dpkg", "--print-architecture").strip()


def rows(texts: Iterable[tuple[str, str]] | None = None) -> tuple[Package, ...]:
    """Return the packages of ``texts`` (pairs of file name and TOML), by default those of the lab.

    Raises:
        LabctlError: a row is wrong; file and package are named.
    """
    if texts is None:
        here = files(__package__)
        texts = [(name, here.joinpath(name).read_text()) for name in ROWS]
    return tuple(package for name, text in texts for package in _parse(name, text))


def _parse(file: str, text: str) -> Iterator[Package]:
    try:
        found: list[dict[str, Any]] = tomllib.loads(text).get("package", [])
    except tomllib.TOMLDecodeError as error:
        raise LabctlError(f"{file} is no TOML: {error}") from None
    for row in found:
        yield _package(file, row)


def _package(file: str, row: dict[str, Any]) -> Package:
    who = f"{file}: package {row.get('name')!r}"
    unknown = sorted(row.keys() - _FIELDS) + sorted(row.get("scripts", {}).keys() - set(_SCRIPTS))
    if unknown or not row.get("name") or not row.get("version"):
        raise LabctlError(f"{who}: {', '.join(unknown) or 'name or version'} is wrong or missing")
    suites = tuple(row.get("suites", SUITES))
    if not set(suites) <= set(SUITES):
        raise LabctlError(f"{who}: no such suite as {', '.join(sorted(set(suites) - set(SUITES)))}")
    package = Package(
        name=row["name"],
        version=row["version"],
        suites=suites,
        architecture=row.get("architecture", "all"),
        section=row.get("section", "misc"),
        relations={name: tuple(row[name]) for name in _RELATIONS if row.get(name)},
    )
    for kind in ("files", "links", "scripts"):
        filled = {_fill(key, package): _fill(text, package) for key, text in row.get(kind, {}).items()}
        astray = [path for path in filled if kind != "scripts" and (not path.startswith("/") or ".." in path)]
        if astray:
            raise LabctlError(f"{who}: {astray[0]!r} is not an absolute path")
        getattr(package, kind).update(filled)
    return package


def triplet() -> str:
    """Return the name of the folder that holds this machine's libraries on Debian."""
    return f"{os.uname().machine}-linux-gnu"


def _fill(text: str, package: Package) -> str:
    known = {"{upstream}": package.upstream, "{triplet}": triplet(), "{kernel}": os.uname().release}
    for name, value in known.items():
        text = text.replace(name, value)
    return text


@dataclass(frozen=True, slots=True)
class Contents:
    """The files that rows name by @key; of @nvidia-ko there is one for each driver version."""

    made: dict[str, bytes]
    module: dict[str, bytes]

    def of(self, text: str, package: Package) -> bytes:
        """Return what a file of a package holds.

        Raises:
            LabctlError: there is no such @key.
        """
        if not text.startswith("@") or "\n" in text:
            return text.encode()
        if text == "@nvidia-ko" and package.upstream in self.module:
            return self.module[package.upstream]
        if text[1:] not in self.made:
            known = ", ".join(f"@{key}" for key in sorted({*self.made, "nvidia-ko"}))
            raise LabctlError(
                f"package {package.name!r}: nothing is called {text}", hint=f"there are {known}"
            )
        return self.made[text[1:]]


def repository(cache: Path, packages: tuple[Package, ...], contents: Contents) -> Path:
    """Return the folder that holds one flat repository for each suite; builds it if the content is new.

    Raises:
        LabctlError: dpkg-deb refused a package.
    """
    built = cache / f"packages-{_digest(packages, contents)}"
    if built.is_dir():
        return built
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".packages-", dir=cache))
    try:
        partial.chmod(0o755)
        indexes: dict[str, list[str]] = {suite: [] for suite in SUITES}
        for package in packages:
            deb = _build(package, contents, partial)
            for suite in package.suites:
                (partial / suite).mkdir(exist_ok=True)
                os.link(deb, partial / suite / deb.name)
                indexes[suite].append(_stanza(package, deb))
            deb.unlink()
        for suite, stanzas in indexes.items():
            (partial / suite).mkdir(exist_ok=True)
            (partial / suite / "Packages").write_text("\n".join(stanzas))
        partial.rename(built)
    except OSError:
        # Somebody else was faster; theirs is the same.
        if not built.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return built


def _digest(packages: tuple[Package, ...], contents: Contents) -> str:
    said = [
        [str(getattr(package, name)) for name in Package.__slots__]
        + [hashlib.sha256(contents.of(text, package)).hexdigest() for text in package.files.values()]
        for package in packages
    ]
    return hashlib.sha256(json.dumps([RECIPE, triplet(), os.uname().release, said]).encode()).hexdigest()[:12]


def _build(package: Package, contents: Contents, into: Path) -> Path:
    tree = into / "tree"
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    for path, text in package.files.items():
        where = tree / path[1:]
        where.parent.mkdir(parents=True, exist_ok=True)
        data = contents.of(text, package)
        where.write_bytes(data)
        where.chmod(0o755 if data.startswith(b"#!") else 0o644)
    for path, target in package.links.items():
        where = tree / path[1:]
        where.parent.mkdir(parents=True, exist_ok=True)
        where.symlink_to(target)
    (control / "control").write_text(_control(package))
    conffiles = [path for path in package.files if path.startswith("/etc/")]
    if conffiles:
        (control / "conffiles").write_text("".join(f"{path}\n" for path in conffiles))
    for name, script in package.scripts.items():
        text = script if script.startswith("#!") else f"#!/bin/sh\nset -e\n{script}\n"
        (control / name).write_text(text)
        (control / name).chmod(0o755)
    deb = into / package.file_name
    # No compression: they are small, and unpacked at once on the same machine.
    argv = ("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb))
    done = attempt("env", "SOURCE_DATE_EPOCH=0", *argv)
    if done.returncode:
        raise LabctlError(f"the stand-in package {package.name} can't be built: {done.stderr.strip()[-300:]}")
    shutil.rmtree(tree)
    return deb


def _control(package: Package) -> str:
    lines = [
        f"Package: {package.name}",
        f"Version: {package.version}",
        f"Architecture: {package.kind}",
        f"Maintainer: {_MAINTAINER}",
        f"Section: {package.section}",
        "Priority: optional",
        *(f"{name.replace('_', '-').title()}: {', '.join(said)}" for name, said in package.relations.items()),
        "Description: stand-in of labctl's virtual rack\n It is not the real thing.",
    ]
    return "\n".join(lines) + "\n"


def _stanza(package: Package, deb: Path) -> str:
    data = deb.read_bytes()
    tail = f"Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    return _control(package) + tail
