"""Users and groups, and who may log in as them.

A user gets no password, and one that has an empty password loses it: people and labctl log in by key.
Groups are added, never taken away, because other software adds users to groups too. A user whose uid differs
from the inventory is refused: files on disks belong to the number, and changing it is up to a person.

``authorized_keys`` is shared with its user. labctl owns a block between two marker lines in it and leaves
every other line alone, with one exception: a line outside the block that grants one of labctl's keys goes,
because the options that the inventory gives that key would mean nothing beside it. The file is written with
the user's own rights, so a link that the user planted leads nowhere the user could not go; a file that is
reached through a link is refused, since keys that cannot be read must not be lost.
"""

from __future__ import annotations

import re

from pyinfra.api.exceptions import OperationValueError
from pyinfra.context import host

from labctl.ops import diff
from labctl.ops.command import Commands, Script, content_on_stdin, operation, text
from labctl.ops.facts_users import Group, User, UserInfo
from labctl.ops.files import absolute

BEGIN = "# Begin: keys granted by labctl from the rack inventory. Changes down to the end are overwritten."
END = "# End: keys granted by labctl."
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY = re.compile(
    r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp\d+|sk-(?:ssh|ecdsa)-\S+) (AAAA[A-Za-z0-9+/]+={0,2})"
)


@operation
def group(group: str, *, system: bool = False) -> Commands:
    """Have this group; it is never removed and its number is the host's choice."""
    _checked(group)
    if not host.get_fact(Group, group=group):
        yield Script("group", group, *(["-r"] if system else []))


@operation
def user(  # noqa: PLR0913
    user: str,
    *,
    uid: int | None = None,
    system: bool = False,
    home: str | None = None,
    shell: str = "/bin/bash",
    groups: tuple[str, ...] = (),
    authorized_keys: tuple[str, ...] | None = None,
    create_home: bool = True,
) -> Commands:
    """Have this user in at least these groups, with these keys granted in its authorized_keys.

    ``authorized_keys=None`` leaves that file alone, ``()`` takes back what labctl granted. An existing user
    keeps its home directory's content; a missing home directory is made from /etc/skel.
    """
    _checked(user)
    for extra in groups:
        _checked(extra)
    there = host.get_fact(User, user=user, keys=authorized_keys is not None)
    if there.exists and uid is not None and there.uid != uid:
        raise OperationValueError(
            f"the user {user} has the uid {there.uid}, the inventory wants {uid}; change either by hand"
        )
    if there.exists:
        options = _modifications(there, home, shell, groups)
    else:
        options = _creation(uid, home, shell, groups, system=system)
    action = "create" if not there.exists else "modify" if options else "keep"
    make_home = "make" if create_home and not there.has_home else ""
    keys = None if authorized_keys is None else _changed_keys(user, there, authorized_keys)
    if action == "keep" and not make_home and keys is None:
        return
    script = text("keys") if keys is not None else ""
    yield Script(
        *("user", user, action, make_home, "" if keys is None else "write", script, *options),
        stdin="" if keys is None else content_on_stdin(keys),
    )


@operation
def program(runs_as: str, *, home: str = "/nonexistent", groups: tuple[str, ...] = ()) -> Commands:
    """Have this user for a program to run as: it has no home of its own, and nobody logs in as it."""
    yield from user._inner(
        runs_as, system=True, home=home, groups=groups, create_home=False, shell="/usr/sbin/nologin"
    )


def _checked(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise OperationValueError(f"{name!r} is no valid user or group name")


def _creation(
    uid: int | None, home: str | None, shell: str, groups: tuple[str, ...], *, system: bool
) -> list[str]:
    options = ["-M", "-s", shell]
    if system:
        options.append("-r")
    if uid is not None:
        options += ["-u", str(uid)]
    if home is not None:
        options += ["-d", absolute(home)]
    if groups:
        options += ["-G", ",".join(groups)]
    return options


def _modifications(there: UserInfo, home: str | None, shell: str, groups: tuple[str, ...]) -> list[str]:
    options = []
    if there.shell != shell:
        options += ["-s", shell]
    if home is not None and there.home != home:
        options += ["-d", absolute(home)]
    if missing := [name for name in groups if name not in there.groups]:
        options += ["-a", "-G", ",".join(missing)]
    if there.open:
        options.append("-L")
    return options


def _changed_keys(user: str, there: UserInfo, granted: tuple[str, ...]) -> bytes | None:
    """Return the new content of authorized_keys after showing it, or None when it is as it shall be."""
    seen = there.keys
    if seen.kind not in ("file", "absent") or (seen.kind == "file" and seen.content is None):
        what = "too large or unreadable" if seen.kind == "file" else f"reached through a {seen.kind}"
        raise OperationValueError(f"authorized_keys of {user} is {what}; put it right by hand")
    old = seen.content
    new = with_keys((old or b"").decode("utf-8", "surrogateescape"), granted)
    encoded = new.encode("utf-8", "surrogateescape")
    # sshd ignores a file that others may write or that belongs to someone else.
    usable = seen.kind == "absent" or (seen.uid in (there.uid, 0) and not seen.mode & 0o022)
    if encoded == (old or b"") and usable:
        return None
    notes = [] if usable else ["rewritten for its owner and mode"]
    diff.show(f"{there.home or '/home/' + user}/.ssh/authorized_keys", old, encoded, notes=notes)
    return encoded


def with_keys(old: str, granted: tuple[str, ...]) -> str:
    """Return ``old`` with exactly ``granted`` in labctl's block and no line outside it granting those keys.

    Raises ``OperationValueError`` when one of ``granted`` is not one line with a public key.
    """
    blobs = set()
    for line in granted:
        found = _KEY.search(line)
        if not found or not line.isprintable() or line.startswith("#"):
            raise OperationValueError(f"{line[:60]!r} is no line for authorized_keys")
        blobs.add(found[1])
    kept, inside = [], False
    for line in old.splitlines():
        if line in (BEGIN, END):
            inside = line == BEGIN
        elif not inside and not ((found := _KEY.search(line)) and found[1] in blobs and line[0] != "#"):
            kept.append(line)
    block = [BEGIN, *granted, END] if granted else []
    lines = [*kept, *block]
    return "".join(f"{line}\n" for line in lines)
