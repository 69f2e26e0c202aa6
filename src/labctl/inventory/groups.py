"""pyinfra's rules for what an inventory file means, without pyinfra.

Every module-level list or tuple whose items are names or ``(name, data)`` is a group; a tuple ``(items,
data)`` carries data for the group; names that start with ``_`` are ignored; ``all`` holds every host, in
the order of first mention; the file's own name is a group too. ``group_data/NAME.py`` in the working
directory and beside the file adds data to a group. Where pyinfra would stumble (a tuple that is not
``(items, data)``) or take something for hosts that is none (a list of package names), this says so:
``misread`` names the variable and the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Data = dict[str, Any]


@dataclass(slots=True)
class Groups:
    """Members and data by group, and data by host, in pyinfra's order."""

    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    data: dict[str, Data] = field(default_factory=dict)
    host_data: dict[str, Data] = field(default_factory=dict)


def _items(value: Any) -> tuple[Collection[Any], Data] | None:
    """Return the items and the data of a group; None when pyinfra could not make a group of the value."""
    items: Any = value
    data: Data = {}
    if isinstance(value, tuple):
        if len(value) != 2 or not isinstance(value[1], dict):
            return None
        items, data = value
    return (items, data) if isinstance(items, (list, tuple)) else None


def _is_host(item: Any) -> bool:
    if isinstance(item, tuple):
        return len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], dict)
    return isinstance(item, str)


def _candidates(namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in namespace.items():
        if not name.startswith("_") and isinstance(value, (list, tuple)):
            yield name, value


def misread(namespace: Mapping[str, Any], hosts: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield variables that pyinfra would misread as groups, each with the reason, given the rack's hosts."""
    for name, value in _candidates(namespace):
        found = _items(value)
        if found is None:
            yield name, "pyinfra reads it as a group, and it is no list of hosts"
            continue
        if isinstance(value, list) and not all(isinstance(item, (str, tuple)) for item in value):
            continue  # pyinfra leaves such a list alone, as it does everything that cannot be hosts
        strange = [item for item in found[0] if not _is_host(item)]
        unknown = [item[0] if isinstance(item, tuple) else item for item in found[0] if _is_host(item)]
        unknown = [host for host in unknown if host not in hosts]
        if strange:
            yield name, "pyinfra reads it as a group, and not all of its items are host names"
        elif unknown:
            yield name, f"pyinfra reads it as a group, and {unknown[0][:60]!r} is no host of the rack"


def read_groups(namespace: Mapping[str, Any], file: Path, extra: Mapping[str, Data]) -> Groups:
    """Return the groups that pyinfra finds in the variables of an inventory file.

    ``extra`` is the data from ``group_data`` by group. The variables must have passed ``misread``.
    """
    declared: dict[str, tuple[Collection[Any], Data]] = {}
    for name, value in _candidates(namespace):
        found = _items(value)
        if found is not None and all(_is_host(item) for item in found[0]):
            declared[name] = found
    every, every_data = declared.pop("all", (None, {}))
    if every is None:
        every = dict.fromkeys(_name(item) for items, _ in declared.values() for item in items)
    declared.setdefault(file.name.rsplit(".", 1)[0], (every, {}))
    declared["all"] = (every, every_data)
    groups = Groups()
    for name, (items, data) in declared.items():
        groups.members[name] = tuple(dict.fromkeys(_name(item) for item in items))
        groups.data[name] = {**data, **extra.get(name, {})}
        for item in items:
            own = groups.host_data.setdefault(_name(item), {})
            if isinstance(item, tuple):
                own.update(item[1])
    for name in extra:
        groups.members.setdefault(name, ())
        groups.data.setdefault(name, dict(extra[name]))
    return groups


def _name(item: Any) -> str:
    name: str = item[0] if isinstance(item, tuple) else item
    return name
