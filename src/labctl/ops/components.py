"""Offer more of the distribution's own archive: contrib and non-free of Debian, multiverse of Ubuntu.

The archive, its suites and its key are those that the host uses already, mirrors included; only the missing
components are added, in a file of labctl's own. Nothing of the host's own files is changed, and when somebody
adds the components there, labctl's file goes, since apt complains about what it is told twice. The lists are
fetched before the file takes its place: an archive without such a component changes nothing.
"""

from __future__ import annotations

from pyinfra.api.exceptions import OperationValueError
from pyinfra.context import host

from labctl.ops.apt import LOCK_TIMEOUT_S
from labctl.ops.command import Commands, Script, operation, text
from labctl.ops.facts import Look, look
from labctl.ops.facts_sources import Archives, Entry, Sources
from labctl.ops.files import Wanted, put_commands
from labctl.render import HEADER

FILE = "/etc/apt/sources.list.d/labctl-components.sources"


@operation
def components(codename: str, names: tuple[str, ...]) -> Commands:
    """Have these components of the distribution's archive, wherever its main component comes from.

    Raises:
        OperationValueError: the host's apt knows no archive of this release, or cannot say.
    """
    known: Sources = host.get_fact(Archives)
    if known.trouble:
        raise OperationValueError(f"apt cannot say which archives it knows: {known.trouble}")
    entries = known.entries
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    main = [entry for entry in entries if entry.component == "main" and entry.suite in suites]
    if names and not any(entry.suite == codename for entry in main):
        raise OperationValueError(
            f"apt knows no archive of {codename}, so {', '.join(names)} cannot be added "
            "(see /etc/apt/sources.list.d)"
        )
    stanzas = [stanza for entry in main if (stanza := _stanza(entry, entries, names))]
    wanted = _wanted(stanzas)
    (info,) = look(wanted.question() if stanzas else Look(FILE))
    if stanzas:
        yield from put_commands(wanted, info)
    elif info.kind == "file":
        yield Script("remove", FILE, HEADER, "")


def _stanza(main: Entry, entries: tuple[Entry, ...], names: tuple[str, ...]) -> str:
    same = [entry for entry in entries if (entry.uri, entry.suite) == (main.uri, main.suite)]
    there = {entry.component for entry in same if entry.file != FILE}
    missing = [name for name in names if name not in there]
    if not missing:
        return ""
    fields = {
        "Types": "deb",
        "URIs": main.uri,
        "Suites": main.suite,
        "Components": " ".join(missing),
        "Signed-By": main.key,
    }
    return "\n".join(f"{name}: {value}" for name, value in fields.items() if value)


def _wanted(stanzas: list[str]) -> Wanted:
    content = f"{HEADER}\n" + "\n\n".join(stanzas) + "\n"
    fetch = ("sh", "-c", text("apt-update"), "labctl-apt-update", str(LOCK_TIMEOUT_S))
    return Wanted(FILE, content.encode(), validate=fetch)
