"""``labctl status``: the whole rack in one table: what each host is and why, what runs on it, what is wrong.

Where the rack has a controller, its word is enough: it hears every awake host all the time. Only a host of
which it hears too little, or all of them with ``--ask``, is asked for its agent's report. Nothing is woken,
loaded or kept loaded by asking, and a host that sleeps by the controller's word is not asked at all.

``--json`` prints one document; fields may be added, and those here keep their names and meaning::

    {"ok": false,                      every host answered or sleeps, and every service of the rack runs
     "controller": null,               no controller; or {"reached": true, "paused": "", "failure": ""}
     "findings": null,                 nobody looks; or {"at": 1764400000.0 or null, "failure": ""}
     "hosts": [{"host": "rig",
                "status": "ok",        ok, asleep, wrong, failed, unreachable or interrupted
                "source": "agent",     whose word it is: agent, controller, or null
                "sleep": null,         or what the controller says, as in docs/control-api.md
                "failure": null,       or {"code", "reason", "hint"}
                "services": [{"service": "swap", "unit": "labctl-swap.service", "state": "active",
                              "sub": "running", "since": "...", "restarts": 0, "answer": 200,
                              "models": [{"model": "qwen", "state": "ready"}],
                              "running": 1, "waiting": 0}],                        null: not known
                "missing": ["chat"],   services of the rack file that the host does not have
                "gpus": [{"name": "...", "asleep": false, "power_w": 27.1, "cap_w": 280.0}],
                "findings": [{"code", "level", "subject", "reason", "cure", "since"}],   null: not known
                "forced": null}]}      or {"words", "who", "when", "what": ["..."]}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from labctl import wiring
from labctl.cli import completion, findings, modes, printer, spans, status_rows, status_view
from labctl.cli.asking import Aim
from labctl.cli.status_rows import HostStatus
from labctl.cli.status_view import Look
from labctl.domain.problem import ExitCode

if TYPE_CHECKING:
    from labctl.cli.modes import Modes
    from labctl.inventory import LoadedRack

_HELP = """\b
Examples:
  labctl status                    every host of the rack
  labctl status rig nas            these two
  labctl status --watch            live, until Ctrl-C
  labctl status --ask              ask every host that is awake itself, by SSH
  labctl status --json | jq '.hosts[] | {host, status}'
\b
Exit codes:
  0  every host answered or sleeps, and every service of the rack file runs
  1  a service is missing or does not run, or a host answered badly
  2  bad input
  3  no host could be reached
  4  some hosts answered, others could not be reached
  with --watch: 0 when Ctrl-C ends it
"""


@click.command(short_help="Show each host's state and why, what runs on it, what is wrong.", epilog=_HELP)
@click.argument("hosts", metavar="[HOST]...", nargs=-1, shell_complete=completion.complete_hosts_alone)
@click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
@click.option("--watch", "-w", is_flag=True, help="Show it anew as it changes, until Ctrl-C.")
@click.option(
    "--every",
    metavar="TIME",
    default="2s",
    show_default=True,
    callback=spans.of_option,
    help="How often --watch asks the controller.",
)
@click.option("--ask", is_flag=True, help="Ask every host that is awake itself, not the controller alone.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document and nothing else; one a line with --watch.",
)
def status(
    hosts: tuple[str, ...], inventory: str | None, *, watch: bool, every: float, ask: bool, as_json: bool
) -> int:
    """Show for each host its state and since when, why, its cards and watts, models, requests and findings.

    HOST is a host or group of the rack; without any, all are shown. No host is woken for it, and no model is
    loaded or kept. Where the rack has a controller, it says what it hears of its hosts; a host of which it
    hears too little is asked by SSH, and one that sleeps is not asked. Findings are those of the last
    ``labctl health --cron``.
    """
    from labctl.domain import limits
    from labctl.inventory import load_rack

    rack = wiring.find_inventory(inventory)
    loaded = load_rack(rack)
    chosen = limits.select(tuple(loaded.host_data), loaded.groups, hosts)
    completion.remember(rack, (*loaded.host_data, *loaded.groups))
    aim = Aim(loaded, chosen)
    if watch:
        from labctl.cli import status_watch

        status_watch.watch(aim, every, ask=ask, as_json=as_json, document=_document)
        return ExitCode.OK
    told = modes.known(aim)
    found = look_at(loaded, chosen, told, ask=ask, watched=not as_json)
    look = Look(loaded, told, found, findings.kept(aim), wiring.clock().now().timestamp())
    if as_json:
        printer.emit_json(_document(look))
    else:
        status_view.show(look)
    return _judge(found)


def look_at(
    loaded: LoadedRack, chosen: Sequence[str], told: Modes, *, ask: bool, watched: bool
) -> list[HostStatus]:
    """Return what is known of hosts; those of which the controller does not say enough are asked.

    Args:
        loaded: the rack.
        chosen: the hosts that are wanted.
        told: what the controller says.
        ask: whether every host that is awake is asked itself.
        watched: whether to count the answers for a person.
    """
    found: dict[str, HostStatus] = {}
    for name in chosen:
        if told.sleeps(name):
            found[name] = HostStatus(name, asleep=True, source="controller")
        elif not ask and (heard := _heard(loaded, name, told)) is not None:
            found[name] = heard
    asked = _ask(loaded, [name for name in chosen if name not in found], watched=watched)
    found |= {one.host: one for one in asked}
    return [found[name] for name in chosen]


def _heard(loaded: LoadedRack, name: str, told: Modes) -> HostStatus | None:
    return status_rows.of_telemetry(name, _wanted(loaded, name), told.rows.get(name, {}))


def _wanted(loaded: LoadedRack, name: str) -> tuple[str, ...]:
    return tuple(service.name for service in loaded.rack.host(name).services)


def _ask(loaded: LoadedRack, hosts: Sequence[str], *, watched: bool) -> list[HostStatus]:
    from labctl.cli.cap_view import Waiting
    from labctl.fleet import reports

    if not hosts:
        return []
    services = (service for name in hosts for service in loaded.rack.host(name).services)
    keyed = any(getattr(service, "api_key", None) is not None for service in services)
    with Waiting(len(hosts)) if watched else nullcontext() as waiting:
        on_answer: Callable[[Any], None] | None = waiting.on_answer if waiting is not None else None
        answers = reports.ask(loaded, hosts, reports.DEADLINE_S, wiring.remote(), on_answer, root=keyed)
    found = []
    for name in hosts:
        answer = answers[name]
        if isinstance(answer, reports.Report):
            found.append(status_rows.of_report(name, _wanted(loaded, name), answer.document))
        else:
            found.append(HostStatus(name, failure=answer.failure))
    return found


def _document(look: Look) -> dict[str, Any]:
    told, kept = look.told, look.kept
    controller = None
    if look.loaded.rack.controller is not None:
        controller = {"reached": told.known, "paused": told.paused, "failure": told.away}
    known = None
    if kept.found is not None or kept.away:
        known = {"at": kept.found.at if kept.found is not None else None, "failure": kept.away}
    rows = [
        {
            **status_rows.shown(one),
            "sleep": told.rows.get(one.host),
            "findings": status_view.findings_shown(kept.of(one.host)),
        }
        for one in look.hosts
    ]
    well = all(one.status in ("ok", "asleep") for one in look.hosts)
    return {"ok": well, "controller": controller, "findings": known, "hosts": rows}


def _judge(found: Sequence[HostStatus]) -> ExitCode:
    states = [one.status for one in found]
    if "interrupted" in states:
        return ExitCode.INTERRUPTED
    if states and all(state == "unreachable" for state in states):
        return ExitCode.UNREACHABLE
    if {"wrong", "failed"} & set(states):
        return ExitCode.HOST_FAILED
    return ExitCode.PARTIAL if "unreachable" in states else ExitCode.OK
