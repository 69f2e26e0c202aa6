"""Whether the kernel runs the firewall that lies on disk, and on which ports sshd listens.

A file and an active unit prove nothing: ``nft flush ruleset`` (the first line of Debian's own nftables.conf)
empties the kernel while both stay as they were. So the rules carry a chain named after their digest, and that
chain is looked for in the kernel. Loading goes through the unit's reload, one transaction: there is no moment
without rules and none with half of them.
"""

from __future__ import annotations

import re

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops.command import Commands, Script, operation

_PORT = re.compile(r"port\s*[\s=]\s*(\d+)", re.IGNORECASE)
_LISTEN = re.compile(r"listenaddress\s*[\s=]\s*(?:\[[^\]]*\]|[^\s:]+):(\d+)", re.IGNORECASE)


class LoadedChains(FactBase[frozenset[str]]):
    """Names of the chains of a table of family ``inet`` in the kernel; empty when there is no such table."""

    def command(self, table: str) -> StringCommand:
        """Return the command; it is quiet where nft is not installed yet."""
        return StringCommand("nft", "list", "table", "inet", QuoteString(table), "2>/dev/null", "||", "true")

    @override
    @staticmethod
    def default() -> frozenset[str]:
        """Return the chains of a table that is not there."""
        return frozenset()

    @override
    def process(self, output: list[str]) -> frozenset[str]:
        """Read nft's listing."""
        return frozenset(
            line.split()[1] for line in output if line.strip().startswith("chain ") and "{" in line
        )


class SshdPorts(FactBase[tuple[int, ...]]):
    """Ports on which the host's sshd is configured to listen; 22 where the configuration names none."""

    def command(self) -> str:
        """Return the command: only the lines in question leave the host."""
        return (
            "grep -Ehi '^[[:space:]]*(port|listenaddress)[[:space:]=]' "
            "/etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null || true"
        )

    @override
    @staticmethod
    def default() -> tuple[int, ...]:
        """Return sshd's own default."""
        return (22,)

    @override
    def process(self, output: list[str]) -> tuple[int, ...]:
        """Read the ports of ``Port`` and ``ListenAddress`` lines."""
        found = set()
        for line in output:
            if match := _PORT.match(line.strip()) or _LISTEN.match(line.strip()):
                found.add(int(match.group(1)))
        return tuple(sorted(found)) or self.default()


@operation
def loaded(unit: str, table: str, marker: str) -> Commands:
    """Let the kernel run the rules whose table holds the chain ``marker``.

    Args:
        unit: the unit that loads the rules when it starts or reloads.
        table: their table, of family ``inet``.
        marker: the chain that only the wanted version of the rules has.
    """
    if marker in host.get_fact(LoadedChains, table=table):
        host.noop(f"table {table} holds the rules of the inventory")
        return
    yield Script("firewall", unit, table, marker)
