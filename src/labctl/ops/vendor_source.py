"""A vendor's package source whose key the host itself fetches, and is believed only by its fingerprint.

labctl ships no vendor's key: it knows the fingerprint that the vendor publishes. The host fetches the key
from the vendor and reads its fingerprint with the same code that compares keys elsewhere (one primary key, no
secret one); any other key is refused before anything is written. After that the source is put in place like
every other: its lists are fetched through the temporary file first, so a source that does not answer or is
signed by another key changes nothing.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.exceptions import OperationValueError

from labctl.ops import openpgp
from labctl.ops.apt import LOCK_TIMEOUT_S
from labctl.ops.command import Commands, Script, operation, text
from labctl.ops.facts import CONTENT, Look, PathInfo, look
from labctl.ops.files import Wanted, put_commands

_PRINT = "\nimport sys\nprint(fingerprint(open(sys.argv[1], encoding='ascii').read()))\n"


def ring(source: str) -> str:
    """Return where the key of a package source lies on the host."""
    return f"/etc/apt/keyrings/labctl-{source}.asc"


def path(source: str) -> str:
    """Return where a package source lies on the host."""
    return f"/etc/apt/sources.list.d/labctl-{source}.sources"


@operation
def source(source: str, content: str, key_url: str, fingerprint: str) -> Commands:
    """Have the package source ``content`` (deb822), whose Signed-By is ``ring(source)``.

    ``OperationValueError`` when ``fingerprint`` is no full fingerprint. The key is fetched again only when
    the one on the host is another.
    """
    try:
        expected = openpgp.normalized(fingerprint)
    except ValueError as error:
        raise OperationValueError(f"key of the package source {source}: {error}") from error
    fetch = ("sh", "-c", text("apt-update"), "labctl-apt-update", str(LOCK_TIMEOUT_S))
    listed = Wanted(path(source), content.encode(), validate=fetch)
    ring_info, listed_info = look(Look(ring(source), CONTENT), listed.question())
    if _fingerprint(ring_info) != expected:
        yield key_script(ring(source), key_url, expected)
    yield from put_commands(listed, listed_info)


def key_script(dest: str, url: str, fingerprint: str) -> Script:
    """Return the command that puts the key at ``url`` to ``dest`` if it has this full fingerprint."""
    reader = Path(openpgp.__file__).read_text() + _PRINT
    return Script("vendor-key", dest, url, fingerprint, reader, timeout_s=120)


def _fingerprint(info: PathInfo) -> str | None:
    if info.kind != "file" or info.content is None:
        return None
    try:
        return openpgp.fingerprint(info.content.decode("ascii"))
    except ValueError:
        return None
