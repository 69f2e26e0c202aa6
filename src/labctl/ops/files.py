"""Put files, directories and links in place safely, and remove only what is ours.

A file is written whole: into a temporary file with an unpredictable name in the same directory, readable by
root alone, owner and mode set before the content arrives, checked against its sha256, validated where asked,
flushed to disk and renamed. Whoever reads sees the old file or the new one; a cut connection, a full disk or
a refused validation leaves the old one untouched. What a killed run left behind is swept by the next one.

Decisions. A symbolic link in the place of a file is replaced by the file (its target is left alone), and the
plan says so. A directory in the place of a file, and a file in the place of a directory, are refused when
applied. A missing parent directory is refused when applied, but planned without complaint, because an earlier
operation may make it. A directory reached through a symbolic link is accepted, as on a host whose admin moved
it to a larger disk. A directory in which others may write is refused: they could redirect the write.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api.exceptions import OperationValueError
from pyinfra.context import host

from labctl.ops import diff
from labctl.ops.command import Commands, Script, content_on_stdin, operation
from labctl.ops.facts import CONTENT, HASH, Look, PathInfo, look
from labctl.ops.facts_systemd import NOTES
from labctl.render import HEADER

_MODE = re.compile(r"0?[0-7]{3,4}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|socket|timer|path|mount|automount|swap|target|slice)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file as it shall be. ``restarts`` names a unit that must be restarted after a change."""

    dest: str
    content: bytes
    mode: str = "644"
    user: str = "root"
    group: str = "root"
    secret: bool = False
    validate: tuple[str, ...] = ()
    restarts: str = ""

    def __post_init__(self) -> None:
        """Refuse what can only be a mistake."""
        absolute(self.dest)
        octal(self.mode, self.dest)

    @property
    def sha256(self) -> str:
        """The content's sha256 in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def question(self) -> Look:
        """Return what to ask about the destination; a secret's content and hash never travel as arguments."""
        return Look(self.dest, HASH if self.secret or not diff.wanted() else self.sha256)

    def script(self) -> Script:
        """Return the command that writes it."""
        return Script(
            "put",
            self.dest,
            self.mode,
            f"{self.user}:{self.group}",
            restart_note(self.restarts),
            "quiet" if self.secret else "",
            *self.validate,
            stdin=content_on_stdin(self.content),
        )


def absolute(path: str) -> str:
    """Return the path; raise ``OperationValueError`` unless it is absolute and plain."""
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/") or not path.isprintable():
        raise OperationValueError(f"{path!r} must be an absolute path without '..' or a slash at its end")
    return path


def octal(mode: str, path: str) -> int:
    """Return the mode as a number; raise ``OperationValueError`` unless it is a string of octal digits."""
    if not isinstance(mode, str) or not _MODE.fullmatch(mode):
        raise OperationValueError(
            f"mode of {path} is {mode!r}, expected octal digits in quotes such as '644'"
        )
    return int(mode, 8)


def full_unit_name(unit: str) -> str:
    """Return the unit's name with its suffix, ``.service`` if it has none; raise ``OperationValueError``."""
    full = unit if _UNIT.fullmatch(unit) else f"{unit}.service"
    if not _UNIT.fullmatch(full):
        raise OperationValueError(f"{unit!r} is no valid unit name")
    return full


def restart_note(unit: str) -> str:
    """Return the path below /run that says ``unit`` must be restarted, or "" for no unit."""
    return f"{NOTES}/{full_unit_name(unit)}" if unit else ""


def attribute_notes(info: PathInfo, mode: str, user: str, group: str) -> list[str]:
    """Return what is wrong with mode and owner, as said to a person; empty when all is right."""
    notes = []
    if info.mode != (want := int(mode, 8)):
        notes.append(f"mode {info.mode:o} -> {want:o}")
    if not info.owned_by(user, group):
        notes.append(f"owner {info.user}:{info.group} -> {user}:{group}")
    return notes


def put_commands(wanted: Wanted, info: PathInfo) -> Iterator[Script]:
    """Yield the one command that brings the file about, given what is there; show the diff."""
    notes: list[str] = []
    if info.kind == "file":
        notes = attribute_notes(info, wanted.mode, wanted.user, wanted.group)
    owner = f"{wanted.user}:{wanted.group}"
    if info.kind == "file" and info.sha256 == wanted.sha256:
        if notes:
            diff.show(wanted.dest, wanted.content, wanted.content, secret=False, notes=notes)
            yield Script("attributes", "file", wanted.dest, wanted.mode, owner)
        return
    old: bytes | int | None = None
    if info.kind == "file":
        old = info.size if info.content is None else info.content
    elif info.kind == "link":
        notes.append(f"replaces the symbolic link to {info.target}")
    elif info.kind != "absent":
        notes.append(f"is a {info.kind}; applying this will be refused")
    diff.show(wanted.dest, old, wanted.content, secret=wanted.secret, notes=notes)
    yield wanted.script()


def _content(content: str | bytes | None, src: Path | None, dest: str) -> bytes:
    if (content is None) == (src is None):
        raise OperationValueError(f"{dest}: give either content or src")
    if src is not None:
        return Path(src).read_bytes()
    return content.encode() if isinstance(content, str) else content or b""


@operation
def put(  # noqa: PLR0913
    dest: str,
    content: str | bytes | None = None,
    *,
    src: Path | None = None,
    mode: str = "644",
    user: str = "root",
    group: str = "root",
    secret: bool = False,
    validate: tuple[str, ...] | None = None,
    restarts: str = "",
) -> Commands:
    """Make ``dest`` a regular file with exactly this content, mode and owner.

    ``validate`` is an argv that judges the new content: the temporary file's path is appended, and anything
    but exit 0 leaves the old file in place. ``secret`` keeps content and hash out of diffs, logs, names and
    every argv. ``restarts`` names a unit, which the next ``systemd.service`` or
    ``systemd.unit`` for it restarts should this run be cut before it did.
    """
    arguments = host.current_op_global_arguments
    if secret and not (arguments and arguments.get("name")):
        # An operation without a name is labelled with its arguments, content included.
        raise OperationValueError(f"{dest}: a secret file needs an operation name=")
    wanted = Wanted(dest, _content(content, src, dest), mode, user, group, secret, validate or (), restarts)
    (info,) = look(wanted.question())
    yield from put_commands(wanted, info)


@operation
def directory(path: str, mode: str = "755", user: str = "root", group: str = "root") -> Commands:
    """Make ``path`` a directory with this mode and owner; missing parents belong to root with mode 755."""
    absolute(path)
    octal(mode, path)
    (info,) = look(Look(path, follow=True))
    owner = f"{user}:{group}"
    if info.kind != "directory":
        yield Script("directory", path, mode, owner)
    elif notes := attribute_notes(info, mode, user, group):
        diff.show(path, b"", b"", notes=notes)
        yield Script("attributes", "directory", path, mode, owner)


@operation
def absent_own(path: str, *, restarts: str = "") -> Commands:
    """Remove ``path`` if it is a regular file with labctl's header in its first three lines.

    Anything else in that place belongs to someone else and is left alone without a word of change.
    """
    absolute(path)
    (info,) = look(Look(path, CONTENT))
    if info.kind != "file" or info.content is None:
        return
    if HEADER.encode() not in b"\n".join(info.content.split(b"\n", 3)[:3]):
        host.noop(f"{path} does not carry labctl's header and is left alone")
        return
    diff.show(path, info.content, None)
    yield Script("remove", path, HEADER, restart_note(restarts))


@operation
def link(path: str, target: str) -> Commands:
    """Make ``path`` a symbolic link to ``target``, replacing a file or another link but never a directory."""
    absolute(path)
    (info,) = look(Look(path))
    if info.kind == "link" and info.target == target:
        return
    was = {"absent": "nothing", "link": f"a link to {info.target}"}.get(info.kind, f"a {info.kind}")
    diff.show(path, b"", b"", notes=[f"symbolic link to {target} (was {was})"])
    yield Script("link", path, target)
