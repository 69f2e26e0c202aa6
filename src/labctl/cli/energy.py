"""``labctl energy``: what hosts used, what it cost, and what their sleep saved.

Nothing is asked of the hosts: the controller has counted all along, and says what it counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from labctl.cli import asking, completion, printer, spans
from labctl.domain.problem import ExitCode

_HELP = """\b
Examples:
  labctl energy                        the last 30 days of the rack, host by host
  labctl energy --since 12h --host gpu-box
  labctl energy --by day --json | jq '.spans[] | select(.doing == "loaded")'
\b
Exit codes:
  0  shown
  2  bad input, or the controller refuses
  3  the controller cannot be reached
"""
_WORDS = {
    "busy": "busy",
    "loaded": "awake, loaded, idle",
    "empty": "awake, nothing loaded, idle",
    "changing": "going to sleep, waking",
    "asleep": "asleep",
    "unseen": "not seen",
}
_HEAD = ("host", "doing", "time", "kWh", "mean W")
_MARK = "~"
_HOUR_S = 3600.0


@click.command(short_help="Show what hosts used, what it cost, what sleep saved.", epilog=_HELP)
@click.option(
    "--since",
    metavar="TIME",
    default="30d",
    show_default=True,
    callback=spans.of_option,
    help="How far back: 12h, 7d, at most 366d. It begins with a whole hour.",
)
@click.option(
    "--host",
    "hosts",
    metavar="HOST",
    multiple=True,
    shell_complete=completion.complete_hosts_alone,
    help="A host or group of the rack; may be given more than once. Default: all.",
)
@click.option(
    "--by",
    type=click.Choice(("minute", "hour", "day")),
    help="List it span by span too; minutes are kept for 2 days, hours for 400.",
)
@asking.inventory_option
@asking.json_option
def energy(
    since: float, *, hosts: tuple[str, ...], by: str | None, inventory: str | None, as_json: bool
) -> int:
    """Show what hosts used, by what they did; what it cost by the rack's tariff, and what sleeping saved.

    A number with ~ holds an estimate: something did not tell what it drew. Without a meter at its plug a host
    is counted by its graphics cards and processors alone, which is less than it draws.
    """
    aim = asking.aim(inventory, hosts)
    with asking.controller(aim) as controller:
        *listed, last = controller.ask("energy", hosts=list(aim.hosts) if hosts else [], for_s=since, each=by)
    if as_json:
        said = {name: value for name, value in last.items() if name != "done"}
        printer.emit_json({**said, "spans": listed} if by else said)
        return ExitCode.OK
    if by:
        _show_spans(listed)
        printer.out()
    _show(last)
    return ExitCode.OK


def _show(last: Mapping[str, Any]) -> None:
    currency = asking.text(last.get("currency"))
    hosts = asking.objects(last.get("hosts"))
    head = (*_HEAD, currency) if currency else _HEAD
    rows = [row for host in hosts for row in _rows(host, money=bool(currency))]
    if not rows:
        printer.out("Nothing was counted in that time; counting begins when the controller runs.")
        return
    rack = last.get("rack")
    if isinstance(rack, Mapping) and len(hosts) > 1:
        rows += _rows({**rack, "host": "rack"}, money=bool(currency))
    printer.table(head, rows)
    printer.out()
    for host in hosts:
        for line in _sentences(host, currency):
            printer.out(line)
    if isinstance(rack, Mapping) and len(hosts) > 1:
        for line in _sentences({**rack, "host": "rack"}, currency):
            printer.out(line)
    if any(_MARK in cell for row in rows for cell in row):
        printer.out(f"{_MARK} holds an estimate: not all of it was measured.")
    if any("?" in row for row in rows):
        printer.out("? nothing tells what it drew: it has no meter, and no counter that can be read.")
    if last.get("mean_price") is True:
        printer.out("Money is by the mean price of a week: it is too long ago to know the hours.")


def _rows(host: Mapping[str, Any], *, money: bool) -> list[tuple[str, ...]]:
    """Return the rows of a host: one for each thing that it did, and their sum."""
    name = asking.text(host.get("host"))
    rows: list[tuple[str, ...]] = []
    lines = asking.objects(host.get("lines"))
    for line in lines:
        doing = asking.text(line.get("doing"))
        row = (name if not rows else "", _WORDS.get(doing, doing), *_numbers(line))
        rows.append((*row, _priced(line)) if money else row)
    if len(lines) > 1:
        together = {**host, "seconds": sum(asking.number(line.get("seconds")) or 0.0 for line in lines)}
        partly = any(map(_untold, lines))
        row = ("", "together", *_numbers(together, partly=partly))
        rows.append((*row, _priced(host, partly=partly)) if money else row)
    return rows


def _untold(line: Mapping[str, Any]) -> bool:
    """Return whether nothing told what was used, and nothing was put in: there is no host that draws 0 W."""
    return bool(asking.number(line.get("seconds"))) and not asking.number(line.get("kwh"))


def _mark(line: Mapping[str, Any]) -> str:
    """Return the sign of an estimate where a part of the number is one."""
    kwh, guess = (asking.number(line.get(name)) or 0.0 for name in ("kwh", "estimated_kwh"))
    return _MARK if abs(guess) > 0.005 * abs(kwh) else ""


def _numbers(line: Mapping[str, Any], *, partly: bool = False) -> tuple[str, str, str]:
    """Return the time, kWh and mean watts of a line; ``partly``: a part of it is not known."""
    seconds = asking.number(line.get("seconds")) or 0.0
    if _untold(line):
        return spans.shown(seconds), "?", "?"
    kwh = asking.number(line.get("kwh")) or 0.0
    mark = _MARK if partly else _mark(line)
    mean = f"{mark}{kwh * 1e3 * _HOUR_S / seconds:.0f}" if seconds else ""
    return spans.shown(seconds), f"{mark}{_kwh(kwh)}", mean


def _priced(line: Mapping[str, Any], *, partly: bool = False) -> str:
    if _untold(line):
        return "?"
    money = _money(line.get("money"))
    return f"{_MARK if partly else _mark(line)}{money}" if money else ""


def _kwh(kwh: float) -> str:
    return f"{kwh:.1f}" if abs(kwh) >= 100 else f"{kwh:.2f}" if abs(kwh) >= 1 else f"{kwh:.3f}"


def _money(value: object) -> str:
    number = asking.number(value)
    return "" if number is None else f"{number:.2f}"


def _sentences(host: Mapping[str, Any], currency: str) -> Iterator[str]:
    """Yield what sleeping saved, and what tokens took."""
    name, saved = asking.text(host.get("host")), host.get("saved")
    if isinstance(saved, Mapping):
        kwh, because = asking.number(saved.get("kwh")), asking.text(saved.get("because"))
        if kwh is None:
            yield f"{name}: what sleep saved is not known"
        elif kwh or not because:
            mark = _MARK if saved.get("estimated") is True else ""
            money = _money(saved.get("money")) if currency else ""
            price = f", {mark}{money} {currency}" if money else ""
            yield f"{name}: saved by sleeping {mark}{_kwh(kwh)} kWh{price}"
        if because and kwh != 0:
            yield f"  {because}"
    tokens, per = asking.number(host.get("answer_tokens")), asking.number(host.get("kwh_per_mtok"))
    if tokens and per is not None:
        money = _money(host.get("money_per_mtok")) if currency else ""
        mark = _MARK if any(map(_untold, asking.objects(host.get("lines")))) else _mark(host)
        price = f", {mark}{money} {currency}" if money else ""
        yield f"{name}: {mark}{_kwh(per)} kWh{price} for a million tokens ({tokens:,.0f} were answered)"


def _show_spans(listed: Sequence[Mapping[str, Any]]) -> None:
    from labctl.cli.cap_view import moment

    rows = [
        (moment(one.get("at")), asking.text(one.get("host")), _WORDS.get(doing, doing), *_numbers(one))
        for one in listed
        if (doing := asking.text(one.get("doing")))
    ]
    printer.table(("from", *_HEAD), rows)
