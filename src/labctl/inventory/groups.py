"""pyinfra's rules for what an inventory file means, without pyinfra.

Every module-level list or tuple whose items are names or ``(name, data)`` is a group; a tuple ``(items, data)``
carries data for the group; names that start with ``_`` are ignored; ``all`` holds every host, in the order of
first mention; the file's own name is a group too. ``group_data/NAME.py`` in the working directory and beside
the file adds data to a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Groups:
    """Members and data by group, and data by host."""

    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    host_data: dict[str, dict[str, Any]] = field(default_factory=dict)


def _is_group(name: str, value: Any) -> bool:
    if name.startswith("_"):
        return False
    if isinstance(value, tuple):
        value = value[0] if value else None
    return isinstance(value, (list, tuple)) and all(isinstance(item, (str, tuple)) for item in value)


def read_groups(namespace: Mapping[str, Any], file: Path) -> Groups:
    """Return the groups that pyinfra finds in the variables of an inventory file."""
    found = Groups()
    declared = {name: value for name, value in namespace.items() if _is_group(name, value)}
    order: list[str] = []
    for name, value in declared.items():
        items, data = value if isinstance(value, tuple) else (value, {})
        names = []
        for item in items:
            host = item[0] if isinstance(item, tuple) else item
            names.append(host)
            if isinstance(item, tuple):
                found.host_data.setdefault(host, {}).update(item[1])
            if host not in order:
                order.append(host)
        found.members[name] = tuple(names)
        found.data[name] = dict(data)
    found.members.setdefault("all", tuple(order))
    found.data.setdefault("all", {})
    found.members.setdefault(file.name.rsplit(".", 1)[0], found.members["all"])
    return found
