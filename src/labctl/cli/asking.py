"""What all commands to the controller share: which hosts are meant, the connection, and how it ends.

On the controller's own host no rack file is needed: the controller knows its hosts. Everywhere else the rack
file says which host the controller runs on, and resolves groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labctl import wiring
from labctl.cli import completion, printer
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.controller.api.client import Controller
    from labctl.inventory import LoadedRack

_F = TypeVar("_F", bound=Callable[..., Any])

inventory_option = click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document a line, as things happen."
)


def hosts_argument(*, required: bool) -> Callable[[_F], _F]:
    """Return the argument HOST..., completed from the rack file."""
    metavar = "HOST..." if required else "[HOST]..."
    return click.argument(
        "hosts",
        metavar=metavar,
        nargs=-1,
        required=required,
        shell_complete=completion.complete_hosts_alone,
    )


@dataclass(frozen=True, slots=True)
class Aim:
    """What a command is about; ``loaded`` is None on a controller's host without a rack file."""

    loaded: LoadedRack | None
    hosts: tuple[str, ...]

    @property
    def has_controller(self) -> bool:
        """Return whether there is a controller to be asked, as far as that can be known from here."""
        if self.loaded is None:
            return wiring.controller_is_here()
        return self.loaded.rack.controller is not None


def aim(inventory: str | None, words: Sequence[str]) -> Aim:
    """Return the hosts that the words name (none: all of them), and the rack if there is one.

    Raises:
        LabctlError: a name fits no host, or there is neither a rack file nor a controller here.
    """
    from labctl.domain import limits
    from labctl.inventory import load_rack

    try:
        rack = wiring.find_inventory(inventory)
    except LabctlError:
        if inventory is None and wiring.controller_is_here():
            return Aim(None, tuple(limits.wanted(words)) if words else ())
        raise
    loaded = load_rack(rack)
    completion.remember(rack, (*loaded.host_data, *loaded.groups))
    return Aim(loaded, limits.select(tuple(loaded.host_data), loaded.groups, words))


def controller(found: Aim) -> Controller:
    """Return a connection to the rack's controller: the one of this machine, else by SSH to its host.

    Without a rack, whichever is on this machine is meant.

    Raises:
        LabctlError: there is none, it cannot be reached, or it lets us not in.
    """
    from labctl.controller.api.client import ControllerError, no_controller

    loaded = found.loaded
    wanted = None if loaded is None else loaded.rack.controller
    refused: ControllerError | None = None
    if wiring.controller_is_here():
        try:
            near = _here()
        except ControllerError as error:
            if wanted is None:
                raise
            refused = error
        else:
            if loaded is None or near.rack == loaded.rack.name:
                return near
            near.close()
    if loaded is None or wanted is None:
        raise no_controller(described=loaded is not None)
    try:
        return _there(loaded, wanted.host)
    except ControllerError:
        if refused is not None and refused.said == "not-allowed":
            raise refused from None
        raise


def _here() -> Controller:
    from labctl.controller.api.client import Controller, silent

    try:
        return Controller(wiring.conversation_here(), _who())
    except OSError as error:
        place = wiring.controller_socket()
        raise silent(f"{place}: {error.strerror or error}", "systemctl status labctl-controller") from None


def _there(loaded: LoadedRack, host: str) -> Controller:
    from labctl.controller.api import PROGRAM
    from labctl.controller.api.client import Controller, ControllerError, silent
    from labctl.domain.failures import HostError

    try:
        argv = (*PROGRAM, "controller", "connect")
        conversation = wiring.talker().talk(host, loaded.host_data[host], argv, root=True)
        return Controller(conversation, _who())
    except HostError as error:
        raise silent(f"{host}: {error.failure.reason}", error.failure.hint or _set_up(host)) from None
    except ControllerError as error:
        first = error.problems[0]
        if f"{PROGRAM[0]}: command not found" in first.reason:
            raise ControllerError(
                error.said, f"there is no controller on {host} yet", _set_up(host)
            ) from None
        raise ControllerError(error.said, first.reason, first.hint or _set_up(host)) from None


def _who() -> str:
    # Which process it was helps in a journal, and nobody who reads a hold.
    return wiring.who().partition(" pid ")[0]


def _set_up(host: str) -> str:
    return f"is it set up there? labctl apply --limit {host} --only controller"


def judge(ends: Mapping[str, Mapping[str, Any]]) -> ExitCode:
    """Return the exit code for what became of each host: ``ok`` true, false, or neither."""
    well = [one.get("ok") is True for one in ends.values()]
    if all(well):
        return ExitCode.OK
    return ExitCode.PARTIAL if any(well) else ExitCode.HOST_FAILED


def ends_of(last: Mapping[str, Any], wanted: Iterable[str] = ()) -> dict[str, Mapping[str, Any]]:
    """Return what became of each host by a last line; what a stranger says is believed as far as it fits.

    A host that was ``wanted`` and of which nothing is said has not come to what was asked for.
    """
    hosts = last.get("hosts")
    said = hosts.items() if isinstance(hosts, Mapping) else ()
    ends = {str(name): one for name, one in said if isinstance(one, Mapping)}
    silent = {"ok": False, "mode": "unknown", "because": "the controller does not say what became of it"}
    return ends | {host: silent for host in wanted if host not in ends}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; nothing where it is none."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """Return the texts of a list, each in one line; nothing where it is none."""
    return [text(one) for one in value] if isinstance(value, list) else []


def named(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return a path that somebody gave; click's callback.

    Raises:
        click.BadParameter: it is empty, as an unset variable of a script is.
    """
    if value == "":
        raise click.BadParameter("it is empty")
    return value


def text(value: Any) -> str:
    """Return what was said in one line that can be shown."""
    return " ".join(printer.safe(str(value)).split()) if value not in (None, "") else ""


def number(value: Any) -> float | None:
    """Return a number that was said, or None."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if fits else None


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
