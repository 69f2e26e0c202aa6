"""``labctl controller``: run the controller, look at it, and the way to it for whoever comes by SSH."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from labctl import wiring
from labctl.cli import asking, printer, spans
from labctl.cli.asking import number, text
from labctl.domain.problem import ExitCode


@click.group()
def controller() -> None:
    """Run the controller, the process that wakes hosts and lets them sleep, or look at it."""


@controller.command(
    short_help="Run it in the foreground, as its unit does.",
    epilog="""\b
Examples:
  labctl controller run /etc/labctl/controller/rack.json
  systemctl status labctl-controller   where labctl apply has installed it
""",
)
@click.argument("rack", required=False, type=click.Path())
def run(rack: str | None) -> int:
    """Run the controller of RACK until it is stopped (Ctrl-C, SIGTERM).

    RACK is a rack file, or the rack as data that labctl apply writes to the controller's host. A second
    controller on the same store stands by until the first is gone.
    """
    from pathlib import Path

    from labctl.cli import controller_run

    return controller_run.run(Path(rack) if rack else wiring.find_inventory(None))


@controller.command(short_help="Carry bytes between standard streams and its socket.")
def connect() -> int:
    """Carry bytes between standard input and output and the controller's socket on this machine.

    This is what labctl on another machine runs here by SSH; docs/control-api.md describes what is said.
    """
    from labctl.adapters.local_socket import dial
    from labctl.controller.api import words
    from labctl.controller.api.connect import connect as carry

    path = wiring.controller_socket()
    try:
        with dial(path) as sock:
            carry(sock, sys.stdin.fileno(), sys.stdout.fileno())
    except BrokenPipeError:  # whoever came by SSH went away
        return ExitCode.OK
    except OSError as error:
        reason = f"no controller can be reached at {path}: {error.strerror or error}"
        refusal = words.SaidError("no-controller", reason, "systemctl status labctl-controller")
        printer.emit_json_line(words.error(refusal))
    return ExitCode.OK


@controller.command(
    short_help="Show whether it lives, and every host's mode.",
    epilog="""\b
Examples:
  labctl controller status
  labctl controller status --json | jq .store
\b
Exit codes:
  0  it leads, ticks, and its store works
  1  something of that is wrong
  2  bad input, or the controller refuses
  3  the controller cannot be reached
""",
)
@asking.inventory_option
@asking.json_option
def status(inventory: str | None, *, as_json: bool) -> int:
    """Show whether the controller lives and leads, whether its store works, and the mode of every host.

    No host is contacted for it.
    """
    aim = asking.aim(inventory, ())
    with asking.controller(aim) as found:
        said = found.tell("status")
        rack, version = text(found.rack), text(found.version)
    wrong = _wrong(said)
    if as_json:
        printer.emit_json({**said, "rack": rack, "labctl": version, "wrong": wrong})
        return ExitCode.HOST_FAILED if wrong else ExitCode.OK
    ticked = number(said.get("ticked_s"))
    leads = (
        "leads" if said.get("leading") is True else f"stands by for {text(said.get('leader')) or 'nobody'}"
    )
    looked = "has not looked yet" if ticked is None else f"looked {spans.shown(ticked)} ago"
    printer.out(f"controller of {rack}, labctl {version}: {leads}, {looked}")
    for line in wrong:
        printer.out(printer.style(line, "red"))
    paused = text(said.get("paused"))
    if paused:
        printer.out(printer.style(f"the rack is paused: {paused}", "yellow"))
    rows = [_row(one, number(said.get("at")), paused) for one in asking.objects(said.get("hosts"))]
    printer.table(("host", "mode", "since", "why"), rows)
    return ExitCode.HOST_FAILED if wrong else ExitCode.OK


def _wrong(said: Mapping[str, Any]) -> list[str]:
    """Return what keeps the controller from its work."""
    wrong = []
    if store := text(said.get("store")):
        wrong.append(f"its store cannot be used, so nothing is put to sleep: {store}")
    if not text(said.get("leader")):
        wrong.append("nobody leads, so nothing is woken or put to sleep")
    return wrong


def _row(one: Mapping[str, Any], at: float | None, paused: str) -> tuple[str, ...]:
    since = number(one.get("since"))
    span = "" if at is None or not since else spans.shown(max(0.0, at - since))
    return text(one.get("host")), text(one.get("mode")), span, "; ".join(remarks(one, rack_paused=paused))


def remarks(one: Mapping[str, Any], *, rack_paused: str = "") -> list[str]:
    """Return what a person should know of a host by its status: why it is so, and who claims it."""
    paused = text(one.get("paused"))
    # What is being waited for repeats the pause.
    said = [text(one.get("because")), text(one.get("doing")), "" if paused else text(one.get("next"))]
    if paused and paused != rack_paused:
        said.append(f"paused: {paused}")
    if quarantined := text(one.get("quarantined")):
        said.append(f"quarantined: {quarantined}")
    said += [
        f"held by {text(hold.get('by'))}: {text(hold.get('why'))}"
        for hold in asking.objects(one.get("holds"))
    ]
    return [each for each in said if each]
