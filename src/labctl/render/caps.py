"""What a host gets so that its power caps hold by themselves: the declared caps, a unit, and a udev rule.

A card's limit is gone after a reboot, a reload of its driver and (so it must be assumed) a suspend. So the
caps are data on the host, and one unit applies them whenever they could be gone: at boot, after each kind of
sleep, when a driver comes, and on every apply that finds a card without its cap. Listed are all cards that a
driver can be asked about, also those without a cap: a card that left is found missing only if it is listed.
"""

from __future__ import annotations

import json

from labctl import render
from labctl.domain import cap_json
from labctl.domain.capping import Declared
from labctl.inventory import Gpu, Host, profiles
from labctl.render.agent_bundle import PATH as AGENT

DECLARED = "/etc/labctl/caps.json"
UNIT = "labctl-caps.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
RULES = "/etc/udev/rules.d/90-labctl-caps.rules"
_VENDORS = ("nvidia", "amd")


def has_cards(host: Host) -> bool:
    """Return whether the inventory gives the host a card that a driver can be asked about."""
    return any(profiles.of(gpu).vendor in _VENDORS for gpu in host.gpus)


def declared(host: Host) -> str:
    """Return the file of declared caps, as the agent reads it."""
    return json.dumps(cap_json.declared_document(cards(host)), indent=1, ensure_ascii=False) + "\n"


def cards(host: Host) -> list[Declared]:
    """Return the cards of a host that a driver can be asked about, as they are declared there.

    A card that nothing tells from another one goes without its slot: on the host it would name any of them.
    The budget counts all of those alike and steps them together, so for that it keeps the name.
    """
    return [card(host, gpu) for gpu in host.gpus if profiles.of(gpu).vendor in _VENDORS]


def card(host: Host, gpu: Gpu) -> Declared:
    """Return a card as it is declared on its host."""
    cap, told_apart = profiles.cap_of(host, gpu), profiles.is_told_apart(host, gpu)
    return Declared(
        model=gpu.model,
        slot=gpu.slot if told_apart else None,
        uuid=gpu.uuid,
        pci=gpu.pci,
        patterns=profiles.of(gpu).patterns,
        cap_w=cap.watts if cap else None,
        reason=cap.reason if cap else None,
        clocks_mhz=gpu.clocks_mhz,
        name=None if told_apart else gpu.slot,
    )


def unit() -> str:
    """Return the unit that applies the caps."""
    return render.text("caps.service.j2", agent=AGENT)


def udev_rules() -> str:
    """Return the udev rules that start the unit when a driver comes."""
    return render.text("caps.rules.j2", unit=UNIT)
