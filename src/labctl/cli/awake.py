"""Keep the hosts of a run awake: hold them at the controller, wake those that sleep, or leave them out.

First the hold, then the look: a host that is held does not fall asleep between the two. A host that the
controller does not know yet (it is new in the rack file) is put to sleep by nobody. ``apply`` wakes
what sleeps, since whoever asks for a rack to be made so does not mean half of it; such a host goes back to
sleep by its own policy. ``plan`` only asks, so it leaves sleepers out. Both do the other thing when told to.

Holds end by themselves ``HOLD_S`` after labctl is gone, and are renewed while it works. They are the
controller's part. The host's own part needs no controller: while an apply is logged in it is in use, and
while it changes something its lock is seen by the last look, so the host refuses to sleep. That is why a
controller that cannot be reached is a warning and no more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from labctl import wiring
from labctl.cli import asking, printer
from labctl.cli.asking import Aim, text
from labctl.cli.modes import ASLEEP
from labctl.domain.problem import LabctlError, Problem
from labctl.provision.events import HostEnded

if TYPE_CHECKING:
    from labctl.controller.api.client import Controller
    from labctl.provision.target import Target

HOLD_S = 1800.0
RENEW_S = 600.0
WAKE_S = 600.0
_COMING = frozenset({"waking"})


@dataclass(frozen=True, slots=True)
class Kept:
    """The hosts that a run works on, and the last word on those that it leaves out."""

    hosts: tuple[str, ...]
    left_out: dict[str, HostEnded] = field(default_factory=dict)


@contextmanager
def kept_awake(target: Target, *, execute: bool, wake: bool, quiet: bool) -> Iterator[Kept]:
    """Hold the hosts of a run for as long as it lasts, and say which of them it can work on.

    Args:
        target: the rack, and the hosts that are wanted.
        execute: whether something will be changed; else nothing is held.
        wake: whether hosts that sleep are woken, rather than left out.
        quiet: whether to say nothing of how they wake.
    """
    if target.loaded.rack.controller is None:
        yield Kept(target.hosts)
        return
    holds = _Holds(Aim(target.loaded, target.hosts))
    try:
        try:
            kept = _kept(holds, execute=execute, wake=wake, quiet=quiet)
        except LabctlError as error:
            kept = Kept(target.hosts)
            what = (
                "hosts are not held awake by the controller" if execute else "which hosts sleep is not known"
            )
            reason = f"{what}: {error.problems[0].reason}"
            hint = "each host itself refuses to sleep while labctl works on it" if execute else ""
            printer.show_problems([Problem(reason, hint)], severity="warning")
        yield kept
    finally:
        holds.end()


def _kept(holds: _Holds, *, execute: bool, wake: bool, quiet: bool) -> Kept:
    wished = holds.aim.hosts
    with asking.controller(holds.aim) as controller:
        known = {text(one.get("host")) for one in asking.objects(controller.tell("status").get("hosts"))}
        holds.aim = replace(holds.aim, hosts=tuple(host for host in wished if host in known))
        if not holds.aim.hosts:
            return Kept(wished)
        if execute:
            holds.begin(controller)
        said = controller.tell("status", hosts=list(holds.aim.hosts))
        left_out, wanted = _sorted(holds.aim, said, wake=wake)
        if wanted:
            left_out |= _woken(controller, wanted, quiet=quiet)
    for host, end in left_out.items():
        printer.err(f"{host} is left out: {end.reason} ({end.hint})")
    return Kept(tuple(host for host in wished if host not in left_out), left_out)


def _sorted(aim: Aim, said: Mapping[str, Any], *, wake: bool) -> tuple[dict[str, HostEnded], list[str]]:
    """Return the last word on hosts that are left out, and the hosts that must be woken."""
    rows = {text(one.get("host")): one for one in asking.objects(said.get("hosts"))}
    left_out: dict[str, HostEnded] = {}
    wanted = []
    for host in aim.hosts:
        mode, paused = text(rows.get(host, {}).get("mode")), text(rows.get(host, {}).get("paused"))
        if mode in ASLEEP and paused:
            left_out[host] = _left_out(host, f"it sleeps, and is paused: {paused}", "labctl resume")
        elif mode in ASLEEP and not wake:
            left_out[host] = _left_out(host, "it sleeps", f"labctl wake {host}, or --wake")
        elif wake and mode in ASLEEP | _COMING:
            wanted.append(host)
        elif paused:
            printer.err(f"note: {host} is paused: {paused}")
    return left_out, wanted


def _woken(controller: Controller, hosts: Sequence[str], *, quiet: bool) -> dict[str, HostEnded]:
    """Wake hosts, and return the last word on those that did not come."""
    from labctl.cli.wake_view import View

    last: dict[str, Any] = {}
    with View([] if quiet else hosts, wiring.clock().monotonic, as_json=False) as view:
        for last in controller.ask("wake", hosts=list(hosts), why="labctl works on it", timeout_s=WAKE_S):
            if last.get("done") is not True and not quiet:
                view.on_news(last)
    left_out = {}
    for host, end in asking.ends_of(last, hosts).items():
        if end.get("ok") is not True:
            reason = f"it was not woken: {text(end.get('because')) or text(end.get('mode'))}"
            left_out[host] = _left_out(host, reason, f"labctl explain {host}", status="unreachable")
    return left_out


def _left_out(host: str, reason: str, hint: str, *, status: Any = "not-run") -> HostEnded:
    return HostEnded(host, status, "asleep", reason, hint)


class _Holds:
    """Holds at the controller, renewed by a thread.

    Nothing is said for minutes, and the controller lets go of who says nothing: so each time it is connected
    to anew.
    """

    def __init__(self, aim: Aim) -> None:
        self.aim = aim
        self._held: dict[str, int] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, controller: Controller) -> None:
        """Hold the hosts from now on."""
        self._hold(controller)
        self._thread = threading.Thread(target=self._renew, name="hold hosts", daemon=True)
        self._thread.start()

    def _hold(self, controller: Controller) -> None:
        before = dict(self._held)
        why = "labctl apply works on it"
        said = controller.tell("hold", hosts=list(self.aim.hosts), for_s=HOLD_S, why=why)
        for host, end in asking.ends_of(said).items():
            if isinstance(end.get("hold"), int):
                self._held[host] = end["hold"]
        _release(controller, before)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            with suppress(LabctlError):  # they last long enough for the next try
                with asking.controller(self.aim) as controller:
                    self._hold(controller)

    def end(self) -> None:
        """Let the hosts go; what cannot be said now ends by itself."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._held:
            with suppress(LabctlError), asking.controller(self.aim) as controller:
                _release(controller, self._held)


def _release(controller: Controller, held: Mapping[str, int]) -> None:
    for host, number in held.items():
        controller.tell("release", hosts=[host], hold=number)
