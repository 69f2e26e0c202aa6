"""Running a rack file without pyinfra.

labctl and plain ``pyinfra`` read the same file, so groups and data follow pyinfra's rules to the letter (see
``groups``); only the engine is absent. Whatever the file does wrong ends in one ``LabctlError`` with a file and,
where one is known, a line: never in a traceback.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError, Problem
from labctl.inventory.groups import Groups, read_groups
from labctl.inventory.rack import Rack


@dataclass(frozen=True, slots=True)
class LoadedRack:
    """A valid rack, and what pyinfra would read from its file."""

    rack: Rack
    path: Path
    groups: dict[str, tuple[str, ...]]
    host_data: dict[str, dict[str, Any]]
    group_data: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the rack file, its keys and its ``known_hosts`` lie."""
        return self.path.parent

    @property
    def known_hosts(self) -> Path:
        """The file of pinned host keys; it may not exist yet."""
        return self.folder / "known_hosts"


def load_rack(path: Path | str) -> LoadedRack:
    """Run the rack file and return what it declares; raise ``LabctlError`` with everything that is wrong."""
    file = Path(path).absolute()
    namespace: dict[str, Any] = {"__file__": str(file)}
    exec(compile(file.read_text("utf-8"), str(file), "exec"), namespace)
    rack = namespace.get("rack")
    if not isinstance(rack, Rack):
        raise LabctlError([Problem("defines no `rack`", file=str(path))])
    found: Groups = read_groups(namespace, file)
    return LoadedRack(rack, file, found.members, found.host_data, found.data)
