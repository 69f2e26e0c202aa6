"""What switches hosts on and off: one module for each kind of back-end in ``inventory.wake``.

Each says what it can and cannot tell, asks within a deadline of its own, and fails as a ``PowerError`` in
words without secrets. ``switch_for`` makes the one that the inventory wants; ``cycle`` is the only way in
which labctl itself cuts power.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from labctl.adapters.power.meter import Meter, meter_for
from labctl.inventory.hosts import Host
from labctl.inventory.wake import Ipmi, NoWake, Redfish, SmartPlug, WakeCommand, WakeOnLan, Webhook
from labctl.ports import Said
from labctl.ports.power import Meter as Wattmeter
from labctl.ports.power import Switch

if TYPE_CHECKING:
    from labctl.adapters.power.outlet import Outlet

Kind = NoWake | WakeOnLan | Ipmi | Redfish | SmartPlug | Webhook | WakeCommand


def _silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a back-end must know besides its own fields of the inventory.

    ``folder``: the rack file's. ``address``: the host's. ``meter``: what its watts mean. ``restarts``: it
    sleeps with nothing in its memory, so that power may be cut to start it. ``relay``: runs the agent's verb
    ``relay`` on the host that sends magic packets for us, with its input and a deadline in seconds. ``note``:
    gets what a person should know though it is no error.
    """

    folder: Path
    address: str
    meter: Meter = meter_for(None, cards=True)  # noqa: RUF009 - a frozen value
    restarts: bool = False
    relay: Callable[[bytes, float], Said] | None = None
    note: Callable[[str], None] = _silent


def switch_for(kind: Kind, around: Surroundings) -> Switch:
    """Return the back-end for a host; nothing is asked yet, and only its own library is loaded."""
    match kind:
        case NoWake():
            from labctl.adapters.power.nothing import NoSwitch

            return NoSwitch()
        case WakeOnLan():
            from labctl.adapters.power.wol import WolSwitch

            return WolSwitch(kind, around.address, around.folder, relay=around.relay, note=around.note)
        case Ipmi():
            from labctl.adapters.power.ipmi import IpmiSwitch

            return IpmiSwitch(kind, around.folder)
        case Redfish():
            from labctl.adapters.power.redfish import RedfishSwitch

            return RedfishSwitch(kind, around.folder)
        case SmartPlug():
            return _plug(kind, around)
        case Webhook():
            from labctl.adapters.power.webhook import WebhookSwitch

            return WebhookSwitch(kind, around.folder)
        case WakeCommand():
            from labctl.adapters.power.command import CommandSwitch

            return CommandSwitch(kind)
        case _:
            assert_never(kind)


def meters_of(hosts: Iterable[Host], folder: Path) -> dict[str, Wattmeter]:
    """Return what sees the watts of hosts that hang on a plug; ``folder`` is the rack file's."""
    found: dict[str, Wattmeter] = {}
    for host in hosts:
        for one in (host.power, host.wake):
            if isinstance(one, SmartPlug):
                found.setdefault(host.name, _plug(one, Surroundings(folder, host.address)))
    return found


def _plug(plug: SmartPlug, around: Surroundings) -> Outlet:
    from labctl.adapters.power.outlet import Habits
    from labctl.adapters.power.shelly import Shelly
    from labctl.adapters.power.tasmota import Tasmota

    drivers = {"shelly": Shelly, "tasmota": Tasmota}
    return drivers[plug.driver](plug, around.folder, Habits(around.meter, around.restarts))
