"""Run the controller in the foreground: everything is put together here, and taken apart in order.

Ready is said when the first tick has ended, whoever leads. The watchdog is fed by ticks, so a loop that hangs
is started anew. Told to stop, the process begins nothing more, waits a while for acts under way (an order
that was half given is then given or not), hands over the lead, and ends. What it could not finish is
an intent without an outcome, which the next start resolves by looking.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from labctl.controller.board import Board
from labctl.controller.doors import Doors, Timekeeper
from labctl.controller.energy import Energy
from labctl.controller.hands import Threads
from labctl.controller.leader import Leader, Pulse
from labctl.controller.ledger import Ledger
from labctl.controller.loop import Loop
from labctl.controller.means import Means
from labctl.controller.observe import Watches
from labctl.controller.service import Service
from labctl.domain.energy.tariff import EnergyPolicy
from labctl.domain.sleep.terms import Policy
from labctl.ports.notify import Notify
from labctl.ports.store import StoreError

PATIENCE_S = 20.0
"""How long acts under way may take when the process is told to stop."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The controller put together; nothing runs yet."""

    means: Means
    loop: Loop
    hands: Threads
    service: Service
    board: Board


def assembled(
    doors: Doors,
    policy: Policy,
    name: str,
    energy: EnergyPolicy = EnergyPolicy(),  # noqa: B008 - frozen
) -> Parts:
    """Return a controller over its ports; ``name`` tells this process from all others, restarts included."""
    board, leader = Board(), Leader(doors, name, policy.tick_s)
    told: list[Loop] = []

    def nudge(host: str) -> None:
        for loop in told:
            loop.nudge(host)

    def done(host: str, error: BaseException | None) -> None:
        for loop in told:
            loop.done(host, error)

    means = Means(
        doors=doors,
        policy=policy,
        leader=leader,
        ledger=Ledger(doors, leader),
        observer=Watches(doors, policy.tick_s, nudge),
        times=Timekeeper(doors.clock, policy.tick_s),
        energy=energy,
    )
    hands = Threads(done)
    loop = Loop(means, hands, board)
    told.append(loop)
    return Parts(means, loop, hands, Service(means, board, hands, nudge), board)


def run(
    parts: Parts,
    *,
    over: threading.Event,
    notify: Notify,
    serve: Callable[[Service], Callable[[], None]],
) -> None:
    """Run until ``over`` is set; returns when nothing of it runs any more.

    Args:
        parts: the controller.
        over: set by whoever wants it to stop (a signal).
        notify: how systemd hears of it.
        serve: opens the control API and returns what closes it.
    """
    pulse = Pulse(parts.means.leader, lambda error: None)
    close = serve(parts.service)
    said: list[bool] = []

    def ticked() -> None:
        status = _status(parts)
        if not said:
            said.append(True)
            notify.ready(status)
        notify.alive(status)

    counting = Energy(parts.means.doors, parts.board, parts.means.policy.tick_s)
    pulse.start()
    counting.start()
    try:
        parts.loop.run(over, ticked)
    finally:
        notify.stopping()
        close()
        counting.stop()
        parts.service.stop()
        parts.hands.wait(PATIENCE_S)
        pulse.stop()
        parts.means.observer.stop()
        parts.means.leader.step_down()
        parts.means.doors.talker.stop()
        parts.means.doors.remote.stop()
        _closed(parts)


def _closed(parts: Parts) -> None:
    try:
        parts.means.doors.store.close()
    except StoreError:
        return  # it is gone, which is what we wanted


def _status(parts: Parts) -> str:
    picture = parts.board.picture()
    if picture.store:
        return f"the store cannot be used: {picture.store}"
    if not picture.leading:
        return f"standing by; {picture.leader or 'nobody'} leads"
    modes: dict[str, int] = {}
    for row in picture.known.hosts.values():
        modes[row.mode] = modes.get(row.mode, 0) + 1
    counted = ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items()))
    return f"leading {len(picture.known.hosts)} hosts: {counted}"
