"""Keep packages at their version until a person moves them, and let go of what labctl alone had held.

What is held is dpkg's own word ("h" before the status), so a hold that somebody removed is set again, and
one that somebody else set is no change. A note below /var/lib/labctl says which holds are labctl's: only
those are ever released, so a hold that was there before labctl came stays when labctl goes. The note is
written before anything is held, since a hold without a note would never be released.

Only packages that are installed are held. ``will`` names those that an earlier operation of the same run
installs: a plan says that they will be held, and applying asks dpkg again.
"""

from __future__ import annotations

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host, state
from typing_extensions import override

from labctl.ops.apt import LOCK_TIMEOUT_S
from labctl.ops.command import Commands, Script, operation
from labctl.ops.facts_apt import Installed, Packages

NOTES = "/var/lib/labctl/holds"


class Noted(FactBase[tuple[str, ...]]):
    """Names of the packages that labctl holds for an owner."""

    @override
    def command(self, owner: str) -> StringCommand:
        """Return the command that reads the note; it never fails."""
        script = 'cat -- "$1" 2>/dev/null || true'
        return StringCommand("sh", "-c", QuoteString(script), "labctl-holds", QuoteString(f"{NOTES}/{owner}"))

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return that none is held."""
        return ()

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Read one name a line."""
        return tuple(line.strip() for line in output if line.strip())


@operation
def held(owner: str, names: tuple[str, ...], *, will: tuple[str, ...] = ()) -> Commands:
    """Hold the packages among ``names`` that are installed, and release what was held for ``owner`` before.

    Args:
        owner: whose holds these are, such as "nvidia"; others' are left alone.
        names: what shall be held.
        will: names among them that an earlier operation of this run installs.
    """
    wanted = tuple(dict.fromkeys(names))
    noted: tuple[str, ...] = host.get_fact(Noted, owner=owner)
    there = _ask(wanted, noted)
    expected = () if state.is_executing else will
    hold = [
        name for name in wanted if _free(there, name) or (name in expected and not there.is_present(name))
    ]
    release = [name for name in noted if name not in wanted and _is_held(there, name)]
    stays = [name for name in noted if name in wanted and _is_held(there, name)]
    if hold or release or len(stays) != len(noted):
        words = ("--", *hold, "--", *release, "--", *stays)
        yield Script("holds", f"{NOTES}/{owner}", str(LOCK_TIMEOUT_S), *words)


@operation
def released(owner: str, keep: tuple[str, ...] = ()) -> Commands:
    """Release what was held for ``owner`` and is not in ``keep``, as before another driver comes."""
    noted: tuple[str, ...] = host.get_fact(Noted, owner=owner)
    gone = [name for name in noted if name not in keep]
    if not gone:
        return
    there = _ask((), noted)
    release = [name for name in gone if _is_held(there, name)]
    stays = [name for name in noted if name in keep]
    yield Script("holds", f"{NOTES}/{owner}", str(LOCK_TIMEOUT_S), "--", "--", *release, "--", *stays)


def _ask(wanted: tuple[str, ...], noted: tuple[str, ...]) -> Installed:
    names = tuple(dict.fromkeys((*wanted, *noted)))
    if not names:
        return Installed({})
    found: Installed = host.get_fact(Packages, names=names)
    return found


def _free(there: Installed, name: str) -> bool:
    status = there.status.get(name, "un")
    return status[1:2] == "i" and status[:1] != "h"


def _is_held(there: Installed, name: str) -> bool:
    return there.status.get(name, "un")[:1] == "h"
