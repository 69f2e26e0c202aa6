"""Power caps: what the inventory allows each card holds over reboots, driver reloads and sleep.

The declared caps lie on the host, where one unit applies them by UUID, PCI address or model whenever they
could be gone, and reads them back. A card that is missing does not keep the others from theirs. A host whose
cards left the inventory loses unit and files; its cards keep their limits until the next boot.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host
from labctl.ops import caps, files, leftovers, systemd
from labctl.render import agent_bundle
from labctl.render import caps as texts


@deploy("Power caps")
def power() -> None:
    """Have every card of the host at its cap, now and later."""
    spec: Host = host.data.spec
    if texts.has_cards(spec):
        hold(spec)
    else:
        leftovers.units(name="unit that applies caps", pattern=texts.UNIT_PATH, keep=())
        files.absent_own(name="caps when a driver comes", path=texts.RULES)
        caps.forgotten(name="declared caps", path=texts.DECLARED)


def hold(spec: Host) -> None:
    """Put the declared caps and what applies them in place, and see that they are applied."""
    content = texts.declared(spec)
    files.directory(name="folder", path=str(Path(texts.DECLARED).parent))
    files.put(name="declared caps", dest=texts.DECLARED, content=content)
    systemd.unit(name="unit that applies caps", unit=texts.UNIT, content=texts.unit(), running=None)
    files.put(name="caps when a driver comes", dest=texts.RULES, content=texts.udev_rules())
    caps.applied(
        name="every card at its cap",
        path=texts.DECLARED,
        content=content,
        unit=texts.UNIT,
        agent=agent_bundle.PATH,
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    power()
