"""``labctl hold``, ``release``, ``pause`` and ``resume``: what people say about a host's sleep.

A hold is a promise with an end; a pause has none and outlives restarts, so every command shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from labctl import wiring
from labctl.cli import asking, completion, printer
from labctl.cli.asking import Aim
from labctl.domain.problem import ExitCode, LabctlError

_CODES = """\b
Exit codes:
  0  done                               3  the controller cannot be reached
  1  nothing of the kind was there      4  done for some hosts
  2  bad input, or the controller refuses
"""


@click.command(
    short_help="Keep a host awake for some time.",
    epilog=f"""\b
Examples:
  labctl hold gpu-box 2h --why "a long fine-tune"
  labctl hold gpu-box 18:00 --why "demo"       until a clock here shows that
{_CODES}""",
)
@click.argument("host", shell_complete=completion.complete_hosts_alone)
@click.argument("duration")
@click.option("--why", metavar="WORDS", required=True, help="Why; shown to whoever wonders.")
@asking.inventory_option
@asking.json_option
def hold(host: str, duration: str, *, why: str, inventory: str | None, as_json: bool) -> int:
    """Keep HOST awake for DURATION (90m, 2h, 1d12h) or until a time (18:00); it ends by itself.

    HOST is a host or group of the rack. A host that sleeps is not woken for it; labctl wake does that. On the
    host itself the same is a file in /run/labctl/holds.
    """
    from labctl.cli.cap_view import moment
    from labctl.fleet import moments

    now = wiring.clock().now()
    until = moments.until(duration, now, called="DURATION", further="labctl pause has no end")
    aim = asking.aim(inventory, (host,))
    ends = _tell(aim, "hold", for_s=(until - now).total_seconds(), why=why)
    return _show(
        ends, lambda end: f"held until {moment(end.get('until'))}, as {end.get('hold')}", as_json=as_json
    )


@click.command(
    short_help="End holds, and take wishes back.",
    epilog=f"""\b
Examples:
  labctl release gpu-box               the hold that is on it
  labctl release gpu-box 12            one of several; labctl explain gpu-box lists them
  labctl release gpu-box --all         all of them, and what was wished for it
{_CODES}""",
)
@click.argument("host", shell_complete=completion.complete_hosts_alone)
@click.argument("number", metavar="[ID]", type=click.IntRange(1), required=False)
@click.option("--all", "everything", is_flag=True, help="All its holds and wishes.")
@asking.inventory_option
@asking.json_option
def release(host: str, number: int | None, *, everything: bool, inventory: str | None, as_json: bool) -> int:
    """End a hold of HOST: the only one, the one with that ID, or (--all) everything that was asked for it."""
    if number is not None and everything:
        raise LabctlError("ID and --all exclude each other")
    aim = asking.aim(inventory, (host,))
    ends = _tell(aim, "release", hold=number, all=everything)
    return _show(ends, lambda end: f"released: {asking.text(end.get('because'))}", as_json=as_json)


@click.command(
    short_help="Hands off: neither wake nor sleep until resume.",
    epilog=f"""\b
Examples:
  labctl pause gpu-box --why "new fans"     nothing of labctl's touches its power
  labctl pause --why "moving house"         the whole rack
{_CODES}""",
)
@asking.hosts_argument(required=False)
@click.option("--why", metavar="WORDS", required=True, help="Why; shown by every command.")
@asking.inventory_option
@asking.json_option
def pause(hosts: tuple[str, ...], *, why: str, inventory: str | None, as_json: bool) -> int:
    """Keep the controller's hands off hosts, or off the whole rack, until labctl resume; over restarts too.

    A host that is awake stays awake, one that sleeps is left alone.
    """
    aim = asking.aim(inventory, hosts)
    ends = _tell(aim, "pause", why=why, hosts=list(aim.hosts) if hosts else [])
    return _show(
        ends, lambda end: "paused", as_json=as_json, of_all="the rack is paused; labctl resume ends it"
    )


@click.command(
    short_help="End a pause, or the quarantine of a host.",
    epilog=f"""\b
Examples:
  labctl resume gpu-box                its pause and its quarantine
  labctl resume                        the pause of the whole rack
{_CODES}""",
)
@asking.hosts_argument(required=False)
@asking.inventory_option
@asking.json_option
def resume(hosts: tuple[str, ...], *, inventory: str | None, as_json: bool) -> int:
    """Let the controller care for hosts again; for a quarantined one this means that you have mended it.

    Without HOST the pause of the whole rack ends; hosts that were paused by name stay so.
    """
    aim = asking.aim(inventory, hosts)
    ends = _tell(aim, "resume", hosts=list(aim.hosts) if hosts else [])
    return _show(
        ends, lambda end: "in the controller's care", as_json=as_json, of_all="the pause of the rack is over"
    )


def _tell(aim: Aim, do: str, **fields: Any) -> dict[str, Mapping[str, Any]]:
    asked = {"hosts": list(aim.hosts), **fields}
    with asking.controller(aim) as controller:
        last = controller.tell(do, **asked)
    return asking.ends_of(last, asked["hosts"])


def _show(
    ends: Mapping[str, Mapping[str, Any]],
    said: Callable[[Mapping[str, Any]], str],
    *,
    as_json: bool,
    of_all: str = "",
) -> ExitCode:
    if as_json:
        printer.emit_json({"hosts": ends})
    else:
        if not ends and of_all:
            printer.out(of_all)
        for host, end in ends.items():
            because = asking.text(end.get("because"))
            printer.out(f"{asking.text(host)}: {said(end) if end.get('ok') is True else because}")
    return asking.judge(ends)
