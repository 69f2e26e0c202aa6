"""``labctl explain`` and ``labctl events``: why a host is as it is, and what happened to it.

Nothing is asked of the hosts: the controller says what it has seen, so no host is woken or kept awake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from labctl import wiring
from labctl.cli import asking, completion, printer, spans
from labctl.domain.problem import ExitCode

_MOST = 1000
_EXPLAIN_HELP = """\b
Examples:
  labctl explain gpu-box               what holds it awake, signal by signal
  labctl explain --json | jq '.hosts[] | {host, verdict}'
\b
Exit codes:
  0  explained
  2  bad input, or the controller refuses
  3  the controller cannot be reached
"""
_EVENTS_HELP = """\b
Examples:
  labctl events                        the last 50 lines of the rack's log
  labctl events gpu-box --follow       go on as things happen, until Ctrl-C
  labctl events --since 24h --kind wish --kind hold
  labctl events --since 2026-11-28 --until 2026-11-29 --grep refused
  labctl events --json | jq .text
\b
Exit codes:
  0  shown
  2  bad input, or the controller refuses
  3  the controller cannot be reached
"""


@click.command(short_help="Say what holds a host awake, and what is next.", epilog=_EXPLAIN_HELP)
@asking.hosts_argument(required=False)
@asking.inventory_option
@asking.json_option
def explain(hosts: tuple[str, ...], *, inventory: str | None, as_json: bool) -> int:
    """Say why hosts are in their mode, what holds them awake, and what would happen when.

    HOST is a host or group of the rack; without any, all are explained. Every signal is listed with what it
    read last; one that cannot be read counts as busy.
    """
    aim = asking.aim(inventory, hosts)
    with asking.controller(aim) as controller:
        last = controller.tell("explain", hosts=list(aim.hosts) if hosts else [])
    found = asking.objects(last.get("hosts"))
    if as_json:
        printer.emit_json({"hosts": found})
        return ExitCode.OK
    for index, one in enumerate(found):
        if index:
            printer.out()
        for line in _explained(one):
            printer.out(line)
    return ExitCode.OK


def _explained(one: Mapping[str, Any]) -> Iterator[str]:
    text = asking.text
    yield printer.style(f"{text(one.get('host'))}: {text(one.get('mode'))}", "bold")
    said = asking.texts(one.get("lines")) or [text(one.get("because")), text(one.get("verdict"))]
    blocks = {f"awake: {text(each.get('because'))}": each for each in asking.objects(one.get("blocks"))}
    for line in filter(None, said):
        yield f"  {line}"
        yield from _remedy(blocks.get(line, {}))
    yield from _looks(one)
    for name, words in (("doing", "doing now"), ("quarantined", "quarantined")):
        if more := text(one.get(name)):
            yield f"  {words}: {more}"
    if proof := text(one.get("proof")):
        yield f"  wake proof: {proof}"
    yield from _claims(one)
    yield from _readings(one)
    for each in asking.objects(one.get("recent")):
        yield f"  {_moment(each.get('at'))}  {text(each.get('text'))}"


def _remedy(block: Mapping[str, Any]) -> Iterator[str]:
    """Yield how long something keeps a host awake, where that is known, and what changes it."""
    until = f"until {_moment(block.get('until'))}" if asking.number(block.get("until")) else ""
    said = [part for part in (until, asking.text(block.get("remedy"))) if part]
    if said:
        yield printer.style(f"    {'; '.join(said)}", "dim")


def _looks(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield when the host is looked at again, and what it refused last."""
    after = asking.number(one.get("next_look_s"))
    if after is not None:
        yield f"  it is looked at again in {spans.shown(after)}"
    refused = one.get("refused")
    if isinstance(refused, Mapping):
        at, why = _moment(refused.get("at")), asking.text(refused.get("text"))
        yield f"  it last turned back on its way to sleep at {at}: {why}"


def _claims(one: Mapping[str, Any]) -> Iterator[str]:
    from labctl.cli.cap_view import moment

    text = asking.text
    for hold in asking.objects(one.get("holds")):
        until, why, by = moment(hold.get("until")), text(hold.get("why")), text(hold.get("by"))
        yield f"  hold {text(hold.get('hold'))} until {until}: {why} ({by})"
    for wish in asking.objects(one.get("wishes")):
        until, why = moment(wish.get("until")), text(wish.get("why"))
        why = f": {why}" if why else ""
        yield f"  wished {text(wish.get('wants'))} until {until}{why} ({text(wish.get('by'))})"


def _readings(one: Mapping[str, Any]) -> Iterator[str]:
    text = asking.text
    age = asking.number(one.get("report_age_s"))
    readings = asking.objects(one.get("readings"))
    if age is None or not readings:
        yield "  its agent has not reported to this controller"
    else:
        yield f"  its signals, {spans.shown(age)} ago:"
    width = max((len(text(each.get("signal"))) for each in readings), default=0)
    words = {True: "busy", False: "quiet", None: "unreadable"}
    for each in readings:
        busy = each.get("busy")
        state = words[busy if isinstance(busy, bool) else None]
        signal, because = text(each.get("signal")).ljust(width), text(each.get("because"))
        yield f"    {signal}  {state.ljust(10)}  {because}".rstrip()
    if signs := asking.texts(one.get("signs")):
        yield f"  seen from outside: {', '.join(signs)}"


def _moment(at: object) -> str:
    from labctl.cli.cap_view import moment

    return moment(at)


def _moment_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the moment that ``--since`` or ``--until`` means, in seconds since 1970; click's callback.

    Raises:
        click.BadParameter: it is neither a span nor a moment.
    """
    if value is None:
        return None
    now = wiring.clock().now()
    span = spans.read(value)
    if span is not None:
        return now.timestamp() - span
    try:
        return datetime.fromisoformat(value.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time; such as 30m, 7d, 2026-11-29 or 2026-11-29T14:05"
        ) from None


@click.command(short_help="Show what happened to hosts, and go on as it happens.", epilog=_EVENTS_HELP)
@click.argument("host", required=False, shell_complete=completion.complete_hosts_alone)
@click.option("--follow", "-f", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option(
    "--last",
    "-n",
    metavar="N",
    type=click.IntRange(1, _MOST),
    help="Begin with at most N lines; default: 50, with --since 1000.",
)
@click.option("--since", metavar="TIME", callback=_moment_of, help="Only from then on.")
@click.option("--until", metavar="TIME", callback=_moment_of, help="Only before then.")
@click.option("--kind", metavar="KIND", multiple=True, help="Only of this kind, or of these.")
@click.option("--grep", "-g", metavar="TEXT", default="", help="Only with TEXT in it, whatever its case.")
@asking.inventory_option
@asking.lines_option
def events(
    host: str | None, *, follow: bool, last: int | None, inventory: str | None, as_json: bool, **only: Any
) -> int:
    """Show the controller's log of HOST, or of the whole rack: what was done, when, and why.

    TIME is a span until now (30m, 2h, 7d), or a moment such as 2026-11-29 or 2026-11-29T14:05, by this
    machine's clock.
    """
    aim = asking.aim(inventory, (host,) if host else ())
    named = aim.hosts[0] if host else None
    most = last or (_MOST if only["since"] is not None else 50)
    sought = {"since": only["since"], "until": only["until"], "kinds": list(only["kind"])}
    # A controller that is older knows no such fields, and all that it has is then the right answer.
    wanted = {name: value for name, value in {**sought, "text": only["grep"]}.items() if value}
    shown = 0
    with asking.controller(aim) as controller:
        try:
            for one in controller.ask("events", host=named, most=most, follow=follow, **wanted):
                if one.get("done") is not True:
                    shown += 1
                    _show_event(one, as_json=as_json)
        except KeyboardInterrupt:
            if not follow:
                raise
            return ExitCode.OK
        if not shown and not follow and not only["kind"] and not as_json:
            printer.err("nothing in the log fits")
        elif not shown and only["kind"]:
            newest = controller.ask("events", host=named, most=_MOST)
            kinds = sorted({asking.text(one.get("kind")) for one in newest if one.get("done") is not True})
            printer.err(f"nothing in the log fits; its kinds are {', '.join(kinds) or 'none'}")
    return ExitCode.OK


def _show_event(one: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        printer.emit_json_line(one)
        return
    host = asking.text(one.get("host")) or "rack"
    printer.out(f"{_moment(one.get('at'))}  {host}: {asking.text(one.get('text'))}")
