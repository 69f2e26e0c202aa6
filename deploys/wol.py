"""Wake-on-LAN: the network card is armed now and at every boot, and says so itself.

systemd's ``.link`` file does it at boot; ``ethtool`` does it now and is asked afterwards. A real card that
cannot listen is an error, because a host that sleeps behind it needs somebody to walk there.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, WakeOnLan
from labctl.ops import files, leftovers
from labctl.ops import wol as cards
from labctl.render import wol as link_files


@deploy("Wake-on-LAN")
def wol() -> None:
    """Arm the card that the inventory names, or take back what an earlier inventory asked for."""
    spec: Host = host.data.spec
    wake = spec.wake if isinstance(spec.wake, WakeOnLan) else None
    leftovers.files(
        name="cards that left the inventory",
        pattern=f"{link_files.DIRECTORY}/{link_files.PREFIX}*.link",
        keep=() if wake is None else (link_files.path(wake),),
    )
    if wake is not None:
        arm(wake)


def arm(wake: WakeOnLan) -> None:
    """Let the card listen, now and after a boot."""
    secureon = None
    if wake.secureon_file is not None:
        # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
        folder = Path(host.data.ssh_known_hosts_file).parent
        secureon = link_files.password((folder / wake.secureon_file.expanduser()).read_text())
    files.put(
        name="armed at every boot",
        dest=link_files.path(wake),
        content=link_files.link(wake, secureon=secureon),
        mode="644" if secureon is None else "600",
        secret=secureon is not None,
    )
    cards.armed(name="armed now", mac=wake.mac, secureon=secureon)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    wol()
