"""``labctl power``: what supplies and circuits have to bear by the rack file, and what cards really draw.

The budget comes from the rack file alone and always covers the whole rack. Then every host is asked what its
cards draw and are capped at; hosts that do not answer are rows like any other, and none is woken.

``--json`` prints one document; fields may be added, and those here keep their names and meaning. Watts have
at most one decimal::

    {"ok": false,                     the budget fits and no host disagrees with the rack file
     "file": "...", "rack": "home",
     "fits": false,                   the budget alone
     "psus": [{"host": "rig", "name": "psu0", "circuit": "office",
               "output_w": 1650.0,    by what it feeds, for hours
               "steady_w": 1833.3,    the same at the wall
               "limit_w": 1600, "headroom_w": -50.0,                  at its output
               "spike_w": 2630.0, "spike_limit_w": 2080.0, "spike_headroom_w": -550.0,
               "over_w": 550, "because": "..."}],                     0 and "" where it fits
     "circuits": [{"name": "office", "upstream": null, and as above but all at the wall}],
     "change": {"text": "cap 8 GPUs at 185 W (RTX 3090 in rig)", "taken_w": 120,
                "caps": [{"kind": "RTX 3090", "cards": ["rig/slot0"], "before_w": 200, "watts": 185}],
                "shortages": [{"at": "circuit office", "short_w": 80, "move": ["nas"], "to": "",
                               "text": "..."}]},
     "notes": ["..."],                what the budget cannot count
     "hosts": [{"host": "rig",        null with --offline
                "status": "wrong",    ok, wrong, failed, unreachable or interrupted
                "failure": null,      or {"code", "reason", "hint"}
                "draw_w": 1204.0, "declared": 8, "present": 7,        null: not known
                "cards": [{"name": "slot0", "model": "RTX 3090", "state": "ok", "power_w": 172.1,
                           "cap_w": 200.0, "declared_w": 200, "reason": "circuit"}],
                "wrong": [{"code": "missing", "what": "...", "hint": "...", "card": "slot3"}]}]}

States of a card: ok, asleep, silent, missing, not-declared, differs, unknown. Codes: missing, not-declared,
replaced, cap-differs, uncounted, finding. ``change`` is null where the budget fits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from labctl import wiring
from labctl.cli import completion, printer
from labctl.domain.problem import ExitCode

if TYPE_CHECKING:
    from labctl.domain.budget_change import Change
    from labctl.domain.budget_live import Expected, Seen
    from labctl.domain.failures import Failure
    from labctl.inventory import Host, LoadedRack

_HELP = """\b
Examples:
  labctl power                       the rack's budget, and what each host's cards draw
  labctl power --offline             the budget alone; nothing is contacted
  labctl power --limit rig,big       ask only these hosts
  labctl power --json | jq '.hosts[] | {host, draw_w}'
\b
Exit codes:
  0  it fits, and every host that answered is as the rack file says
  1  over budget; or a card is missing, or capped otherwise; or a host answered badly
  2  bad input
"""


@dataclass(frozen=True, slots=True)
class HostRow:
    """What one host said: ``seen``, or in ``failure`` why it said nothing."""

    host: str
    seen: Seen | None = None
    failure: Failure | None = None

    @property
    def status(self) -> str:
        """Return the host's state in a word: ok, wrong, failed, unreachable or interrupted."""
        if self.seen is not None:
            return "wrong" if self.seen.wrong else "ok"
        if self.failure is not None and self.failure.code == "interrupted":
            return "interrupted"
        return "unreachable" if self.failure is not None and self.failure.unreachable else "failed"


@click.command(short_help="Show what supplies and circuits bear, and what cards draw.", epilog=_HELP)
@click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
@click.option(
    "--limit",
    metavar="HOST,GROUP",
    multiple=True,
    shell_complete=completion.complete_hosts,
    help="Ask only these hosts and groups. The budget is the whole rack's.",
)
@click.option("--offline", is_flag=True, help="Contact nothing: only what the rack file says.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def power(inventory: str | None, limit: tuple[str, ...], *, offline: bool, as_json: bool) -> int:
    """Show the watts of each power supply and circuit, and what is drawn now.

    Steady is what is drawn for hours with every card at its cap: (caps + base_w) / efficiency at the wall. A
    spike is all cards at once, for milliseconds. A circuit's limit is 80 % of its rating unless the rack file
    says otherwise. Then the hosts are asked: what their cards draw, which are missing, and which have another
    cap than declared. No host is woken for it.
    """
    from labctl.cli import power_view
    from labctl.domain import limits
    from labctl.domain.budget_change import cheapest_change
    from labctl.inventory import load_rack, watts

    rack = wiring.find_inventory(inventory)
    loaded = load_rack(rack)
    chosen = limits.select(tuple(loaded.host_data), loaded.groups, limit)
    completion.remember(rack, (*loaded.host_data, *loaded.groups))
    found = watts.rack_budget(loaded.rack)
    change = None if found.fits else cheapest_change(watts.power_of(loaded.rack))
    if not as_json:
        power_view.show_budget(found, change, watts.uncounted(loaded.rack))
    rows = None if offline else ask(loaded, chosen, watched=not as_json)
    if as_json:
        printer.emit_json(power_view.document(loaded, found, change, rows))
    elif rows is not None:
        power_view.show_hosts(rows)
    return _judge(change, rows or ())


def _judge(change: Change | None, rows: Sequence[HostRow]) -> ExitCode:
    states = {row.status for row in rows}
    if "interrupted" in states:
        return ExitCode.INTERRUPTED
    return ExitCode.HOST_FAILED if change is not None or states & {"wrong", "failed"} else ExitCode.OK


def ask(loaded: LoadedRack, hosts: Sequence[str], *, watched: bool) -> list[HostRow]:
    """Ask hosts for their reports at once, and compare those with the inventory."""
    from labctl.cli.cap_view import Waiting
    from labctl.domain.budget_live import look
    from labctl.fleet import reports

    with Waiting(len(hosts)) if watched else nullcontext() as waiting:
        told = waiting.on_answer if waiting is not None else None
        answers = reports.ask(loaded, hosts, reports.DEADLINE_S, wiring.remote(), told)
    rows = []
    for name in hosts:
        answer = answers[name]
        if isinstance(answer, reports.Report):
            rows.append(HostRow(name, look(name, expected(loaded.rack.host(name)), answer.document)))
        else:
            rows.append(HostRow(name, failure=answer.failure))
    return rows


def expected(host: Host) -> tuple[Expected, ...]:
    """Return the cards that a driver can be asked about, as the host's agent and the budget know them."""
    from labctl.domain import cap_json
    from labctl.domain.budget_live import VENDORS, Expected
    from labctl.inventory import profiles
    from labctl.render import caps

    askable = [gpu for gpu in host.gpus if profiles.of(gpu).vendor in VENDORS]
    declared = cap_json.declared(json.loads(caps.declared(host)))
    return tuple(
        Expected(profiles.of(gpu).vendor, one, profiles.draw_w(host, gpu))
        for gpu, one in zip(askable, declared, strict=True)
    )
