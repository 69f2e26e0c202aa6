"""labctl itself on the controller's host: a virtual environment beside the old one, whole or not at all.

As with builds of engines, the folder carries the digest of all that it came from, is made under a hidden name
and renamed when labctl starts in it. Packages come by pip, each with its hash, and only as wheels: nothing
that a package brings is run while it is installed.
"""

from __future__ import annotations

from pyinfra.api.exceptions import OperationValueError
from pyinfra.context import host

from labctl.ops import diff
from labctl.ops.command import Commands, Script, content_on_stdin, operation
from labctl.ops.engines import Installed, Seen
from labctl.ops.files import absolute, restart_note

_INSTALL_S = 1800


@operation
def environment(
    target: str, digest: str, bundle: bytes, *, python: str, options: tuple[str, ...], unit: str
) -> Commands:
    """Have labctl's environment at ``target``.

    Args:
        target: its folder, which belongs to that digest alone.
        digest: of everything that goes into it.
        bundle: labctl's own files and its requirements, as ``render.controller.bundle`` packs them.
        python: the host's Python to make it with.
        options: of pip, which say where packages come from.
        unit: what runs it, and is owed a restart.
    """
    absolute(target)
    seen: Seen = host.get_fact(Installed, target=target)
    if seen.digest == digest and seen.kind == "directory":
        return
    if seen.kind != "absent" and not seen.digest:
        raise OperationValueError(f"{target} was not made by labctl; it is left alone (move it away)")
    diff.show(target, b"", b"", notes=[f"not there -> build {digest[:12]}"])
    stdin = content_on_stdin(bundle)
    yield Script(
        "labctl-venv", target, digest, restart_note(unit), python, *options, stdin=stdin, timeout_s=_INSTALL_S
    )
