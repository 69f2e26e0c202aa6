"""``labctl status --watch``: the same look again and again, until Ctrl-C.

In a terminal it is redrawn in place. In a pipe the whole is printed once, then a line for each host whose
state, reason or findings became other; with ``--json`` one document a line. The controller is asked each time
over one connection. Hosts of which it does not say enough are asked by SSH, and the findings read, only every
half minute: watching shall not become work for anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from labctl import wiring
from labctl.cli import findings, printer, status, status_view
from labctl.cli.asking import Aim, text
from labctl.cli.modes import Modes, Teller
from labctl.cli.status_view import Look
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from labctl.cli.findings import Kept
    from labctl.cli.status_rows import HostStatus

_SELDOM_S = 30.0

Sight = dict[str, tuple[str, ...]]


class _Looker:
    """Looks again; what is dear to know is kept for half a minute."""

    def __init__(self, aim: Aim, teller: Teller, *, ask: bool) -> None:
        self._aim = aim
        self._teller = teller
        self._ask = ask
        self._asked: dict[str, HostStatus] = {}
        self._kept: Kept | None = None
        self._next = float("-inf")

    def look(self) -> Look:
        loaded = self._aim.loaded
        assert loaded is not None
        try:
            told = self._teller.modes()
        except LabctlError as error:
            told = Modes(away=text(error.problems[0].reason))
        clock = wiring.clock()
        if clock.monotonic() >= self._next or self._kept is None:
            self._kept, self._asked = findings.kept(self._aim), {}
            self._next = clock.monotonic() + _SELDOM_S
        fresh = [name for name in self._aim.hosts if name not in self._asked or told.sleeps(name)]
        seen = {one.host: one for one in status.look_at(loaded, fresh, told, ask=self._ask, watched=False)}
        if any(one.status == "interrupted" for one in seen.values()):
            raise KeyboardInterrupt
        self._asked |= {name: one for name, one in seen.items() if one.source != "controller"}
        found = [seen.get(name) or self._asked[name] for name in self._aim.hosts]
        return Look(loaded, told, found, self._kept, clock.now().timestamp())


def pause(seconds: float) -> None:
    """Wait for that long; Ctrl-C ends it at once."""
    threading.Event().wait(seconds)


def watch(
    aim: Aim, every_s: float, *, ask: bool, as_json: bool, document: Callable[[Look], dict[str, Any]]
) -> None:
    """Look every ``every_s`` seconds and show it, until Ctrl-C."""
    with ExitStack() as stack:
        looker = _Looker(aim, stack.enter_context(Teller(aim)), ask=ask)
        show = _shower(stack, as_json=as_json, document=document)
        try:
            while True:
                show(looker.look())
                pause(every_s)
        except KeyboardInterrupt:
            return


def _shower(
    stack: ExitStack, *, as_json: bool, document: Callable[[Look], dict[str, Any]]
) -> Callable[[Look], None]:
    if as_json:
        return lambda look: printer.emit_json_line(document(look))
    if not printer.interactive():
        return _Lines().show
    from rich.live import Live

    console = printer.console()
    live = stack.enter_context(Live(console=console, auto_refresh=False, vertical_overflow="ellipsis"))
    return lambda look: live.update(_with_place(look, console.width), refresh=True)


def _with_place(look: Look, width: int) -> Any:
    from rich.console import Group
    from rich.text import Text

    at = wiring.clock().now().astimezone()
    away = f"  the controller does not answer: {look.told.away}" if look.told.away else ""
    return Group(Text(f"{at:%H:%M:%S}  Ctrl-C ends it{away}", style="dim"), status_view.drawn(look, width))


class _Lines:
    """Tells in a pipe what became other."""

    def __init__(self) -> None:
        self._before: Sight | None = None

    def show(self, look: Look) -> None:
        now = {one.host: _words(one, look) for one in look.hosts}
        if self._before is None:
            status_view.show(look)
        else:
            at = wiring.clock().now().astimezone()
            for host, words in now.items():
                if words != self._before.get(host):
                    printer.out(f"{at:%Y-%m-%d %H:%M:%S}  {host}: {': '.join(filter(None, words))}")
        self._before = now


def _words(one: HostStatus, look: Look) -> tuple[str, ...]:
    """Return what a line of change says of a host; a count of seconds in a reason is no change."""
    row = look.told.rows.get(one.host, {})
    because = text(row.get("because")) or (text(one.failure.reason) if one.failure is not None else "")
    found = [f"{each.result.level.name} {each.result.code}" for each in look.kept.of(one.host) or ()]
    return status_view.state(one, look), because, ", ".join(found)
