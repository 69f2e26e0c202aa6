"""Which of some packages are installed: one ``dpkg-query``, and a second one only for names that it lacks.

A name may be virtual (``mail-transport-agent``): dpkg then knows it at most as ``un``, and whether an
installed package provides it is in that package's Provides. Reading those of all packages costs a few
milliseconds more, so it is done only when a name is missing.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api.facts import FactBase
from typing_extensions import override

_QUERY = """\
f='${binary:Package} ${Package} ${db:Status-Abbrev}\\n'
o=$(LC_ALL=C dpkg-query -W -f="$f" -- NAMES 2>/dev/null) && m= || m=1
case $o in *' un'*) m=1;; esac
printf '%s\\n' "$o"
if [ -n "$m" ]; then
LC_ALL=C dpkg-query -W -f='${db:Status-Abbrev} provides ${Provides}\\n' 2>/dev/null | grep '^.i.* provides .'
fi
true"""


@dataclass(frozen=True, slots=True)
class Installed:
    """What dpkg says: ``status`` by name as dpkg abbreviates it (``ii``), and names that others provide."""

    status: dict[str, str]
    provided: frozenset[str] = frozenset()

    def is_present(self, name: str) -> bool:
        """Return whether the package, or one that provides it, is installed and configured."""
        return self.status.get(name, "")[1:] == "i" or name in self.provided

    def is_absent(self, name: str) -> bool:
        """Return whether nothing but configuration files is left of the package itself."""
        return self.status.get(name, "un")[1:2] in ("n", "c")


class Packages(FactBase[Installed]):
    """The state of the named packages only."""

    @override
    @staticmethod
    def default() -> Installed:
        """Return that nothing is installed."""
        return Installed({})

    def command(self, names: Sequence[str]) -> str:
        """Return the command for these names."""
        return _QUERY.replace("NAMES", shlex.join(names))

    @override
    def process(self, output: list[str]) -> Installed:
        """Read one line for each package, then those with what installed packages provide."""
        status: dict[str, str] = {}
        provided: set[str] = set()
        for line in output:
            first, _, rest = line.partition(" ")
            if rest.lstrip().startswith("provides "):
                items = rest.split("provides ")[1].split(",")
                provided.update(item.split("(")[0].split(":")[0].strip() for item in items)
                continue
            words = rest.split()
            if len(words) == 2:
                # The bare name of a package that is there for several architectures: installed wins.
                status[first] = words[1]
                if status.get(words[0], "")[1:] != "i":
                    status[words[0]] = words[1]
        return Installed(status, frozenset(provided))
