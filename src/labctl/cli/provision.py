"""``labctl plan`` and ``labctl apply``: say what would change, ask, change it, say what was changed.

Both take the same way; ``plan`` and ``apply --check`` stop after the plan. A worker process is started before
anything else is read, since its start takes as long as reading the rack file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labctl import wiring
from labctl.cli import completion, printer
from labctl.domain.outcome import Outcome, counted, judge
from labctl.domain.problem import ExitCode, LabctlError
from labctl.provision import engine
from labctl.provision.events import Event, HostReport
from labctl.provision.process import Crew
from labctl.provision.summary import changed, document, plan_totals

if TYPE_CHECKING:
    from labctl.cli.awake import Kept
    from labctl.provision.target import Target

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of a plan or an apply, as it was typed."""

    inventory: str | None
    deploys: str | None
    limit: tuple[str, ...]
    only: tuple[str, ...]
    diff: bool
    as_json: bool
    parallel: int
    forks_per_core: int
    serial: bool = False
    fail_percent: int | None = None
    allow_reboot: bool = False
    yes: bool = False
    check: bool = False
    exit_code: bool = False
    force: str | None = None
    wake: bool | None = None


_COMMON: tuple[Callable[[_F], _F], ...] = (
    click.argument("inventory", required=False, type=click.Path()),
    click.argument("deploys", required=False, type=click.Path()),
    click.option(
        "--limit",
        metavar="HOST,GROUP",
        multiple=True,
        shell_complete=completion.complete_hosts,
        help="Only these hosts and groups; gpu* matches as in a shell. May be given again.",
    ),
    click.option(
        "--only",
        metavar="DEPLOY,...",
        multiple=True,
        shell_complete=completion.complete_deploys,
        help="Only these deploys (base,agent), in the order in which site.py calls them.",
    ),
    click.option("--diff/--no-diff", default=True, help="Show what changes inside files (the default)."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    click.option(
        "--wake/--no-wake",
        default=None,
        help="Wake hosts that sleep, or leave them out. [default: apply wakes, plan does not]",
    ),
    click.option(
        "--parallel",
        metavar="N",
        type=click.IntRange(1),
        default=50,
        show_default=True,
        help="Work on at most N hosts at a time.",
    ),
    click.option(
        "--forks-per-core",
        metavar="N",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="At most N worker processes for each processor; one serves about ten hosts.",
    ),
)


def _common(command: _F) -> _F:
    for decorate in reversed(_COMMON):
        command = decorate(command)
    return command


_PLACES = """
INVENTORY is the rack file; without it $LABCTL_INVENTORY, ./inventory/rack.py and
/etc/labctl/inventory/rack.py are looked for. DEPLOYS is a pyinfra deploy file or a directory of them;
without it labctl's own are used.
"""

_EXIT_CODES = """\b
Exit codes:
  0  every host is as wanted            4    some hosts are done, others unreachable or not run
  1  a host failed                      10   changes are pending (plan --exit-code)
  2  bad input; nothing was changed     130  interrupted, or answered with no
  3  no host could be reached
"""


@click.command(short_help="Show what apply would change, and change nothing.", epilog=_EXIT_CODES)
@_common
@click.option("--exit-code", is_flag=True, help="Exit with 10 when something would change.")
def plan(**given: Any) -> int:
    """Show what `labctl apply` would change on each host, with diffs; change nothing."""
    return _provision("plan", Options(**given), execute=False)


@click.command(short_help="Make the hosts what the rack file says.", epilog=_EXIT_CODES)
@_common
@click.option("--yes", "-y", is_flag=True, help="Do not ask; each host goes on as soon as it has its plan.")
@click.option("--check", is_flag=True, help="Change nothing, like `labctl plan`.")
@click.option("--serial", is_flag=True, help="Change one host after the other.")
@click.option(
    "--fail-percent",
    metavar="P",
    type=click.IntRange(0, 100),
    help="Start nothing more when more than P percent of the hosts have failed.",
)
@click.option(
    "--force",
    metavar="WORDS",
    help="Go on although models do not fit; the words are kept on the hosts, and shown by labctl status.",
)
@click.option(
    "--allow-reboot",
    is_flag=True,
    help="Reboot hosts that need it and that nobody uses, one at a time on each circuit.",
)
def apply(**given: Any) -> int:
    """Show the plan, ask, and make the hosts what the rack file says; then say what was changed.

    What is already right is left alone, so running it again after a failure or Ctrl-C goes on where it
    stopped.
    """
    options = Options(**given)
    return _provision("apply", options, execute=not options.check)


for _command in (plan, apply):
    _command.help = f"{cleandoc(_command.help or '')}\n{_PLACES}"


def _provision(command: str, options: Options, *, execute: bool) -> int:
    if options.as_json and execute and not options.yes:
        raise LabctlError("--json cannot ask", hint="add --yes to apply, or use: labctl plan --json")
    clock = wiring.clock()
    started = clock.monotonic()
    logs = wiring.private_dir(wiring.state_home() / "logs")
    with Crew(logs, clock.now(), wiring.worker_argv()) as crew:
        crew.grow(1)
        # Only now: this imports the inventory, while the worker starts on another processor.
        from labctl.provision.target import aim

        rack = wiring.find_inventory(options.inventory)
        target = aim(
            rack,
            options.deploys,
            environment=wiring.environment(),
            limit=options.limit,
            only=options.only,
        )
        completion.remember(rack, target.known_names)
        from labctl.cli.awake import kept_awake

        wake = execute if options.wake is None else options.wake
        with kept_awake(target, execute=execute, wake=wake, quiet=options.as_json) as kept:
            request = _request(options, replace(target, hosts=kept.hosts), execute=execute)
            result = _with_left_out(_run(options, request, target, crew), target, kept)
    outcome = _judge(options, result)
    if options.as_json:
        printer.emit_json(document(command, target, result, outcome))
    else:
        _tell(result, outcome, execute=execute, seconds=clock.monotonic() - started)
    return outcome.code


def _run(options: Options, request: engine.Request, target: Target, crew: Crew) -> engine.Result:
    if not request.hosts:
        return engine.Result({}, interrupted=False, declined=False)
    if any(host.services for host in target.loaded.rack.hosts):
        from labctl.cli.fit_gate import gated

        request = gated(request, target.loaded, force=options.force)
    if options.as_json:
        return engine.run(request, _quiet, _yes, crew=crew, clock=wiring.clock())
    return _watched(request, crew)


def _with_left_out(result: engine.Result, target: Target, kept: Kept) -> engine.Result:
    """Return the result with the hosts that were left out, in the order of the rack."""
    ends = {host: HostReport(host, end=end) for host, end in kept.left_out.items()}
    reports = {**result.reports, **ends}
    return replace(result, reports={host: reports[host] for host in target.hosts if host in reports})


def _request(options: Options, target: Target, *, execute: bool) -> engine.Request:
    return engine.Request(
        rack=target.rack,
        deploys=target.deploys,
        hosts=target.hosts,
        execute=execute,
        owner=wiring.who(),
        cores=wiring.cpu_count(),
        wait_for_go=execute and not options.yes,
        diff=options.diff,
        parallel=options.parallel,
        serial=options.serial,
        fail_percent=options.fail_percent,
        allow_reboot=options.allow_reboot,
        forks_per_core=options.forks_per_core,
    )


def _watched(request: engine.Request, crew: Crew) -> engine.Result:
    from labctl.cli.run_view import RunView

    with RunView(request.hosts, execute=request.execute, diff=request.diff) as view:

        def decide(reports: dict[str, HostReport]) -> bool:
            with view.standing_still():
                agreed = _ask(reports)
            view.declined = not agreed
            return agreed

        return engine.run(request, view.on_event, decide, crew=crew, clock=wiring.clock())


def _ask(reports: dict[str, HostReport]) -> bool:
    totals = plan_totals(reports)
    if not totals.changes:
        return True
    what = f"{counted(totals.changes, 'change')} on {counted(totals.changing_hosts, 'host')}"
    if not printer.can_ask():
        raise LabctlError(
            f"nothing was changed: {what} need a yes, and there is no terminal to ask on",
            hint="read the plan above, then run it again with --yes",
        )
    return printer.confirm(f"Apply {what}?")


def _quiet(event: Event) -> None:
    """Say nothing: everything is in the document at the end."""


def _yes(reports: dict[str, HostReport]) -> bool:
    return True


def _judge(options: Options, result: engine.Result) -> Outcome:
    statuses = {name: report.end.status for name, report in result.reports.items() if report.end is not None}
    if result.declined:
        return Outcome(ExitCode.INTERRUPTED, "nothing was changed")
    outcome = judge(statuses, interrupted=result.interrupted)
    pending = plan_totals(result.reports).changes
    if options.exit_code and outcome.code is ExitCode.OK and pending:
        return Outcome(ExitCode.CHANGES_PENDING, f"{counted(pending, 'change')} pending")
    return outcome


def _tell(result: engine.Result, outcome: Outcome, *, execute: bool, seconds: float) -> None:
    from labctl.cli.run_view import show_results

    well = outcome.code in (ExitCode.OK, ExitCode.CHANGES_PENDING)
    tone = "green" if well else "bold red"
    if result.declined:
        printer.out("Nothing was changed.")
    elif execute:
        show_results(result.reports)
        done = f"Result: {changed(result.reports.values())} in {seconds:.1f} s"
        printer.out(printer.style(f"{done}: {outcome.because}", tone))
    elif not well:
        printer.out(printer.style(outcome.because, tone))
