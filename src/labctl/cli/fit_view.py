"""Show fit planning: what each model takes of each device, what is loaded together, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from labctl.cli import printer
from labctl.domain.fit.measured import compared, error_percent
from labctl.domain.fit.terms import GIB

if TYPE_CHECKING:
    from labctl.domain.fit.terms import Share, Use
    from labctl.inventory.fitting import HostFit, Row, SetFit

_COLUMNS = ("model", "service", "on", "weights", "cache", "compute", "other", "total", "usable")
_WORDS = {True: "fits", False: "does not fit", None: "not known"}
_TONES = {True: "bold green", False: "bold red", None: "bold yellow"}


def show(fits: Sequence[HostFit]) -> None:
    """Print the verdict on every host and what it rests on; sizes in GiB."""
    if not fits:
        printer.out("no host serves a model of which labctl knows anything")
    for place, one in enumerate(fits):
        if place:
            printer.out()
        printer.out(printer.style(f"{one.loads.host.name}: {word(one)}", _TONES[one.fits]))
        rows = [cells for row in one.rows for cells in _cells(row)]
        if rows:
            printer.table(_COLUMNS, rows)
        for row in one.rows:
            for line in _sentences(row):
                printer.out(line)
        _show_sets(one.sets)
        for _, error in one.loads.refused:
            printer.out(f"set {error.name}: {error.reason}")
        for note in one.notes:
            printer.out(f"note: {note}")


def word(fit: HostFit) -> str:
    """Return the verdict on a host in a word or two."""
    return _WORDS[fit.fits] if fit.sets or fit.loads.refused else "not checked"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _usable(row: Row, share: Share) -> str:
    found = next((one for one in row.served.devices if one.name == share.device), None)
    return _gib(found.usable_bytes) if found is not None and found.memory_bytes else "?"


def _other(share: Share) -> int:
    return share.total - share.weights - share.cache - share.compute


def _cells(row: Row) -> Iterator[tuple[str, ...]]:
    if row.estimate is None:
        yield (row.served.model.id, row.served.service, *"?" * 7)
        return
    for share in row.estimate.shares:
        parts = (share.weights, share.cache, share.compute, _other(share), share.total)
        who = (row.served.model.id, row.served.service, share.device)
        yield (*who, *map(_gib, parts), _usable(row, share))


def _sentences(row: Row) -> Iterator[str]:
    name = row.served.model.id
    if row.why is not None:
        yield f"{name}: not known: {row.why.reason}" + (f" ({row.why.hint})" if row.why.hint else "")
    if row.estimate is None or row.use is None or row.plain is None:
        return
    speed = row.estimate.ceiling_tok_s
    most = f"at most {speed:.3g} tok/s by the memory's bandwidth" if speed else "speed unknown"
    load = f"loads in about {row.estimate.load_s:.3g} s" if row.estimate.load_s else "time to load unknown"
    use = row.use
    yield f"{name}: {most}; {load}; {_context(use)}, cache {use.cache_k}/{use.cache_v}"
    for note in row.estimate.notes:
        yield f"{name}: {note}"
    if row.measured is not None and (off := error_percent(row.plain, row.measured)) is not None:
        told, real = map(_gib, compared(row.plain, row.measured))
        yield f"{name}: estimated {told} GiB, measured {real} GiB ({off:+.1f} %)"


def _context(use: Use) -> str:
    """Return for how many users the context is, and whether they share it."""
    if use.sequences == 1:
        return f"context {use.context} for one user"
    shared = "shared by" if use.unified_cache else "for each of"
    return f"context {use.context} {shared} {use.sequences} users"


def _show_sets(sets: Sequence[SetFit]) -> None:
    if not sets:
        return
    rows = []
    for one in sets:
        state = {True: "fits", False: "over", None: "unknown"}[one.verdict.fits]
        rows.append((one.title, " + ".join(one.models), state, one.verdict.because))
    printer.table(("loaded together", "models", "verdict", "because"), rows)
    for hint in dict.fromkeys(one.verdict.hint for one in sets if one.verdict.hint):
        printer.out(f"hint: {hint}")


def document(fits: Iterable[HostFit]) -> dict[str, Any]:
    """Return the document of ``--json``."""
    hosts = [_host(one) for one in fits]
    return {"ok": all(host["fits"] is True for host in hosts), "hosts": hosts}


def _host(fit: HostFit) -> dict[str, Any]:
    return {
        "host": fit.loads.host.name,
        "fits": fit.fits,
        "models": [_row(row) for row in fit.rows],
        "sets": [
            {
                "title": one.title,
                "models": list(one.models),
                "fits": one.verdict.fits,
                "because": one.verdict.because,
                "hint": one.verdict.hint,
                "used_bytes": one.verdict.used,
            }
            for one in fit.sets
        ],
        "notes": [*fit.notes, *(f"set {error.name}: {error.reason}" for _, error in fit.loads.refused)],
    }


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": row.served.model.id,
        "service": row.served.service,
        "why_unknown": None if row.why is None else str(row.why),
        "devices": None,
    }
    if row.estimate is None or row.use is None or row.plain is None:
        return found
    usable = {device.name: device.usable_bytes for device in row.served.devices if device.memory_bytes}
    found["devices"] = [
        {
            "device": share.device,
            "weights_bytes": share.weights,
            "cache_bytes": share.cache,
            "compute_bytes": share.compute,
            "other_bytes": _other(share),
            "total_bytes": share.total,
            "usable_bytes": usable.get(share.device),
        }
        for share in row.estimate.shares
    ]
    found |= {
        "context": row.use.context,
        "users": row.use.sequences,
        "ceiling_tok_s": row.estimate.ceiling_tok_s,
        "load_s": row.estimate.load_s,
        "notes": list(row.estimate.notes),
        "estimated_bytes": sum(share.total for share in row.plain.shares),
        "measured_bytes": None if row.measured is None else compared(row.plain, row.measured)[1],
        "error_percent": None if row.measured is None else error_percent(row.plain, row.measured),
    }
    return found
