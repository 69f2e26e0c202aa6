"""The name of a host: in the kernel, in ``/etc/hostname``, and resolvable by itself.

All three belong together: a name that the host cannot resolve makes every ``sudo`` wait for a DNS timeout.
The line ``127.0.1.1`` of ``/etc/hosts`` is Debian's place for it; a line that already names the host is left
as it is, whatever else it says. Neither file is labctl's, so neither gets a header.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops.command import Commands, Script, operation


@dataclass(frozen=True, slots=True)
class Names:
    """What a host calls itself: now, after a boot, and in the line ``127.0.1.1`` of its hosts file."""

    running: str = ""
    static: str = ""
    aliases: tuple[str, ...] = ()


class HostNames(FactBase[Names]):
    """The names by which a host knows itself."""

    def command(self) -> str:
        """Return the command: three files, two processes."""
        return (
            "echo running $(cat /proc/sys/kernel/hostname); "
            "echo static $(cat /etc/hostname 2>/dev/null); "
            "sed -n 's/^[[:space:]]*127\\.0\\.1\\.1[[:space:]]/alias /p' /etc/hosts 2>/dev/null || true"
        )

    @override
    @staticmethod
    def default() -> Names:
        """Return what is known of a host that says nothing."""
        return Names()

    @override
    def process(self, output: list[str]) -> Names:
        """Read the lines of the command."""
        found: dict[str, list[str]] = {}
        for line in output:
            key, *words = line.split("#", 1)[0].split()
            found.setdefault(key, []).extend(words)
        return Names(
            running=" ".join(found.get("running", [])),
            static=" ".join(found.get("static", [])),
            aliases=tuple(found.get("alias", [])),
        )


@operation
def hostname(wanted: str) -> Commands:
    """Make ``wanted`` the name of the host, now and after a boot, and let the host resolve it."""
    names: Names = host.get_fact(HostNames)
    if names.running == wanted == names.static and wanted in names.aliases:
        host.noop(f"the host is called {wanted}")
        return
    yield Script("hostname", wanted)
