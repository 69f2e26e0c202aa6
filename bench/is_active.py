"""The check at the end of the workload, as an operation for both pyinfra deploys.

A host on which the units run already costs one fact and counts as unchanged; on a clean host the command
runs, after the services were started, and fails if they are not.
"""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.facts.server import Command


@operation()
def is_active(units: list[str]) -> Generator[StringCommand, None, None]:
    """Make sure that systemd says "active" of each unit."""
    check = ["systemctl", "is-active", *units]
    if host.get_fact(Command, command=f"{' '.join(check)} || true").split() != ["active"] * len(units):
        yield StringCommand(*check)
