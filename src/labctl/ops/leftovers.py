"""Files that labctl once wrote and that the inventory no longer asks for.

Only a file whose first line is labctl's header is ever removed, and only one that matches the pattern of its
subject; everything else in the same folder, drop-ins above all, belongs to somebody else. A unit is stopped
and disabled before its file goes, because systemd forgets how to stop a service whose unit is gone.
"""

from __future__ import annotations

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops import diff
from labctl.ops.command import Commands, Script, operation
from labctl.render import HEADER

_LIST = """\
for file in $1; do if [ -f "$file" ]; then awk -v header="$2" -v second="$3" '
  FNR == 1 && $0 != header { exit }
  FNR == 1 && second == "" { print FILENAME; exit }
  FNR == 2 { if (index($0, second) == 1) print FILENAME; exit }' "$file"; fi; done
"""


class OwnFiles(FactBase[tuple[str, ...]]):
    """Paths matching a shell pattern whose first line is labctl's header and whose second begins as given."""

    def command(self, pattern: str, second_line: str = "") -> StringCommand:
        """Return the command: one awk for each file that matches."""
        return StringCommand(
            "sh", "-c", QuoteString(_LIST), "labctl-own",
            QuoteString(pattern), QuoteString(HEADER), QuoteString(second_line),
        )  # fmt: skip

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return the files of a host that has none."""
        return ()

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Read one path a line."""
        return tuple(sorted(line for line in output if line))


@operation
def units(pattern: str, keep: tuple[str, ...], second_line: str = "") -> Commands:
    """Stop, disable and remove labctl's own units that match ``pattern`` and are not in ``keep``.

    Args:
        pattern: shell pattern of absolute paths of unit files.
        keep: paths that the inventory still asks for.
        second_line: how the second line of the files begins, where the header alone does not tell them apart.
    """
    found = host.get_fact(OwnFiles, pattern=pattern, second_line=second_line)
    gone = [path for path in found if path not in keep]
    if not gone:
        host.noop("every unit is in the inventory")
        return
    for path in gone:
        diff.show(path, b"", b"", notes=["is stopped, with all that it runs, and removed"])
    yield Script("remove-units", HEADER, *gone)


class Within(FactBase[tuple[str, ...]]):
    """Paths of the files that lie directly in a folder of labctl's own."""

    def command(self, folder: str) -> StringCommand:
        """Return the command that lists them."""
        arguments = ("-mindepth", "1", "-maxdepth", "1", "-type", "f", "2>/dev/null || true")
        return StringCommand("find", QuoteString(folder), *arguments)

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return the files of a folder that is not there."""
        return ()

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Read one path a line."""
        return tuple(sorted(line for line in output if line.startswith("/")))


@operation
def within(folder: str, keep: tuple[str, ...]) -> Commands:
    """Remove every file in ``folder`` that is not in ``keep``; meant for a folder of labctl's own."""
    gone = [path for path in host.get_fact(Within, folder=folder) if path not in keep]
    if not gone:
        host.noop("every file is in the inventory")
        return
    yield Script("remove-within", folder, *gone)


@operation
def files(pattern: str, keep: tuple[str, ...]) -> Commands:
    """Remove labctl's own files that match the shell ``pattern`` and are not in ``keep``."""
    found = host.get_fact(OwnFiles, pattern=pattern)
    gone = [path for path in found if path not in keep]
    if not gone:
        host.noop("every file is in the inventory")
        return
    for path in gone:
        yield Script("remove", path, HEADER, "")
