"""The signals of a host: all that its configuration does not switch off.

What several of them read (connections, processes) is read once for all, at each look anew.
"""

from __future__ import annotations

from ..config import Settings
from ..telemetry import Meter
from .board import Board
from .engines import ASKED, Engines
from .gpu import Gpu
from .people import Console, Inhibitors, Sessions
from .processes import Processes
from .sockets import Sockets
from .terms import Host, Signal, Unreadable, Verdict
from .timers import Timers
from .wishes import Checks, Holds
from .work import Downloads, Load, Mounts, Network, Packages


class Configured(Signal):
    """The configuration is what labctl wrote; if not, nobody knows what to look at."""

    name = "settings"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def look(self) -> Verdict:
        """Return quiet, unless the configuration is there and cannot be believed."""
        if self._settings.trouble:
            raise Unreadable(self._settings.trouble)
        return Verdict(
            False, "as labctl wrote them" if self._settings.written else "none are here: all signals"
        )


def every(settings: Settings, host: Host, meter: Meter | None = None) -> Board:
    """Return the signals of this host, those that cost least first, to be looked at.

    ``meter`` is told what the cards draw that are asked anyway.
    """
    wanted = settings.signals
    sockets, running = Sockets(host.root), Processes(host.root)
    # Engines that say themselves what they do; of others a compute context is all that is known.
    speaking = [engine.unit for engine in settings.engines if engine.kind in ASKED]
    found: list[tuple[bool, Signal]] = [
        (True, Configured(settings)),
        (wanted.holds, Holds(host)),
        (wanted.sessions, Sessions(host, sockets, running, settings.ssh_ports)),
        (wanted.console, Console(host)),
        (wanted.inhibitors, Inhibitors(host)),
        (wanted.packages, Packages(host, running)),
        (wanted.downloads, Downloads(host, running)),
        (wanted.mounts, Mounts(host, sockets)),
        (wanted.load, Load(host, wanted.load_percent)),
        (wanted.network, Network(host, wanted.network_kb_s)),
        (wanted.timers, Timers(host, wanted.timers_within_s, wanted.timers_ignored)),
        (wanted.engines, Engines(host, settings.engines, sockets)),
        (wanted.gpu, Gpu(host, wanted.gpu_percent, wanted.gpu_idle_programs, speaking, meter)),
        (wanted.checks, Checks(host, wanted.checks_dir)),
    ]

    def begin() -> None:
        sockets.forget()
        running.forget()

    return Board([signal for switched_on, signal in found if switched_on], begin)
