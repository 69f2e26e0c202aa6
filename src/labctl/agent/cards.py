"""Find the cards of a host whose power can be capped, and set caps and clocks on them.

Every card is asked and set on its own, in a process that can be left behind, so that one that hangs does not
stop the others. What was set is believed only when a later look, as another client of the driver, finds it: a
driver without persistence mode forgets everything when its last client goes, and says nothing.

NVIDIA's power limit is set by the first version of the call: in the binding, the second one drops the answer
of the driver and always succeeds. AMD's is a file of the card's own sensors, which are found anew each time,
since their numbers change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..domain.capping import RESET, Card, Change
from ..domain.pci import address
from . import amd, nvml
from .host import number
from .sections import HANG, Finding, Findings, More, gather

DEADLINE_S = 25.0
_MICRO = 1_000_000


class Seen(NamedTuple):
    """A card that answers; ``ref`` finds it again, ``persistence`` is None where there is no such mode."""

    card: Card
    ref: str
    persistence: bool | None = None


class Silent(NamedTuple):
    """A card that does not answer, or cannot be asked without waking it (``code`` "asleep")."""

    vendor: str
    pci: str | None
    code: str
    what: str


class Survey(NamedTuple):
    """All cards of a host. ``blind`` names makers whose driver does not work though there are cards."""

    seen: tuple[Seen, ...]
    silent: tuple[Silent, ...]
    blind: Mapping[str, Finding]
    bus: tuple[str, ...]


def survey(root: Path, *, wake: bool) -> Survey:
    """Look at all cards.

    Args:
        root: where the host's file system begins.
        wake: whether cards in runtime suspend may be woken; else they are ``silent``.
    """
    bus = [card for card in nvml.cards(root) if wake or not card.asleep]
    asleep = [] if wake else [card for card in nvml.cards(root) if card.asleep]
    sections = {
        "nvidia": partial(_nvidia, bus, some_asleep=bool(asleep)),
        "amd": partial(_amd, root, wake=wake),
    }
    values, findings = gather(sections, DEADLINE_S)
    seen, silent = (
        [],
        [Silent("nvidia", address(card.pci), "asleep", "is in runtime suspend") for card in asleep],
    )
    for name, value in values.items():
        vendor, _, ref = name.partition("/")
        if ref and value and not value["code"]:
            seen.append(Seen(Card(vendor, **value["card"]), value["ref"], value["persistence"]))
        elif ref:
            silent.append(_silent(vendor, value, findings.get(name), root / "sys/class/drm" / ref))
    return Survey(
        tuple(seen),
        _placed(silent, seen, [address(card.pci) for card in bus]),
        _blind(findings, bool(bus)),
        tuple(str(address(card.pci)) for card in [*bus, *asleep]),
    )


def _silent(vendor: str, value: Any, finding: Mapping[str, str] | None, path: Path) -> Silent:
    if value:
        return Silent(vendor, value["card"]["pci"], value["code"], value["what"])
    found = finding or {}
    pci = amd.pci_of(path) if vendor == "amd" else None
    return Silent(vendor, pci, found.get("code", HANG), found.get("what", ""))


def _placed(silent: list[Silent], seen: list[Seen], bus: list[str | None]) -> tuple[Silent, ...]:
    """Give a silent NVIDIA card the one address on the bus that no other card has."""
    taken = {one.card.pci for one in seen} | {one.pci for one in silent}
    free = [pci for pci in bus if pci not in taken]
    nameless = [one for one in silent if one.vendor == "nvidia" and one.pci is None]
    if len(free) != len(nameless):
        return tuple(silent)
    places = iter(free)
    return tuple(one._replace(pci=next(places)) if one in nameless else one for one in silent)


def _blind(findings: Findings, on_the_bus: bool) -> dict[str, Finding]:  # noqa: FBT001
    return {
        name: Finding(found["what"], found.get("hint", ""), found.get("code", "bug"))
        for name, found in findings.items()
        if "/" not in name and (name != "nvidia" or on_the_bus or found.get("code") != "driver-not-loaded")
    }


def _nvidia(bus: list[nvml.Card], *, some_asleep: bool) -> Any:
    if not nvml.is_installed():
        if bus:
            raise nvml.missing(bus)
        return {}
    if some_asleep and not bus:
        return {}
    pynvml = nvml.opened()
    if some_asleep:
        finders = [partial(pynvml.nvmlDeviceGetHandleByPciBusId, card.pci.encode()) for card in bus]
    else:
        finders = [partial(pynvml.nvmlDeviceGetHandleByIndex, at) for at in range(nvml.count(pynvml))]
    return More({}, {f"nvidia/{at}": partial(_nvidia_card, pynvml, find) for at, find in enumerate(finders)})


def _nvidia_card(pynvml: Any, find: Callable[[], Any]) -> dict[str, Any]:
    values = nvml.Values(pynvml)
    handle = values.read("card", find)
    limits = limit = default = on = pci = uuid = None
    name = None
    if handle is not None:
        pci = values.read("card", pynvml.nvmlDeviceGetPciInfo, handle)
        uuid = nvml.word(values.read("card", pynvml.nvmlDeviceGetUUID, handle))
        name = nvml.word(values.read("name", pynvml.nvmlDeviceGetName, handle))
        limit = values.read("card", pynvml.nvmlDeviceGetPowerManagementLimit, handle)
        limits = values.read("card", pynvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
        default = values.read("card", pynvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
        on = values.read("persistence", pynvml.nvmlDeviceGetPersistenceMode, handle)
    found = {
        "uuid": uuid,
        "pci": address(nvml.word(pci.busId)) if pci else None,
        "name": name,
        "limit_w": _watts(limit),
        "min_w": _watts(limits[0]) if limits else None,
        "max_w": _watts(limits[1]) if limits else None,
        "default_w": _watts(default),
    }
    what = next(iter(values.errors.values()), "")
    persistence = None if on is None else bool(on)
    return {
        "card": found,
        "ref": uuid or found["pci"],
        "persistence": persistence,
        "code": values.code,
        "what": what,
    }


def _watts(milliwatts: int | None) -> float | None:
    """Return watts to the milliwatt, since a range's end must come back exactly."""
    return None if milliwatts is None else milliwatts / 1000


def _amd(root: Path, *, wake: bool) -> More:
    return More(
        {}, {f"amd/{path.name}": partial(_amd_card, path, root, wake=wake) for path in amd.cards(root)}
    )


def _amd_card(path: Path, root: Path, *, wake: bool) -> dict[str, Any]:
    pci = amd.pci_of(path)
    asleep = not wake and amd.is_asleep(path)
    sensors = path / "none" if asleep else amd.sensors_of(path)
    found = {
        "uuid": amd.unique_id_of(path),
        "pci": pci,
        "name": amd.name_of(path, root),
        "limit_w": amd.watts(number(sensors / "power1_cap")),
        "min_w": amd.watts(number(sensors / "power1_cap_min")),
        "max_w": amd.watts(number(sensors / "power1_cap_max")),
        "default_w": amd.watts(number(sensors / "power1_cap_default")),
        "device": amd.device_of(path),
    }
    code, what = ("asleep", "is in runtime suspend") if asleep else (None, "")
    return {"card": found, "ref": path.name, "persistence": None, "code": code, "what": what}


def change(changes: Mapping[str, tuple[Seen, Change]], root: Path) -> dict[str, dict[str, str]]:
    """Set cards, each on its own, and return what went wrong with which (``what``, ``hint``, ``code``)."""
    sections = {key: partial(_set, seen, wanted, root) for key, (seen, wanted) in changes.items()}
    values, findings = gather(sections, DEADLINE_S)
    return {key: findings.get(key) or values[key] for key in changes if findings.get(key) or values[key]}


def _set(seen: Seen, wanted: Change, root: Path) -> dict[str, str] | None:
    if seen.card.vendor == "nvidia":
        return _set_nvidia(seen, wanted)
    return _set_amd(root / "sys/class/drm" / seen.ref, wanted)


def _set_nvidia(seen: Seen, wanted: Change) -> dict[str, str] | None:
    pynvml = nvml.opened()
    try:
        by = pynvml.nvmlDeviceGetHandleByUUID if seen.card.uuid else pynvml.nvmlDeviceGetHandleByPciBusId
        handle = by(seen.ref.encode())
        if seen.persistence is False:
            _persist(pynvml, handle)
        if wanted.watts is not None:
            pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(wanted.watts * 1000))
        if wanted.clocks_mhz == RESET:
            pynvml.nvmlDeviceResetGpuLockedClocks(handle)
        elif wanted.clocks_mhz is not None:
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, *wanted.clocks_mhz)
    except pynvml.NVMLError as error:
        code = nvml.code_of(error)
        return {"what": f"the driver refuses: {error}", "hint": nvml.hint_of(code), "code": code}
    return None


def _persist(pynvml: Any, handle: Any) -> None:
    """Have the driver keep settings without a client; whether it does, the next look shows."""
    try:
        pynvml.nvmlDeviceSetPersistenceMode(handle, pynvml.NVML_FEATURE_ENABLED)
    except pynvml.NVMLError:
        return


def _set_amd(path: Path, wanted: Change) -> dict[str, str] | None:
    if wanted.watts is None:
        return None
    file = amd.sensors_of(path) / "power1_cap"
    try:
        handle = os.open(file, os.O_WRONLY)
        try:
            os.write(handle, str(round(wanted.watts * _MICRO)).encode())
        finally:
            os.close(handle)
    except OSError as error:
        hint = "look at dmesg" if os.geteuid() == 0 else "ask again by sudo"
        return {"what": f"the driver refuses: {error.strerror}", "hint": hint, "code": "refused"}
    return None
