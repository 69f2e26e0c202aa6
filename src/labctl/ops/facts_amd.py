"""What the choice of ROCm, Mesa and unified memory depends on beyond the machine itself, in one command.

Nothing here fails or waits: ``dpkg-query`` answers for packages that are not there, ``apt-cache pkgnames``
reads the lists that lie on the host. What a container sees of memory and modules is its machine's, which the
caller has to know.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from labctl.ops.command import text


@dataclass(frozen=True, slots=True)
class AmdInfo:
    """A host as the AMD deploys see it.

    ``old``: installed packages of ROCm in its old packaging. ``dkms``: AMD's own kernel module is installed.
    ``firmware``: version of the package with the cards' firmware, "" without one. ``mesa``: version of the
    installed Vulkan driver. ``offered``: packages of AMD's ROCm that the host's package sources hold
    already; ``own_source``: labctl's source of them is there. ``memory_mib`` is what the kernel has.
    ``ttm_pages`` is the limit that the loaded module has, None where it is not loaded.
    """

    old: tuple[str, ...] = ()
    dkms: bool = False
    firmware: str = ""
    mesa: str = ""
    backports: bool = False
    offered: frozenset[str] = frozenset()
    own_source: bool = False
    memory_mib: int | None = None
    ttm_pages: int | None = None


class Amd(FactBase[AmdInfo]):
    """What a host says of packages and memory, as an ``AmdInfo``."""

    @override
    @staticmethod
    def default() -> AmdInfo:
        """Return a host of which nothing is known."""
        return AmdInfo()

    @override
    def command(self, source: str) -> StringCommand:
        """Return the one command that asks; ``source`` is the path of labctl's own package source."""
        return StringCommand(
            "sh", "-c", QuoteString(text("amd-facts")), "labctl-amd-facts", QuoteString(source)
        )

    @override
    def process(self, output: list[str]) -> AmdInfo:
        """Read "key value" lines; an unknown key is left out, a repeated one adds to a list."""
        said: dict[str, list[str]] = {}
        for line in output:
            key, _, value = line.partition(" ")
            said.setdefault(key, []).append(value.strip())

        def one(key: str) -> str:
            return said.get(key, [""])[0]

        def number(key: str) -> int | None:
            return int(one(key)) if one(key).isdigit() else None

        memory_kib = number("memory_kib")
        return AmdInfo(
            old=tuple(sorted(set(said.get("old", [])))),
            dkms="dkms" in said,
            firmware=one("firmware"),
            mesa=one("mesa"),
            backports="backports" in said,
            offered=frozenset(said.get("offered", [])),
            own_source="own_source" in said,
            memory_mib=None if memory_kib is None else memory_kib >> 10,
            ttm_pages=number("ttm_pages"),
        )
