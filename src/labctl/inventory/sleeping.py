"""The rack as sleep and wake see it: the rack file's fields, each host on its own, in seconds and watts."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.domain.sleep import terms
from labctl.inventory import profiles
from labctl.inventory.hosts import Host
from labctl.inventory.idle import window_parts
from labctl.inventory.rack import Rack
from labctl.inventory.swapping import WAKE_S
from labctl.inventory.wake import NoWake, WakeOnLan, cuts, meters
from labctl.inventory.watts import power_of

BOOT_S = 180.0
"""What a wake may take where nothing was learnt: a cold boot of a small server."""

_TICK_S = 10.0


def policy_of(rack: Rack) -> terms.Policy:
    """Return what the rack file wants of every host's sleep; a host that nothing can wake never sleeps."""
    tick_s = rack.controller.tick.total_seconds() if rack.controller is not None else _TICK_S
    hosts = {host.name: _host(host) for host in rack.hosts}
    return terms.Policy(hosts, power_of(rack), rack.timezone, tick_s)


def _host(host: Host) -> terms.HostPolicy:
    idle, gate = host.idle, host.gate
    switches = (host.power, host.wake)
    return terms.HostPolicy(
        name=host.name,
        wakeable=not isinstance(host.wake, NoWake),
        sleeps=idle.suspend and "always-on" not in host.roles,
        how=terms.How(idle.how),
        quiet_s=idle.after.total_seconds(),
        min_up_s=idle.min_up.total_seconds(),
        awake=_windows(idle.awake),
        only_in=_windows(idle.only_in),
        depends_on=host.depends_on,
        boot_s=max(BOOT_S, float(WAKE_S[host.wake.kind])),
        can_cut=gate.power_cycle and any(map(cuts, switches)),
        may_reboot=gate.reboot,
        has_meter=any(map(meters, switches)),
        priority=host.priority,
        relay=(host.wake.relay or "") if isinstance(host.wake, WakeOnLan) else "",
        may_reload=gate.reload_driver and any(profiles.of(gpu).vendor == "nvidia" for gpu in host.gpus),
    )


def _windows(texts: Sequence[str]) -> tuple[terms.Window, ...]:
    return tuple(terms.Window(*window_parts(text)) for text in texts)
