"""``labctl sleep-test``: have a host prove that it sleeps, wakes and works again, before it may do so alone.

The test runs in the controller, so it goes on when nobody watches any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from labctl.cli import asking, completion, printer
from labctl.cli.asking import Aim
from labctl.domain.problem import ExitCode, LabctlError

_HELP = """\b
Examples:
  labctl sleep-test gpu-box            three cycles of sleep, wake and resume gate
  labctl sleep-test gpu-box --cycles 10
  labctl sleep-test gpu-box --stop     end one that runs, after its step
\b
Exit codes:
  0  it proved that it sleeps and wakes
  1  it did not; how it will sleep instead is said
  2  bad input, or the controller refuses
  3  the controller cannot be reached
  130  interrupted; the test goes on
"""


@click.command("sleep-test", short_help="Prove that a host sleeps and wakes.", epilog=_HELP)
@click.argument("host", shell_complete=completion.complete_hosts_alone)
@click.option(
    "--cycles",
    metavar="N",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How often it must sleep and come back.",
)
@click.option("--stop", is_flag=True, help="End the test that runs on it, after the step that it is in.")
@asking.inventory_option
@asking.lines_option
def sleep_test(host: str, *, cycles: int, stop: bool, inventory: str | None, as_json: bool) -> int:
    """Put HOST to sleep and wake it again, several times, and look each time whether everything works.

    A host falls asleep by itself only with a proof for its kernel, driver, network card and way of sleeping;
    a change of any of these asks for a new test. Where sleep does not work, a lighter or another way is
    tried, and what works is said. The host must not be in use.
    """
    aim = asking.aim(inventory, (host,))
    if len(aim.hosts) > 1:
        raise LabctlError(f"{host} is {len(aim.hosts)} hosts", hint="test one after the other")
    last: Mapping[str, Any] = {}
    with asking.controller(aim) as controller:
        try:
            for last in controller.ask("sleep-test", hosts=list(aim.hosts), cycles=cycles, stop=stop):
                if last.get("done") is not True:
                    _show_step(last, as_json=as_json)
        except KeyboardInterrupt:
            _say_it_goes_on(aim)
            raise
    ends = asking.ends_of(last)
    if as_json:
        printer.emit_json_line({"done": True, "hosts": ends})
    else:
        for name, end in ends.items():
            passed = end.get("ok") is True and not stop
            word = printer.style("passed: ", "green") if passed else ""
            printer.out(f"{asking.text(name)}: {word}{asking.text(end.get('because'))}")
    return asking.judge(ends) if ends else ExitCode.HOST_FAILED


def _show_step(step: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        printer.emit_json_line(step)
        return
    if step.get("ok") is not None:
        return  # its words come below
    cycle, of = asking.text(step.get("cycle")), asking.text(step.get("of"))
    where = f" {cycle} of {of}" if step.get("cycle") else ""
    printer.out(f"{asking.text(step.get('host'))}{where}: {asking.text(step.get('because'))}")


def _say_it_goes_on(aim: Aim) -> None:
    (host,) = aim.hosts
    printer.err(f"the test of {host} goes on in the controller; to end it: labctl sleep-test {host} --stop")
