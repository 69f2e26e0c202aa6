"""What ``plan`` and ``apply`` say before they begin: what does not fit, and what was forced all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from labctl import content, wiring
from labctl.cli import printer
from labctl.domain.problem import LabctlError
from labctl.fitting import gate, store

if TYPE_CHECKING:
    from labctl.inventory import LoadedRack
    from labctl.provision.engine import Request

_FORCE = 'labctl apply --force "WORDS" goes on all the same, and keeps the words on the hosts'


def gated(request: Request, loaded: LoadedRack, *, force: str | None) -> Request:
    """Return the request, with what was forced in it; warn of what is not known.

    Raises:
        LabctlError: something does not fit, or (where something is to be changed) is not known to, and
            nobody forced it; or the words do not say why.
    """
    words = gate.checked_words(force)
    fits = gate.look(loaded, request.hosts, lambda: wiring.shapes(loaded), store.load(wiring.state_home()))
    refused = gate.refused(fits, execute=request.execute)
    if not request.execute:
        printer.show_problems(fits.unknown, severity="warning")
    if not refused:
        if words:
            printer.err("note: everything fits, so there is nothing to force")
        return request
    if not words:
        first, *others = refused
        hint = f"{first.hint}; {_FORCE}" if first.hint else _FORCE
        raise LabctlError([replace(first, hint=hint), *others])
    printer.show_problems(refused, severity="warning")
    who = wiring.who().partition(" pid ")[0]
    records = gate.records(refused, words, who, wiring.clock().now().isoformat(timespec="seconds"))
    note = content.deploys_dir() / "forced.py"
    # The whole of labctl's own deploys has it already.
    has_it = content.deploys_dir() / "site.py" in request.deploys or note in request.deploys
    deploys = request.deploys if has_it else (*request.deploys, note)
    return replace(request, forced=records, deploys=deploys)
