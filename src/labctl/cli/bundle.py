"""``labctl bundle``: one file for whoever helps, with what there is to know of the rack and no secret in it.

Everything in it is read; nothing is changed, woken or loaded. A host that sleeps by the controller's word is
not asked. What cannot be had is left out with its reason, and so are the journals of a host whose secrets
are not known here: what is not known cannot be taken out.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import __version__, wiring
from labctl.cli import asking, findings, modes, printer
from labctl.cli.asking import Aim
from labctl.cli.modes import Modes
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.bundle.archive import Bundle
    from labctl.bundle.known import Known
    from labctl.fleet.sessions import Answer

_HELP = """\b
Examples:
  labctl bundle                          labctl-bundle-RACK-TIME.tar.gz, here
  labctl bundle gpu-box -o report.tar.gz
  tar xzOf report.tar.gz --wildcards '*/manifest.json' | jq .left_out
\b
Exit codes:
  0  all is in it, but for what sleeps
  2  bad input, or the file cannot be written
  4  something is left out; the manifest says what and why
"""
_DEADLINE_S = 30.0
_LINES = 2000
_EVENTS = 1000
_STATES = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestamp"
_UNITS = ("labctl*", "nvidia-*", "systemd-suspend.service")
_LIBRARIES = (
    "pyinfra",
    "paramiko",
    "pydantic",
    "jinja2",
    "rich",
    "click",
    "sqlalchemy",
    "httpx",
    "cryptography",
)
_ASLEEP = "it sleeps"


@click.command(short_help="Pack what there is to know of the rack, without secrets.", epilog=_HELP)
@asking.hosts_argument(required=False)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(),
    callback=asking.named,
    help="Where to write it; never over a file.",
)
@asking.inventory_option
@asking.json_option
def bundle(hosts: tuple[str, ...], *, output: str | None, inventory: str | None, as_json: bool) -> int:
    """Pack what there is to know of the rack into one file, for whoever helps you.

    That is the rack file's data, versions, what controller, gateway and health checks say, and of each HOST
    (without any, of all) its report, its units and the end of their journals. Known secrets and whatever
    looks like one are taken out; manifest.json says of each file what was, and what is left out and why.
    Names and addresses stay: look into it before you give it away.
    """
    from labctl.bundle import archive, known
    from labctl.domain.redaction import redactor

    aim = asking.aim(inventory, hosts)
    if aim.loaded is None:
        raise LabctlError(
            "there is no rack file here, so secrets are not known", hint="name it with --inventory FILE"
        )
    moment = wiring.clock().now()
    name = f"labctl-bundle-{aim.loaded.rack.name}-{moment:%Y%m%d-%H%M%S}.tar.gz"
    path = Path(output) if output else Path(name)
    if os.path.lexists(path):
        raise LabctlError(f"{path} is there already", hint="name another file: -o FILE")
    if not path.parent.is_dir():
        raise LabctlError(f"there is no folder {path.parent}", hint="name another place: -o FILE")
    secrets = known.known(aim.loaded, wiring.environment())
    packed = archive.Bundle(redactor(secrets.values))
    for reference, why in secrets.unknown:
        packed.leave_out(
            f"secrets/{reference.field}", f"its value is not known here: {reference.place}: {why}"
        )
    _gather(packed, aim, secrets)
    head = {"labctl": __version__, "rack": aim.loaded.rack.name, "at": moment.isoformat()}
    size = packed.write(path, head, moment.timestamp())
    missing = {name: why for name, why in packed.left_out.items() if why != _ASLEEP}
    if as_json:
        printer.emit_json({"file": str(path), "bytes": size, **packed.manifest(head)})
        return ExitCode.PARTIAL if missing else ExitCode.OK
    printer.out(f"{path}: {len(packed.files)} files, {size / 1024:.0f} KiB, mode 0600")
    for name, why in sorted(packed.left_out.items()):
        printer.out(printer.safe(f"left out: {name}: {why}"))
    return ExitCode.PARTIAL if missing else ExitCode.OK


def _gather(packed: Bundle, aim: Aim, secrets: Known) -> None:
    loaded = aim.loaded
    assert loaded is not None
    packed.add_document("versions.json", "labctl, Python and libraries on this machine", _versions())
    packed.add_document("rack.json", "the rack file's data", loaded.rack.model_dump(mode="json"))
    told = _controller(packed, aim)
    kept = findings.kept(aim)
    if kept.found is not None:
        from labctl.domain.health.results import document_of

        packed.add_document("health/results.json", "what labctl health found last", document_of(kept.found))
    elif kept.away:
        packed.leave_out("health/results.json", kept.away)
    _gateway(packed, aim)
    _hosts(packed, aim, told, secrets)


def _versions() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    return {
        "labctl": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": found,
    }


def _controller(packed: Bundle, aim: Aim) -> Modes:
    """Pack what the controller says, and return which hosts sleep by its word."""
    if not aim.has_controller:
        return Modes()
    questions: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("status", "what the controller knows of all hosts", {}),
        ("explain", "why hosts are as they are", {"hosts": list(aim.hosts)}),
        ("events", "the newest lines of the controller's log", {"most": _EVENTS}),
    )
    for verb, what, fields in questions:
        name = f"controller/{verb}.json"
        try:
            with asking.controller(aim) as controller:
                packed.add_document(name, what, list(controller.ask(verb, **fields)))
        except LabctlError as error:
            packed.leave_out(name, error.problems[0].reason)
    return modes.known(aim)


def _gateway(packed: Bundle, aim: Aim) -> None:
    loaded = aim.loaded
    if loaded is None or loaded.rack.gateway is None:
        return
    from labctl.cli.gateway import door_of

    try:
        said = door_of(loaded).status()
    except LabctlError as error:
        packed.leave_out("gateway/status.json", error.problems[0].reason)
        return
    packed.add_document("gateway/status.json", "how the gateway sees the rack", said)


def _hosts(packed: Bundle, aim: Aim, told: Modes, secrets: Known) -> None:
    from labctl.render.agent_bundle import PATH

    awake = []
    for name in aim.hosts:
        if told.sleeps(name):
            packed.leave_out(f"hosts/{name}", _ASLEEP)
        else:
            awake.append(name)
    if awake:
        printer.err(f"asking {asking.listed(awake)}")
    _documents(packed, aim, awake, (PATH, "report"), "report.json", "what its agent reports")
    _documents(packed, aim, awake, (PATH, "health"), "health.json", "what its agent says of its health")
    open_hosts = []
    for name in awake:
        if why := secrets.hides(name):
            packed.leave_out(f"hosts/{name}/journal.txt", why)
        else:
            open_hosts.append(name)
    # A description may hold the whole command line, as that of systemd-run does.
    units = ("systemctl", "--no-pager", "show", f"--property={_STATES}", *_UNITS)
    _texts(packed, aim, awake, units, "units.txt", "labctl's units and those that matter to sleep")
    journal = ("journalctl", "--no-pager", "--output=short-iso", f"--lines={_LINES}")
    named = tuple(f"--unit={unit}" for unit in _UNITS)
    _texts(packed, aim, open_hosts, (*journal, *named), "journal.txt", "the end of these units' journals")


def _documents(
    packed: Bundle, aim: Aim, hosts: list[str], argv: tuple[str, ...], name: str, what: str
) -> None:
    from labctl.bundle.archive import LONGEST_PART
    from labctl.domain.failures import Failure
    from labctl.fleet.reports import document_of

    def add(host: str, answer: Answer) -> None:
        place = f"hosts/{host}/{name}"
        if answer.said is not None and len(answer.said.stdout) > LONGEST_PART:
            packed.leave_out(place, f"it is more than {LONGEST_PART >> 20} MiB")
            return
        document = document_of(answer)
        if isinstance(document, Failure):
            packed.leave_out(place, document.reason)
        else:
            packed.add_document(place, what, document)

    _asked(aim, hosts, argv, add)


def _texts(packed: Bundle, aim: Aim, hosts: list[str], argv: tuple[str, ...], name: str, what: str) -> None:
    def add(host: str, answer: Answer) -> None:
        place = f"hosts/{host}/{name}"
        if answer.failure is not None or answer.said is None:
            packed.leave_out(place, answer.failure.reason if answer.failure else "it said nothing")
        elif answer.said.status:
            packed.leave_out(place, f"{argv[0]}: {answer.said.stderr.strip()[:200] or 'it failed'}")
        else:
            packed.add_text(place, what, answer.said.stdout.decode("utf-8", "replace"))

    _asked(aim, hosts, argv, add)


def _asked(aim: Aim, hosts: list[str], argv: tuple[str, ...], add: Callable[[str, Answer], None]) -> None:
    """Ask hosts as root, all at once; Ctrl-C ends it all, and nothing is written yet."""
    from labctl.fleet import sessions

    loaded = aim.loaded
    assert loaded is not None
    data: Mapping[str, Any] = {name: loaded.host_data[name] for name in hosts}
    question = sessions.Question(argv, root=True)
    for host, answer in sessions.ask(data, question, wiring.remote(), deadline_s=_DEADLINE_S).items():
        if answer.failure is not None and answer.failure.code == sessions.INTERRUPTED:
            raise KeyboardInterrupt
        add(host, answer)
