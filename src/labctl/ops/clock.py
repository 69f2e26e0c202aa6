"""Time zone, and who keeps a host's clock.

Only one program may keep the clock. Debian's packages for it conflict, so installing systemd-timesyncd would
silently remove the chrony that somebody chose; ``TimeKeeping`` tells who is there first. In a container the
clock belongs to the machine outside, where systemd-timesyncd refuses to start; that is no fault of the host.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops.command import Commands, Script, operation


@dataclass(frozen=True, slots=True)
class Keeper:
    """Who keeps the clock: another daemon than systemd-timesyncd, or the machine around a container."""

    daemon: str | None = None
    container: bool = False


class TimeKeeping(FactBase[Keeper]):
    """Who keeps the clock of a host."""

    def command(self) -> str:
        """Return the command; it starts no process."""
        return (
            "for d in chrony ntpsec ntp openntpd; do "
            "if [ -e /lib/systemd/system/$d.service ]; then echo daemon $d; break; fi; done; "
            "if [ -e /run/systemd/container ]; then echo container; fi"
        )

    @override
    @staticmethod
    def default() -> Keeper:
        """Return what holds on a plain machine."""
        return Keeper()

    @override
    def process(self, output: list[str]) -> Keeper:
        """Read the lines of the command."""
        words = [line.split() for line in output]
        daemons = [line[1] for line in words if line[0] == "daemon"]
        return Keeper(daemon=daemons[0] if daemons else None, container=["container"] in words)


class TimeZone(FactBase[str]):
    """The time zone of a host; UTC where none was ever set, as the C library reads it."""

    def command(self) -> str:
        """Return the command."""
        return "readlink /etc/localtime || true"

    @override
    @staticmethod
    def default() -> str:
        """Return the zone of a host that has none."""
        return "Etc/UTC"

    @override
    def process(self, output: list[str]) -> str:
        """Read the link's target."""
        target = "".join(output).strip()
        return target.rpartition("zoneinfo/")[2] or self.default()


@operation
def timezone(wanted: str) -> Commands:
    """Make ``wanted``, such as ``Europe/Berlin``, the time zone of the host."""
    if host.get_fact(TimeZone) == wanted:
        host.noop(f"the time zone is {wanted}")
        return
    yield Script("timezone", wanted)
