"""``labctl wake`` and ``labctl suspend``: wish hosts awake or asleep, and see it come true.

Both say what they want to the controller, which decides; neither switches anything by itself. Only ``wake
--direct`` goes around it. Whoever stops waiting (Ctrl-C, --timeout) leaves the wish as it is, and is told.

With ``--json`` each change is one object in a line, as docs/control-api.md has them, and the last one is
``{"done": true, "hosts": {HOST: {"ok", "mode", "because"}}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from labctl import wiring
from labctl.cli import asking, printer, spans
from labctl.cli.asking import Aim
from labctl.cli.wake_view import View, show_end
from labctl.domain.problem import ExitCode, LabctlError

_WAKE_HELP = """\b
Examples:
  labctl wake gpu-box                  wait until it serves, and see how it comes up
  labctl wake gpu-box nas --no-wait    wish it and go
  labctl wake gpu --timeout 5m --json  every host of a group, as lines of JSON
  labctl wake gpu-box --direct         from here, where no controller can be reached
\b
Exit codes:
  0  every host is awake (with --no-wait: every wish was taken)
  1  no host came up
  2  bad input, or the controller refuses
  3  the controller cannot be reached
  4  some hosts came up, others did not
  130  interrupted; the wishes stay
"""
_SUSPEND_HELP = """\b
Examples:
  labctl suspend gpu-box               now, unless something holds it awake
  labctl suspend gpu-box --when-idle   as soon as nothing holds it awake any more
  labctl suspend gpu-box --force --why "the fan is loose"
\b
Exit codes:
  0  every host sleeps (with --no-wait and --when-idle: every wish was taken)
  1  no host went to sleep; what holds each is said
  2  bad input, or the controller refuses
  3  the controller cannot be reached
  4  some hosts sleep, others do not
  130  interrupted; the wishes stay
"""

_wait_option = click.option("--wait/--no-wait", default=None, help="Wait until it came true (the default).")
_timeout_option = click.option(
    "--timeout",
    metavar="TIME",
    callback=spans.of_option,
    default="10m",
    show_default=True,
    help="Wait no longer than this.",
)


@click.command(short_help="Wake hosts, and see them come up.", epilog=_WAKE_HELP)
@asking.hosts_argument(required=True)
@_wait_option
@_timeout_option
@click.option("--direct", is_flag=True, help="Send from here and wait for the host's agent; no controller.")
@click.option("--why", metavar="WORDS", default="", help="Why; kept in the log of the host.")
@asking.inventory_option
@asking.lines_option
def wake(hosts: tuple[str, ...], inventory: str | None, **given: Any) -> int:
    """Wake hosts, and show their state and its reason until they serve.

    HOST is a host or group of the rack. The controller decides when: a host that it depends on comes first,
    and watts must be left. A host counts as awake when its resume gate has passed: cards, driver, engines. A
    rack without a controller is woken from here, as with --direct.
    """
    aim = asking.aim(inventory, hosts)
    wait, as_json = given["wait"] is not False, given["as_json"]
    from_here = given["direct"] or not aim.has_controller
    with View(aim.hosts, wiring.clock().monotonic, as_json=as_json) as view:
        if from_here:
            ends = _directly(aim, view, wait=wait, timeout_s=given["timeout"])
        else:
            fields = {"why": given["why"], "wait": wait, "timeout_s": given["timeout"]}
            try:
                ends = _wish("wake", aim, view, fields)
            except LabctlError as error:
                raise _with_a_way_out(error, aim) from None
    return _tell(ends, view, waited=wait, goes_on=not from_here, as_json=as_json)


@click.command(short_help="Put hosts to sleep, unless something holds them.", epilog=_SUSPEND_HELP)
@asking.hosts_argument(required=True)
@click.option("--when-idle", is_flag=True, help="Leave the wish until nothing is against it; do not wait.")
@click.option(
    "--force", is_flag=True, help="Although it is in use; needs --why. Requests and holds still win."
)
@click.option("--why", metavar="WORDS", default="", help="Why; kept in the log of the host.")
@_wait_option
@_timeout_option
@asking.inventory_option
@asking.lines_option
def suspend(hosts: tuple[str, ...], inventory: str | None, **given: Any) -> int:
    """Put hosts to sleep, or say what holds them awake.

    HOST is a host or group of the rack. Without options a host that is in use stays awake, and you are told
    what uses it. The host itself has the last word, also with --force: requests that it serves, holds and a
    pause always win.
    """
    if given["force"] and not given["why"].strip():
        raise LabctlError("--force needs --why", hint='such as --force --why "the fan is loose"')
    if given["force"] and given["when_idle"]:
        raise LabctlError("--force and --when-idle exclude each other")
    aim = asking.aim(inventory, hosts)
    wait = given["wait"] if given["wait"] is not None else not given["when_idle"]
    fields = {name: given[name] for name in ("when_idle", "force", "why")}
    with View(aim.hosts, wiring.clock().monotonic, as_json=given["as_json"]) as view:
        ends = _wish("suspend", aim, view, {**fields, "wait": wait, "timeout_s": given["timeout"]})
    return _tell(ends, view, waited=wait, goes_on=True, as_json=given["as_json"])


def _wish(do: str, aim: Aim, view: View, fields: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Wish something, show what becomes of it, and return the end of each host."""
    last: Mapping[str, Any] = {}
    with asking.controller(aim) as controller:
        try:
            for last in controller.ask(do, hosts=list(aim.hosts), **fields):
                if last.get("done") is not True:
                    view.on_news(last)
        except KeyboardInterrupt:
            _say_it_stays(aim)
            raise
    return asking.ends_of(last, aim.hosts)


def _directly(aim: Aim, view: View, *, wait: bool, timeout_s: float) -> dict[str, Mapping[str, Any]]:
    from labctl.cli import direct

    if aim.loaded is None:
        raise LabctlError("--direct needs a rack file", hint="name it with --inventory")
    return direct.wake(aim.loaded, aim.hosts, view, wait=wait, timeout_s=timeout_s)


def _with_a_way_out(error: LabctlError, aim: Aim) -> LabctlError:
    """Return the error of a controller that cannot be reached with the way around it."""
    if error.code is not ExitCode.UNREACHABLE:
        return error
    first = error.problems[0]
    way = f"labctl wake {' '.join(aim.hosts)} --direct wakes without it"
    return LabctlError(first.reason, hint=f"{first.hint}; {way}" if first.hint else way, code=error.code)


def _say_it_stays(aim: Aim) -> None:
    names = asking.listed(aim.hosts)
    printer.err(
        f"no longer waiting: the wish for {names} stays, and the controller goes on; "
        f"to take it back: labctl release {' '.join(aim.hosts)} --all"
    )


def _tell(
    ends: Mapping[str, Mapping[str, Any]], view: View, *, waited: bool, goes_on: bool, as_json: bool
) -> ExitCode:
    if as_json:
        printer.emit_json_line({"done": True, "hosts": ends})
    else:
        for host, end in ends.items():
            show_end(host, end, view.took_s() if waited else None)
    left = [host for host, end in ends.items() if end.get("ok") is None]
    if waited and left and goes_on:
        printer.err(f"the time is over; the controller goes on with {asking.listed(left)}")
    if not waited and not any(end.get("ok") is False for end in ends.values()):
        return ExitCode.OK
    return asking.judge(ends)
