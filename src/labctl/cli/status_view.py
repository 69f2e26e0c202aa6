"""Show a look at the rack: a table in a pipe, and for people a row for each host with its reasons below.

Sentences (why a host is as it is, what was found) are longer than a column can be, so in a terminal they
stand under their host's row, wrapped to its width; eighty columns are enough. In a pipe each host is one
line, always with the same columns.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labctl.cli import printer, spans, status_rows
from labctl.cli.asking import number, objects, text
from labctl.cli.findings import Kept
from labctl.cli.modes import Modes
from labctl.cli.status_rows import Card, HostStatus
from labctl.domain.health.results import Finding

if TYPE_CHECKING:
    from rich.console import RenderableType

    from labctl.inventory import LoadedRack

Span = tuple[str, str]
"""A piece of a line and how it looks (a colour, ``bold``, ``dim``, or nothing)."""

_TONES = {
    "ready": "green",
    "ok": "green",
    "asleep": "blue",
    "draining": "green",
    "suspending": "blue",
    "waking": "yellow",
    "verifying": "yellow",
    "unknown": "yellow",
    "interrupted": "yellow",
    "failed": "red bold",
    "wrong": "red bold",
    "unreachable": "red",
}
_LEVELS = {"CRIT": "red bold", "WARN": "yellow", "UNKNOWN": "magenta"}
_MAKERS = ("NVIDIA ", "AMD ", "GeForce ", "Radeon ")
_COLUMNS = ("host", "state", "since", "gpus", "watts", "req", "models")
_NARROWEST = 8
_BAD = frozenset({"wrong", "failed", "unreachable", "interrupted"})


@dataclass(frozen=True, slots=True)
class Look:
    """All that is known of the rack at the wall time ``at``, in seconds."""

    loaded: LoadedRack
    told: Modes
    hosts: Sequence[HostStatus]
    kept: Kept
    at: float


def show(look: Look) -> None:
    """Print a look."""
    if printer.interactive():
        for line in lines(look, printer.console().width):
            printer.out("".join(printer.style(words, tone) if tone else words for words, tone in line))
        return
    for said, _ in heads(look):
        printer.out(said)
    columns = (
        *("host", "status", "mode", "since", "gpus", "watts", "models", "requests", "proof", "holds"),
        *("findings", "services", "notes"),
    )
    printer.table(columns, [_cells(one, look) for one in look.hosts])
    for one in look.hosts:
        if one.failure is not None and one.failure.hint:
            printer.out(f"{one.host}: {printer.safe(one.failure.hint)}")


def heads(look: Look) -> Iterator[Span]:
    """Yield what is said above all hosts."""
    if look.told.paused:
        yield f"the rack is paused: {look.told.paused}; labctl resume ends it", "yellow"
    if look.kept.away:
        yield f"what labctl health found is not known: {text(look.kept.away)}", "yellow"
    if (stale := look.kept.stale_s(look.at)) is not None:
        yield f"labctl health looked {spans.shown(stale)} ago; does its timer run?", "yellow"
    for one in look.kept.of("") or ():
        yield _finding(one), _LEVELS[one.result.level.name]


def lines(look: Look, width: int) -> Iterator[tuple[Span, ...]]:
    """Yield a look as lines of at most ``width`` characters, for a person."""
    for said, tone in heads(look):
        yield from (((part, tone),) for part in textwrap.wrap(said, width))
    rows = [_row(one, look) for one in look.hosts]
    widths = [max(len(head), *(len(row[i]) for row in rows), 0) for i, head in enumerate(_COLUMNS)]
    rest = width - sum(widths[:-1]) - 2 * (len(widths) - 1)
    # The names of cards and models are the only long cells; both are cut rather than the line broken.
    if rest < min(widths[-1], _NARROWEST):
        widths[3] = max(4, widths[3] - (_NARROWEST - rest))
        rest = max(_NARROWEST, width - sum(widths[:-1]) - 2 * (len(widths) - 1))
    widths[-1] = min(widths[-1], rest)
    yield tuple((_cut(head.upper(), widths[i]) + "  ", "bold") for i, head in enumerate(_COLUMNS))
    for one, row in zip(look.hosts, rows, strict=True):
        tones = ("bold", _TONES.get(row[1], ""), "", "", "", "", "")
        yield tuple(
            (_cut(cell, widths[i]) + ("  " if i < len(row) - 1 else ""), tones[i])
            for i, cell in enumerate(row)
        )
        for said, tone in _sentences(one, look):
            wrapped = textwrap.wrap(said, width, initial_indent="  ", subsequent_indent="    ")
            yield from (((part, tone),) for part in wrapped)


def drawn(look: Look, width: int) -> RenderableType:
    """Return a look for a display that moves."""
    from rich.text import Text

    whole = Text(no_wrap=True, overflow="ellipsis")
    for line in lines(look, width):
        for words, tone in line:
            whole.append(words, style=tone or None)
        whole.append("\n")
    return whole


def _cut(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"


def state(one: HostStatus, look: Look) -> str:
    """Return a host's state in a word: what is wrong goes before its mode."""
    return one.status if one.status in _BAD else look.told.of(one.host) or one.status


def _row(one: HostStatus, look: Look) -> tuple[str, ...]:
    return (
        one.host,
        state(one, look),
        _since(one, look),
        _gpus(one, look),
        _watts(one),
        _requests(one),
        _models(one),
    )


def _sentences(one: HostStatus, look: Look) -> Iterator[Span]:
    told = look.told
    mode = told.of(one.host)
    if mode and state(one, look) != mode:
        yield f"the controller has it {mode}", ""
    yield from ((f"{said}", "") for said in _said(one, told))
    if one.failure is not None and one.failure.hint:
        yield text(one.failure.hint), "dim"
    for service in one.services or ():
        if service.state != "active":
            yield f"{text(service.name)} is {text(service.state)}", "red"
    if proof := _proof_text(one, told):
        yield f"wake proof: {proof}", "yellow"
    for found in look.kept.of(one.host) or ():
        yield _finding(found), _LEVELS[found.result.level.name]


def _said(one: HostStatus, told: Modes) -> list[str]:
    return [*(text(each) for each in status_rows.notes(one)), *told.remarks(one.host)]


def _cells(one: HostStatus, look: Look) -> tuple[str, ...]:
    services = ", ".join(f"{service.name} {service.state}" for service in one.services or ())
    said = _said(one, look.told)
    if proof := _proof_text(one, look.told):
        said.append(f"wake proof: {proof}")
    found = look.kept.of(one.host)
    return (
        one.host,
        one.status,
        look.told.of(one.host) or "-",
        _since(one, look),
        _gpus(one, look),
        _watts(one),
        _models(one),
        _requests(one),
        _proof(one, look),
        _holds(one, look.told),
        "-" if found is None else "; ".join(map(_finding, found)) or "none",
        services or "-",
        "; ".join(said),
    )


def _since(one: HostStatus, look: Look) -> str:
    since, at = number(look.told.rows.get(one.host, {}).get("since")), look.told.at
    return spans.shown(max(0.0, at - since)) if since and at is not None else "-"


def _gpus(one: HostStatus, look: Look) -> str:
    if one.gpus is not None:
        names = [_short(card.name) for card in one.gpus]
    else:
        names = [card.model for card in look.loaded.rack.host(one.host).gpus]
    counted = Counter(names)
    return ", ".join(name if many == 1 else f"{many} {name}" for name, many in counted.items()) or "-"


def _short(name: str) -> str:
    for maker in _MAKERS:
        name = name.removeprefix(maker)
    return text(name) or "?"


def _watts(one: HostStatus) -> str:
    """Return what the cards draw and may draw together; a question mark stands for what one does not say."""
    if not one.gpus:
        return "-"
    if all(card.asleep for card in one.gpus):
        return "asleep"
    awake = [card for card in one.gpus if not card.asleep]
    return f"{_sum([card.power_w for card in awake])}/{_sum([card.cap_w for card in _capped(one.gpus)])}"


def _capped(cards: Sequence[Card]) -> list[Card]:
    return [card for card in cards if card.cap_w is not None or not card.asleep]


def _sum(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "?"
    return f"{sum(known):.0f}" + ("" if len(known) == len(values) else "+?")


def _models(one: HostStatus) -> str:
    listed = [
        name if ready == "ready" else f"{name} {ready}"
        for service in one.services or ()
        for name, ready in service.models or ()
    ]
    return text(", ".join(listed)) or "-"


def _requests(one: HostStatus) -> str:
    running = [each.running for each in one.services or () if each.running is not None]
    waiting = sum(each.waiting or 0 for each in one.services or ())
    if not running:
        return "-"
    return f"{sum(running)}+{waiting}" if waiting else f"{sum(running)}"


def _proof_text(one: HostStatus, told: Modes) -> str:
    return text(told.rows.get(one.host, {}).get("proof"))


def _proof(one: HostStatus, look: Look) -> str:
    if not look.told.known or not look.loaded.rack.host(one.host).idle.suspend:
        return "-"
    return "no" if _proof_text(one, look.told) else "ok"


def _holds(one: HostStatus, told: Modes) -> str:
    if not told.known:
        return "-"
    return str(len(objects(told.rows.get(one.host, {}).get("holds"))))


def _finding(found: Finding) -> str:
    one = found.result
    place = f"{one.code} {one.subject}".strip()
    return text(f"{one.level.name} {place}: {one.reason}")


def findings_shown(found: Sequence[Finding] | None) -> list[dict[str, Any]] | None:
    """Return findings for ``--json``."""
    if found is None:
        return None
    return [
        {
            "code": each.result.code,
            "level": each.result.level.name,
            "subject": each.result.subject,
            "reason": each.result.reason,
            "cure": each.result.cure,
            "since": each.since,
        }
        for each in found
    ]
