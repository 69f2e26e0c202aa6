"""Install packages and add package sources so that a run which was cut in the middle heals itself.

Packages: dpkg is asked about exactly the wanted names; nothing else happens when they are there. Otherwise
one command waits for other package managers for a bounded time, repairs an interrupted dpkg, refreshes the
lists only if they are missing, too old, or turn out to lack the package, and installs without recommended
extras, keeping configuration files that somebody changed. A lock still held at the end fails with apt's own
line about who holds it.

Sources: a deb822 file whose Signed-By names a key of its own, so that the key vouches for this source only.
The key's fingerprint is compared before anything is written. The lists of a new source are fetched through
the temporary file, before it takes its place: a source that does not answer or is not signed by that key
changes nothing, and the next run tries again.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyinfra.api.exceptions import OperationValueError
from pyinfra.context import host

from labctl.ops import openpgp
from labctl.ops.command import Commands, Script, operation, text
from labctl.ops.facts import look
from labctl.ops.facts_apt import Packages
from labctl.ops.files import Wanted, put_commands
from labctl.render import HEADER

LOCK_TIMEOUT_S = 60
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?")
_SOURCE = re.compile(r"[a-z0-9][a-z0-9-]*")
_URI = re.compile(r"(https?|file|copy|mirror(\+[a-z]+)?)://?\S+")
_WORD = re.compile(r"[A-Za-z0-9./~+_-]+")


@operation
def packages(
    names: tuple[str, ...] | list[str],
    *,
    present: bool = True,
    cache_max_age_s: int = 86400,
    lock_timeout_s: int = LOCK_TIMEOUT_S,
    timeout_s: int = 3600,
) -> Commands:
    """Have these packages installed, or with ``present=False`` removed (their configuration stays).

    A virtual name is satisfied by any installed package that provides it. ``cache_max_age_s`` is how old the
    package lists may be when something has to be installed.
    """
    wanted = [_checked(_PACKAGE, name, "package name") for name in dict.fromkeys(names)]
    if not wanted:
        return
    there = host.get_fact(Packages, names=wanted)
    done = there.is_present if present else there.is_absent
    if todo := [name for name in wanted if not done(name)]:
        verb = "install" if present else "remove"
        limits = (str(lock_timeout_s), str(cache_max_age_s))
        yield Script("apt", verb, "/var/lib", *limits, *todo, timeout_s=timeout_s)


def install_script(names: tuple[str, ...]) -> Script:
    """Return the command that installs packages, or brings those that are there to their newest version."""
    return Script("apt", "install", "/var/lib", str(LOCK_TIMEOUT_S), "86400", *names, timeout_s=3600)


@operation
def source(  # noqa: PLR0913
    source: str,
    uris: tuple[str, ...],
    suites: tuple[str, ...],
    components: tuple[str, ...],
    key: Path | str,
    fingerprint: str,
    types: tuple[str, ...] = ("deb",),
) -> Commands:
    """Have the package source in ``/etc/apt/sources.list.d/SOURCE.sources``, trusted by its own key only.

    ``key`` is an armored public key or the path of one; ``OperationValueError`` unless it holds exactly one
    key with this full ``fingerprint``. A suite that ends in "/" takes no components.
    """
    _checked(_SOURCE, source, "source name")
    armored = key.read_text() if isinstance(key, Path) else key
    _compare(source, armored, fingerprint)
    ring = Wanted(f"/etc/apt/keyrings/labctl-{source}.asc", armored.encode())
    fetch = ("sh", "-c", text("apt-update"), "labctl-apt-update", str(LOCK_TIMEOUT_S))
    listed = Wanted(
        f"/etc/apt/sources.list.d/{source}.sources",
        _deb822(types, uris, suites, components, ring.dest).encode(),
        validate=fetch,
    )
    ring_info, listed_info = look(ring.question(), listed.question())
    renewed = list(put_commands(ring, ring_info))
    added = list(put_commands(listed, listed_info))
    yield from renewed
    yield from added
    if renewed and not added:
        yield Script("apt-update", str(LOCK_TIMEOUT_S), listed.dest)


def _compare(source: str, armored: str, expected: str) -> None:
    try:
        found, wanted = openpgp.fingerprint(armored), openpgp.normalized(expected)
    except ValueError as error:
        raise OperationValueError(f"key of the package source {source}: {error}") from error
    if found != wanted:
        raise OperationValueError(
            f"the key of the package source {source} has the fingerprint {found}, expected {wanted}; "
            "nothing was written. Compare with what the publisher states before you change either."
        )


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise OperationValueError(f"{value!r} is no valid {what}")
    return value


def _deb822(
    types: tuple[str, ...],
    uris: tuple[str, ...],
    suites: tuple[str, ...],
    components: tuple[str, ...],
    ring: str,
) -> str:
    exact = [suite for suite in suites if suite.endswith("/")]
    if not uris or not suites or bool(components) == bool(exact) or len(exact) not in (0, len(suites)):
        raise OperationValueError("a source needs uris, suites, and components unless its suites end in '/'")
    fields = {
        "Types": [_checked(re.compile("deb|deb-src"), item, "source type") for item in types],
        "URIs": [_checked(_URI, item, "source URI") for item in uris],
        "Suites": [_checked(_WORD, item, "suite") for item in suites],
        "Components": [_checked(_WORD, item, "component") for item in components],
        "Signed-By": [ring],
    }
    return "\n".join([HEADER, *(f"{name}: {' '.join(items)}" for name, items in fields.items() if items), ""])
