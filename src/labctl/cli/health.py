"""``labctl health``: is the rack well, for people, for monitoring plugins, for Prometheus and for cron.

Its exit codes are those of monitoring plugins, whatever the format: 0 OK, 1 WARN, 2 CRIT, 3 UNKNOWN. What
keeps it from looking at all (a rack file with an error, a misspelt option) is UNKNOWN too: a plugin that
answers 2 for that would call a healthy rack broken.

``--json`` prints the document of ``labctl.domain.health.results`` with one field more, ``level``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from labctl.cli import asking, printer
from labctl.domain.health.terms import Level
from labctl.domain.problem import ExitCode, LabctlError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labctl.domain.health.results import Findings
    from labctl.domain.health.terms import Result

UNKNOWN = ExitCode.UNREACHABLE
"""3, which monitoring plugins call UNKNOWN."""
_DEADLINE_S = 30.0
_TONES = {Level.OK: "green", Level.WARN: "yellow", Level.CRIT: "bold red", Level.UNKNOWN: "yellow"}
_HELP = """\b
Examples:
  labctl health                    what is wrong with the rack, and what to do
  labctl health rig --all          everything that was looked at on one host
  labctl health --nagios           one line and figures, for a monitoring plugin
  labctl health --prometheus /var/lib/prometheus/node-exporter/labctl.prom
  labctl health --cron             silent unless something changed; tells the notifiers
  labctl health --test-notify      send a letter by every notifier
\b
Exit codes:
  0  all is well
  1  something is WARN
  2  something is CRIT
  3  something is UNKNOWN and nothing is worse, or nothing could be looked at, or no letter was taken
"""


class _Plugin(click.Command):
    """A command whose every refusal is UNKNOWN."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line.

        Raises:
            LabctlError: it cannot be read, as UNKNOWN.
        """
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise LabctlError(
                error.format_message(), hint="see: labctl health --help", code=UNKNOWN
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            LabctlError: as it was, as UNKNOWN.
        """
        try:
            return super().invoke(ctx)
        except LabctlError as error:
            raise LabctlError(error.problems, code=UNKNOWN) from error
        except click.UsageError as error:
            raise LabctlError(
                error.format_message(), hint="see: labctl health --help", code=UNKNOWN
            ) from None


def _a_number(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("it is no number of seconds")
    return value


@click.command(cls=_Plugin, short_help="Say whether the rack is well, and what to do.", epilog=_HELP)
@asking.hosts_argument(required=False)
@asking.inventory_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("--nagios", is_flag=True, help="Print what a monitoring plugin prints, with figures.")
@click.option(
    "--prometheus",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write FILE for node_exporter's textfile collector, at once or not at all; - prints it.",
)
@click.option("--all", "everything", is_flag=True, help="Show what is well too.")
@click.option(
    "--cron",
    is_flag=True,
    help="Say nothing unless something changed; note what was told, and tell the notifiers of the rack file.",
)
@click.option("--test-notify", is_flag=True, help="Send a letter by every notifier, and look at nothing.")
@click.option(
    "--deadline",
    metavar="SECONDS",
    type=click.FloatRange(1, 600),
    callback=_a_number,
    default=_DEADLINE_S,
    show_default=True,
    help="How long each host may take to answer.",
)
def health(hosts: tuple[str, ...], inventory: str | None, **asked: Any) -> int:
    """Look at the rack once and say what is wrong, why, and what to do.

    HOST is a host or group of the rack; without any, all are looked at. No host is woken for it, no model is
    loaded, and no request is sent to a model. A host that sleeps on purpose is well, and is not asked.
    """
    from labctl.cli import health_run

    _one_of(hosts, asked)
    desk = health_run.desk(inventory, hosts)
    if asked["test_notify"]:
        return _test(desk.test_notify())
    if asked["cron"]:
        return int(desk.cron(asked["deadline"]))
    found = desk.look(asked["deadline"])
    if asked["prometheus"] is not None:
        health_run.write_exposition(asked["prometheus"], found)
    if asked["as_json"]:
        _as_json(found)
    elif asked["nagios"]:
        from labctl.domain.health.formats import plugin

        printer.out(printer.safe(plugin([one.result for one in found.findings])))
    elif asked["prometheus"] is None:
        _show(found, everything=asked["everything"])
    return int(found.level)


def _one_of(hosts: tuple[str, ...], asked: dict[str, Any]) -> None:
    """Raise ``click.UsageError`` where options contradict each other."""
    given = [name for name in ("as_json", "nagios", "cron", "test_notify") if asked[name]]
    if len(given) > 1:
        words = ["--json" if name == "as_json" else f"--{name.replace('_', '-')}" for name in given]
        raise click.UsageError(f"give only one of {' and '.join(words)}")
    if asked["cron"] and asked["prometheus"] is not None:
        raise click.UsageError("with --cron the file is named in the rack file: Health(textfile=...)")
    if asked["test_notify"] and asked["prometheus"] is not None:
        raise click.UsageError("--test-notify looks at nothing, so there is nothing for --prometheus")
    if asked["prometheus"] == "-" and given:
        raise click.UsageError("with --prometheus - nothing else is printed")
    if hosts and asked["cron"]:
        raise click.UsageError("--cron looks at the whole rack; leave the hosts out")


def _as_json(found: Findings) -> None:
    from labctl.domain.health.results import document_of

    printer.emit_json({**document_of(found), "level": found.level.name})


def _show(found: Findings, *, everything: bool) -> None:
    from labctl.domain.health.formats import by_gravity

    results = by_gravity(one.result for one in found.findings)
    bad = [one for one in results if one.level]
    informs = [one for one in results if not one.level and one.informs]
    shown = results if everything else [*bad, *informs]
    if shown:
        rows = [(_word(one), one.host or "-", one.code, one.subject or "-", one.reason) for one in shown]
        printer.table(("level", "host", "check", "of", "reason"), rows)
    _cures(bad)
    well = len(results) - len(bad)
    last = f"{well} of {len(results)} checks are well" if results else "nothing was looked at"
    printer.out(printer.style(last, _TONES[found.level]))


def _word(one: Result) -> str:
    return "info" if one.informs and not one.level else one.level.name


def _cures(bad: Sequence[Result]) -> None:
    from labctl.domain.health.wording import about

    for one in bad:
        if one.cure:
            printer.out(f"{about(one)}: {printer.safe(one.cure)}")


def _test(failures: dict[str, str]) -> int:
    for name, why in failures.items():
        if not why:
            printer.out(f"{name}: it was taken; see whether it arrived")
    failed = [Problem(f"{name}: {why}") for name, why in failures.items() if why]
    printer.show_problems(failed)
    return UNKNOWN if failed else int(Level.OK)
