"""``labctl status``: which hosts answer or sleep, what runs on them, which models are loaded, what is forced.

One question to each host, all at once: its agent's report. Nothing is woken, loaded or kept loaded by asking,
and a host that sleeps by the controller's word is not asked at all.

``--json`` prints one document; fields may be added, and those here keep their names and meaning::

    {"ok": false,                      every host answered or sleeps, and every service of the rack runs
     "controller": null,               no controller; or {"reached": true, "paused": "", "failure": ""}
     "hosts": [{"host": "rig",
                "status": "ok",        ok, asleep, wrong, failed, unreachable or interrupted
                "sleep": null,         or what the controller says, as in docs/control-api.md
                "failure": null,       or {"code", "reason", "hint"}
                "services": [{"service": "swap", "unit": "labctl-swap.service", "state": "active",
                              "sub": "running", "since": "...", "restarts": 0, "answer": 200,
                              "models": [{"model": "qwen", "state": "ready"}]}],   null: not known
                "missing": ["chat"],   services of the rack file that the host does not have
                "forced": null}]}      or {"words", "who", "when", "what": ["..."]}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from labctl import wiring
from labctl.cli import completion, modes, printer
from labctl.cli.asking import Aim
from labctl.domain.problem import ExitCode

if TYPE_CHECKING:
    from labctl.cli.modes import Modes
    from labctl.domain.failures import Failure
    from labctl.inventory import LoadedRack

_HELP = """\b
Examples:
  labctl status                    every host of the rack
  labctl status rig nas            these two
  labctl status --json | jq '.hosts[] | {host, status}'
\b
Exit codes:
  0  every host answered or sleeps, and every service of the rack file runs
  1  a service is missing or does not run, or a host answered badly
  2  bad input
  3  no host could be reached
  4  some hosts answered, others could not be reached
"""
_NEEDS_A_KEY = 401
_WRONG = ("failed", "inactive", "deactivating")


@dataclass(frozen=True, slots=True)
class Service:
    """One of labctl's units on a host, as its agent saw it; ``models`` None: not known."""

    name: str
    unit: str
    state: str
    sub: str
    since: str | None
    restarts: int | None
    answer: int | None
    models: tuple[tuple[str, str], ...] | None


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What one host said; in ``failure`` why it said nothing. ``missing``: services it does not have."""

    host: str
    services: tuple[Service, ...] | None = None
    missing: tuple[str, ...] = ()
    forced: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())
    failure: Failure | None = None
    asleep: bool = False

    @property
    def status(self) -> str:
        """Return the host's state in a word."""
        if self.asleep:
            return "asleep"
        if self.failure is not None:
            if self.failure.code == "interrupted":
                return "interrupted"
            return "unreachable" if self.failure.unreachable else "failed"
        bad = self.missing or self.services is None or any(one.state in _WRONG for one in self.services)
        return "wrong" if bad else "ok"


@click.command(short_help="Show which hosts answer, and what runs on them.", epilog=_HELP)
@click.argument("hosts", metavar="[HOST]...", nargs=-1, shell_complete=completion.complete_hosts_alone)
@click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def status(hosts: tuple[str, ...], inventory: str | None, *, as_json: bool) -> int:
    """Show for each host whether it answers, its services, the models they have loaded, and what was forced.

    HOST is a host or group of the rack; without any, all are asked. No host is woken for it, and no model is
    loaded or kept. Where the rack has a controller, each host's mode is shown with its reason, and who holds
    or paused it; a host that sleeps is not asked.
    """
    from labctl.domain import limits
    from labctl.inventory import load_rack

    rack = wiring.find_inventory(inventory)
    loaded = load_rack(rack)
    chosen = limits.select(tuple(loaded.host_data), loaded.groups, hosts)
    completion.remember(rack, (*loaded.host_data, *loaded.groups))
    told = modes.known(Aim(loaded, chosen))
    awake = [name for name in chosen if not told.sleeps(name)]
    answers = {one.host: one for one in _ask(loaded, awake, watched=not as_json)}
    found = [answers.get(name) or HostStatus(name, asleep=True) for name in chosen]
    if as_json:
        well = all(one.status in ("ok", "asleep") for one in found)
        rows = [{**_json(one), "sleep": told.rows.get(one.host)} for one in found]
        printer.emit_json({"ok": well, "controller": _controller(loaded, told), "hosts": rows})
    else:
        _show(found, told)
    return _judge(found)


def _controller(loaded: LoadedRack, told: Modes) -> dict[str, Any] | None:
    if loaded.rack.controller is None:
        return None
    return {"reached": told.known, "paused": told.paused, "failure": told.away}


def _judge(found: Sequence[HostStatus]) -> ExitCode:
    states = [one.status for one in found]
    if "interrupted" in states:
        return ExitCode.INTERRUPTED
    if states and all(state == "unreachable" for state in states):
        return ExitCode.UNREACHABLE
    if {"wrong", "failed"} & set(states):
        return ExitCode.HOST_FAILED
    return ExitCode.PARTIAL if "unreachable" in states else ExitCode.OK


def _ask(loaded: LoadedRack, hosts: Sequence[str], *, watched: bool) -> list[HostStatus]:
    from labctl.cli.cap_view import Waiting
    from labctl.fleet import reports

    services = (service for name in hosts for service in loaded.rack.host(name).services)
    keyed = any(getattr(service, "api_key", None) is not None for service in services)
    with Waiting(len(hosts)) if watched else nullcontext() as waiting:
        told = waiting.on_answer if waiting is not None else None
        answers = reports.ask(loaded, hosts, reports.DEADLINE_S, wiring.remote(), told, root=keyed)
    found = []
    for name in hosts:
        answer = answers[name]
        if isinstance(answer, reports.Report):
            wanted = tuple(service.name for service in loaded.rack.host(name).services)
            found.append(_read(name, wanted, answer.document))
        else:
            found.append(HostStatus(name, failure=answer.failure))
    return found


def _read(host: str, wanted: Sequence[str], document: dict[str, Any]) -> HostStatus:
    """Return what a report says; what a host prints is believed only as far as it has the right form."""
    listed = document.get("engines")
    errors = document.get("errors")
    notes = [
        str(error.get("what"))
        for name, error in (errors.items() if isinstance(errors, dict) else ())
        if name in ("engines", "forced") and isinstance(error, dict)
    ]
    forced = document.get("forced")
    noted = forced if isinstance(forced, dict) else None
    if not isinstance(listed, list):
        old = "its agent is older than this labctl: labctl apply brings it up to date"
        return HostStatus(host, None, (), noted, (*notes, *(() if notes else (old,))))
    services = tuple(_service(one) for one in listed if isinstance(one, dict))
    there = {one.name for one in services}
    return HostStatus(
        host, services, tuple(name for name in wanted if name not in there), noted, tuple(notes)
    )


def _service(one: dict[str, Any]) -> Service:
    listed = one.get("models")
    models = None
    if isinstance(listed, list):
        pairs = (item for item in listed if isinstance(item, dict))
        models = tuple((str(item.get("model", "")), str(item.get("state", ""))) for item in pairs)
    restarts, answer, since = one.get("restarts"), one.get("answer"), one.get("since")
    return Service(
        str(one.get("service", "")),
        str(one.get("unit", "")),
        str(one.get("active") or "unknown"),
        str(one.get("sub") or "unknown"),
        since if isinstance(since, str) else None,
        restarts if isinstance(restarts, int) else None,
        answer if isinstance(answer, int) else None,
        models,
    )


def _show(found: Sequence[HostStatus], told: Modes) -> None:
    if told.paused:
        printer.out(printer.style(f"the rack is paused: {told.paused}; labctl resume ends it", "yellow"))
    rows = [_cells(one, told) for one in found]
    if told.known:
        printer.table(("host", "status", "mode", "services", "models", "notes"), rows)
    else:
        printer.table(("host", "status", "services", "models", "notes"), rows)
    for one in found:
        if one.failure is not None and one.failure.hint:
            printer.out(f"{one.host}: {printer.safe(one.failure.hint)}")


def _cells(one: HostStatus, told: Modes) -> tuple[str, ...]:
    services = ", ".join(f"{service.name} {service.state}" for service in one.services or ())
    models = ", ".join(
        name if state == "ready" else f"{name} {state}"
        for service in one.services or ()
        for name, state in service.models or ()
    )
    mode = (told.of(one.host) or "-",) if told.known else ()
    notes = "; ".join((*_notes(one), *told.remarks(one.host)))
    return one.host, one.status, *mode, services or "-", models or "-", notes


def _notes(one: HostStatus) -> Iterator[str]:
    if one.failure is not None:
        yield one.failure.reason
    if one.missing:
        yield f"missing: {', '.join(one.missing)}"
    for service in one.services or ():
        if service.restarts:
            yield f"{service.name} was restarted {service.restarts} times"
        if service.answer == _NEEDS_A_KEY:
            yield f"{service.name} wants a key, so what it has loaded is not known"
    yield from one.notes
    if one.forced is not None:
        who, when = one.forced.get("who", "somebody"), str(one.forced.get("when", "unknown"))[:16]
        yield f'forced by {who} at {when}: "{one.forced.get("words", "")}"'


def _json(one: HostStatus) -> dict[str, Any]:
    services = None
    if one.services is not None:
        services = [
            {
                "service": service.name,
                "unit": service.unit,
                "state": service.state,
                "sub": service.sub,
                "since": service.since,
                "restarts": service.restarts,
                "answer": service.answer,
                "models": None
                if service.models is None
                else [{"model": name, "state": state} for name, state in service.models],
            }
            for service in one.services
        ]
    failure = one.failure
    return {
        "host": one.host,
        "status": one.status,
        "failure": None
        if failure is None
        else {"code": failure.code, "reason": failure.reason, "hint": failure.hint},
        "services": services,
        "missing": list(one.missing),
        "forced": one.forced,
        "notes": list(one.notes),
    }
