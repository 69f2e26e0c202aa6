"""Decide which hosts a command is about: ``--limit HOST,GROUP`` against the names of a rack.

A name that fits nothing is an error and never silently nobody; an empty limit is an error and never silently
everybody, since that is what an unset variable in a script would make of it. ``*`` and ``?`` match as in a
shell, hosts and groups alike. The order is always the one of the rack file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from labctl.domain.problem import LabctlError, Problem


def select(
    hosts: Sequence[str], groups: Mapping[str, Iterable[str]], limit: Sequence[str]
) -> tuple[str, ...]:
    """Return the hosts that the limits name, or all of them when there is no limit.

    Raises:
        LabctlError: a limit is empty, or some of its names fit no host and no group; all of them are told.
    """
    if not limit:
        return tuple(hosts)
    chosen: set[str] = set()
    problems = []
    for name in wanted(limit):
        found = _matches(name, hosts, groups)
        chosen |= found
        if not found:
            problems.append(_unknown(name, hosts, groups))
    if problems:
        raise LabctlError(problems)
    return tuple(host for host in hosts if host in chosen)


def wanted(limit: Sequence[str]) -> tuple[str, ...]:
    """Return the single names of ``("a,b", "c")``.

    Raises:
        LabctlError: there is none.
    """
    names = tuple(part.strip() for item in limit for part in item.split(",") if part.strip())
    if not names:
        raise LabctlError("no host is named", hint="leave it out to mean every host")
    return names


def _matches(name: str, hosts: Sequence[str], groups: Mapping[str, Iterable[str]]) -> set[str]:
    found = {host for host in hosts if fnmatchcase(host, name)}
    # Roles are written always-on, and groups always_on, since pyinfra makes a variable of each.
    as_group = name.replace("-", "_")
    for group, members in groups.items():
        if fnmatchcase(group, name) or fnmatchcase(group, as_group):
            found.update(members)
    return found


def _unknown(name: str, hosts: Sequence[str], groups: Mapping[str, Iterable[str]]) -> Problem:
    if name in groups or name.replace("-", "_") in groups:
        return Problem(f"the group {name} has no hosts")
    close = get_close_matches(name, [*hosts, *groups], n=3)
    known = ", ".join(hosts[:20]) + (f" and {len(hosts) - 20} more" if len(hosts) > 20 else "")
    hint = f"did you mean {' or '.join(close)}?" if close else f"hosts: {known}; groups: {', '.join(groups)}"
    return Problem(f"no host or group fits {name!r}", hint=hint)
