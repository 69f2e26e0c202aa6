"""Builds of engines side by side on a host: installed whole or not at all, switched by a link.

A build is made beside its place, below a hidden name, and renamed when it is complete and carries the mark
``.labctl-build``, whose first line is the digest of all that it came from. So a folder with the right mark is
the right build and is never looked at again; one without a mark is somebody's own and is never touched; and a
run that was cut leaves a hidden folder that the next one sweeps. Archives are checked against their sha256
before they are opened; a name or a link that leads out of the folder, or a device, refuses all of it.

Switching is one rename of the link ``current``; the build before it stays behind the link ``previous``. What
is neither, and that no service names and no process uses, is removed.

Whoever runs a build that changes is noted below /run as owed a restart, before the change, so that a run
which is cut between the two restarts it the next time, and exactly once.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyinfra import logger
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import OperationValueError
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.domain import flags as words
from labctl.domain.problem import LabctlError, Problem
from labctl.ops import diff, download
from labctl.ops.command import Commands, Script, content_on_stdin, operation, text
from labctl.ops.facts import Look, look
from labctl.ops.files import absolute, restart_note

DOWNLOADS = "/var/cache/labctl/engines"
HELPS = "/var/cache/labctl/help"
UV_CACHE = "/opt/labctl/uv/cache"
_INSTALL_S = 2 * 3600


@dataclass(frozen=True, slots=True)
class Download:
    """A file to fetch: its addresses in the order in which they are tried, and its sha256.

    ``pinned`` is where the inventory says that sha256, "" where nobody knows.
    """

    urls: tuple[str, ...]
    sha256: str
    pinned: str = ""

    @property
    def dest(self) -> str:
        """Return where it lies until it is unpacked."""
        name = PurePosixPath(self.urls[-1].partition("?")[0]).name
        return f"{DOWNLOADS}/{self.sha256[:16]}-{name}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a build goes, and what it must be: a program below it, for a processor, known by its digest.

    ``units`` run it, and are owed a restart when it changes. ``least_driver`` is the branch of NVIDIA's
    driver that it needs at least, 0 for none.
    """

    target: str
    program: str
    digest: str
    arch: str
    units: tuple[str, ...] = ()
    least_driver: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at a build's place: ``kind`` of path, digest of its mark ("" none); and the host's own part.

    ``driver`` is the version of NVIDIA's module that is loaded, "" for none.
    """

    arch: str = ""
    kind: str = "absent"
    digest: str = ""
    driver: str = ""


class Installed(FactBase[Seen]):
    """What is at a build's place."""

    @override
    @staticmethod
    def default() -> Seen:
        """Return that nothing is there."""
        return Seen()

    @override
    def command(self, target: str) -> StringCommand:
        """Return the command for one place."""
        script = QuoteString(text("engine-facts"))
        return StringCommand("sh", "-c", script, "labctl-engine-facts", QuoteString(target))

    @override
    def process(self, output: list[str]) -> Seen:
        """Read "key value" lines."""
        said = dict(line.split(" ", 1) for line in output if " " in line)
        words = (said.get("arch", ""), said.get("kind", "absent"), said.get("digest", ""))
        return Seen(*words, said.get("driver", ""))


def _missing(place: Place, source: str) -> bool:
    """Return whether a build must be installed, having said so; raise where it can't be."""
    absolute(place.target)
    seen: Seen = host.get_fact(Installed, target=place.target)
    if seen.digest == place.digest and seen.kind == "directory":
        return False
    if seen.arch and seen.arch != place.arch:
        raise OperationValueError(
            f"{place.target} is for {place.arch}, and this host is {seen.arch}: say so by `arch` of the host"
        )
    branch = seen.driver.partition(".")[0]
    if branch.isdigit() and int(branch) < place.least_driver:
        raise OperationValueError(
            f"{place.target} needs NVIDIA's driver {place.least_driver}, and {seen.driver} runs on this "
            "host: take a build for CUDA 12, or let labctl install a newer driver and reboot"
        )
    if seen.kind != "absent" and not seen.digest:
        raise OperationValueError(
            f"{place.target} was not made by labctl; it is left alone (move it, or choose another version)"
        )
    was = f"build {seen.digest[:12]}" if seen.digest else "not there"
    diff.show(place.target, b"", b"", notes=[f"{was} -> build {place.digest[:12]} from {source}"])
    return True


def _notes(units: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(restart_note, units))


@operation
def archive(place: Place, archives: tuple[Download, ...], *, timeout_s: int = _INSTALL_S) -> Commands:
    """Have a build that comes as an archive or as the program itself; further archives go beside it."""
    if not _missing(place, archives[0].urls[-1]):
        return
    for one in archives:
        yield from download.file._inner(
            url=one.urls, dest=one.dest, sha256=one.sha256, pinned=one.pinned, mode="600"
        )
    argv = (place.target, place.digest, place.program, " ".join(_notes(place.units)))
    yield Script("engine-unpack", *argv, *(one.dest for one in archives), timeout_s=timeout_s)
    yield Script("engine-forget", *(one.dest for one in archives))


@operation
def python_env(  # noqa: PLR0913
    place: Place,
    requirements: bytes,
    *,
    uv: str,
    python: str,
    options: tuple[str, ...] = (),
    source: str = "",
    timeout_s: int = _INSTALL_S,
) -> Commands:
    """Have a virtual environment of exactly these requirements, each of which must have its hash.

    Args:
        place: where it goes.
        requirements: the text of the requirements file.
        uv: the program that makes it, on the host.
        python: the host's Python to make it with.
        options: of uv, which say where packages come from.
        source: a folder on the host that is copied to ``src`` in it, "" for none.
        timeout_s: most seconds for all of it.
    """
    if not _missing(place, "its requirements"):
        return
    argv = (place.target, place.digest, place.program, " ".join(_notes(place.units)), uv, python, UV_CACHE)
    stdin = content_on_stdin(requirements)
    yield Script("engine-venv", *argv, source, *options, stdin=stdin, timeout_s=timeout_s)


@operation
def link(path: str, build: str, *, keep: str = "previous", units: tuple[str, ...] = ()) -> Commands:
    """Lead the link ``path`` to the build ``build`` beside it; the old one stays as the link ``keep``."""
    absolute(path)
    (info,) = look(Look(path))
    if info.kind == "link" and info.target == build:
        return
    was = info.target if info.kind == "link" else "nothing" if info.kind == "absent" else f"a {info.kind}"
    diff.show(path, b"", b"", notes=[f"{was} -> {build}"])
    yield Script("engine-link", path, build, keep, *_notes(units))


@operation
def proved(path: str, choice: str, *, units: tuple[str, ...] = ()) -> Commands:
    """Lead the link ``path`` to the backend that was proved on the host, as the file ``choice`` says.

    Where none is proved, Vulkan's build: it computes on the processor, too.
    """
    (info,) = look(Look(path))
    there: str = host.get_fact(Backend, path=choice)
    name = there if there in ("rocm", "vulkan") else "vulkan"
    if info.kind == "link" and info.target == name:
        return
    diff.show(path, b"", b"", notes=[f"{info.target or 'nothing'} -> {name}"])
    yield Script("engine-link", path, name, "", *_notes(units))


class Backend(FactBase[str]):
    """The backend that a host's ``backend.env`` names, "" for none."""

    @override
    @staticmethod
    def default() -> str:
        """Return none."""
        return ""

    @override
    def command(self, path: str) -> StringCommand:
        """Return the command that reads the file."""
        return StringCommand(
            "sed", "-n", QuoteString("s/^LABCTL_BACKEND=//p"), QuoteString(path), "2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> str:
        """Read the last word."""
        return output[-1].strip() if output else ""


class Old(FactBase[tuple[str, ...]]):
    """Builds of labctl's that nobody needs any more."""

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return none."""
        return ()

    @override
    def command(self, root: str, keep: tuple[str, ...]) -> StringCommand:
        """Return the command that looks below ``root``."""
        arguments = [QuoteString(word) for word in ("list", root, *keep)]
        return StringCommand("sh", "-c", QuoteString(text("engine-old")), "labctl-engine-old", *arguments)

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Read one folder a line."""
        return tuple(sorted(line for line in output if line.startswith("/")))


@operation
def old(root: str, keep: tuple[str, ...]) -> Commands:
    """Remove builds below ``root`` except ``keep``, the current ones, those before them and any in use."""
    found = host.get_fact(Old, root=root, keep=keep)
    if not found:
        return
    diff.show(root, b"", b"", notes=[f"removes {folder}" for folder in found])
    yield Script("engine-old", "remove", root, *keep)


@dataclass(frozen=True, slots=True)
class Help:
    """What a program says of its flags: ``text``, or ``trouble`` why not; both "" where it is not there."""

    text: str = ""
    trouble: str = ""


class Asked(FactBase[Help]):
    """What a program says of its flags when asked by ``words``; remembered on the host for each build."""

    @override
    @staticmethod
    def default() -> Help:
        """Return that it is not there."""
        return Help()

    @override
    def command(self, program: str, words: tuple[str, ...]) -> StringCommand:
        """Return the command that asks."""
        arguments = [QuoteString(word) for word in (HELPS, program, *words)]
        return StringCommand("sh", "-c", QuoteString(text("engine-help")), "labctl-engine-help", *arguments)

    @override
    def process(self, output: list[str]) -> Help:
        """Read the one line of the answer."""
        key, _, rest = (output[-1] if output else "absent").partition(" ")
        if key == "failed":
            return Help(trouble=rest)
        if key != "help":
            return Help()
        return Help(gzip.decompress(base64.b64decode(rest)).decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Use:
    """A service that runs a program with these arguments; ``place`` tells where the inventory says a flag."""

    service: str
    argv: tuple[str, ...]
    place: Callable[[str], tuple[str, int | None, str]]


@operation
def known_flags(program: str, asks: tuple[str, ...], uses: tuple[Use, ...]) -> Commands:
    """Refuse what a program would not take of its arguments, by its own ``--help``; changes nothing.

    A program that is not there yet is asked when it is: what comes before this operation installs it.

    Raises:
        LabctlError: with every flag that it does not know, and where the inventory says it.
    """
    said: Help = host.get_fact(Asked, program=program, words=asks)
    if said.trouble:
        logger.warning(
            f"{host.name}: flags of {program} are not checked, since it does not name them: {said.trouble}"
        )
    known = words.read(said.text)
    problems = [
        _problem(use, wrong, program)
        for use in uses
        for wrong in (words.check(use.argv, known) if known else ())
    ]
    if problems:
        raise LabctlError(problems)
    yield from ()


def _problem(use: Use, wrong: words.Wrong, program: str) -> Problem:
    file, line, field = use.place(wrong.flag)
    reason = f"service {use.service}: {wrong.reason} in {program}"
    return Problem(reason, wrong.hint, file, line, host.name, field)


def nowhere(_: str) -> tuple[str, int | None, str]:
    """Return that nobody knows where the inventory says a flag, as under plain pyinfra."""
    return "", None, ""
