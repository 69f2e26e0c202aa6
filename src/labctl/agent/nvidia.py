"""NVIDIA GPUs for the report, through NVML.

A value that a card does not have (a cap on a laptop or a GB10, memory of its own on a unified one) is null; a
value that should be there and could not be read is null with its reason under ``errors``. A card that is
lost, blocked or hangs stays in the list, so that nobody takes it for removed, with a ``code`` that says so.
Each card is asked with a deadline, so that one that hangs does not hide the others.

A card in runtime suspend is not asked, because a question would wake it: it is ``asleep``, and the rest null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..domain.pci import address
from . import nvml
from .host import ROOT, text
from .sections import HANG, Finding, More

_NOTHING: dict[str, Any] = {"driver": None, "nvml": None, "cuda": None, "gpus": []}
_ARCHITECTURES = ("Kepler", "Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell")
_KEPLER = 2
_LINKS_AT_MOST = 18
Deeper = Callable[[nvml.Values, Any], Any]
_FIELDS = (
    *("index", "uuid", "name", "pci", "asleep", "code", "vram_mib", "vram_used_mib", "busy_percent"),
    *("temperature_c", "power_w", "cap_w", "cap_default_w", "cap_min_w", "cap_max_w", "cap_enforced_w"),
    *("persistence", "compute_capability", "architecture", "pcie", "clocks", "ecc", "nvlink", "errors"),
)


def nvidia(root: Path = ROOT, deeper: Deeper | None = None) -> dict[str, Any] | More:
    """Return the NVIDIA driver of this host, and its cards as further sections, ``nvidia/0`` and so on.

    Args:
        root: where the host's file system begins.
        deeper: what else to ask a card that answers; it is the card's ``health`` then.

    Raises:
        Finding: there are cards and no working driver.
    """
    cards = nvml.cards(root)
    if not nvml.is_installed():
        if cards:
            raise nvml.missing(cards)
        return dict(_NOTHING)
    if cards and all(card.asleep for card in cards):
        module = text(root / "sys/module/nvidia/version")
        return {**_NOTHING, "driver": module, "gpus": [_asleep(card) for card in cards]}
    try:
        return _driver(cards, deeper)
    except Finding as finding:
        if finding.code == "driver-not-loaded" and not cards:
            return dict(_NOTHING)
        raise


def _driver(cards: list[nvml.Card], deeper: Deeper | None) -> More:
    """Ask the driver which cards there are; those beside sleeping ones are found by address."""
    pynvml = nvml.opened()
    names: list[Any]
    if any(card.asleep for card in cards):
        names = [card.pci.encode() for card in cards if not card.asleep]
        find = pynvml.nvmlDeviceGetHandleByPciBusId
    else:
        names = list(range(nvml.count(pynvml)))
        find = pynvml.nvmlDeviceGetHandleByIndex
    bus = [card.pci for card in cards if not card.asleep]
    head = {**_head(pynvml), "bus": bus, "gpus": [_asleep(card) for card in cards if card.asleep]}
    look = partial(_gpu, pynvml, find=find, deeper=deeper)
    return More(head, {f"nvidia/{at}": partial(look, at, name=name) for at, name in enumerate(names)})


def assembled(found: dict[str, Any], gpus: Mapping[str, Any], findings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section with its cards in it, those that hung included."""
    known = [gpu or _silent(int(name.partition("/")[2]), findings[name]) for name, gpu in gpus.items()]
    _place(known, found.get("bus", []))
    whole = {**found, "gpus": known + found["gpus"]}
    whole.pop("bus", None)
    return whole


def _head(pynvml: Any) -> dict[str, Any]:
    values = nvml.Values(pynvml)
    cuda = values.read("cuda", pynvml.nvmlSystemGetCudaDriverVersion)
    return {
        "driver": nvml.word(values.read("driver", pynvml.nvmlSystemGetDriverVersion)),
        "nvml": nvml.word(values.read("nvml", pynvml.nvmlSystemGetNVMLVersion)),
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
    }


def _empty(index: int | None, **known: Any) -> dict[str, Any]:
    return {**dict.fromkeys(_FIELDS), "index": index, "asleep": False, "errors": {}, **known}


def _asleep(card: nvml.Card) -> dict[str, Any]:
    return _empty(None, pci=address(card.pci), asleep=True)


def _silent(index: int, finding: Mapping[str, str]) -> dict[str, Any]:
    """Return what is known of a card whose process hung or died."""
    return _empty(index, code=finding.get("code", HANG), errors={"card": finding["what"]})


def _place(gpus: list[dict[str, Any]], bus: list[str]) -> None:
    """Give cards that do not say it their PCI address, where only one answer is possible.

    NVML counts cards in the order of their addresses, so equal numbers on both sides pair up.
    """
    places = [address(pci) for pci in bus]
    if len(places) == len(gpus) and all(gpu["pci"] in (None, at) for gpu, at in zip(gpus, places)):  # noqa: B905
        for gpu, at in zip(gpus, places):  # noqa: B905
            gpu["pci"] = at


def _gpu(pynvml: Any, index: int, name: Any, find: Any, deeper: Deeper | None) -> dict[str, Any]:
    values = nvml.Values(pynvml)
    read = values.read
    card = read("card", find, name)
    if card is None:
        return _empty(index, code=values.code, errors=values.errors)
    pci = read("pci", pynvml.nvmlDeviceGetPciInfo, card)
    memory = read("memory", pynvml.nvmlDeviceGetMemoryInfo, card)
    load = read("busy_percent", pynvml.nvmlDeviceGetUtilizationRates, card)
    found = {
        "uuid": nvml.word(read("uuid", pynvml.nvmlDeviceGetUUID, card)),
        "name": nvml.word(read("name", pynvml.nvmlDeviceGetName, card)),
        "pci": address(nvml.word(pci.busId)) if pci else None,
        "vram_mib": memory.total >> 20 if memory else None,
        "vram_used_mib": memory.used >> 20 if memory else None,
        "busy_percent": load.gpu if load else None,
        "temperature_c": read(
            "temperature_c", pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU
        ),
        **_power(values, card),
        **_kind(values, card),
        "pcie": _pcie(values, card),
        "clocks": _clocks(values, card),
        "ecc": _ecc(values, card),
        "nvlink": _nvlink(values, card),
        **({} if deeper is None else {"health": deeper(values, card)}),
    }
    return _empty(index, **found, code=values.code, errors=values.errors)


def _power(values: nvml.Values, card: Any) -> dict[str, Any]:
    read, pynvml = values.read, values.pynvml
    limits = read("cap_range", pynvml.nvmlDeviceGetPowerManagementLimitConstraints, card)
    on = read("persistence", pynvml.nvmlDeviceGetPersistenceMode, card)
    return {
        "power_w": nvml.watts(read("power_w", pynvml.nvmlDeviceGetPowerUsage, card)),
        "cap_w": nvml.watts(read("cap_w", pynvml.nvmlDeviceGetPowerManagementLimit, card)),
        "cap_default_w": nvml.watts(
            read("cap_default_w", pynvml.nvmlDeviceGetPowerManagementDefaultLimit, card)
        ),
        "cap_min_w": nvml.watts(limits[0]) if limits else None,
        "cap_max_w": nvml.watts(limits[1]) if limits else None,
        "cap_enforced_w": nvml.watts(read("cap_enforced_w", pynvml.nvmlDeviceGetEnforcedPowerLimit, card)),
        "persistence": None if on is None else bool(on),
    }


def _kind(values: nvml.Values, card: Any) -> dict[str, Any]:
    version = values.read("compute_capability", values.pynvml.nvmlDeviceGetCudaComputeCapability, card)
    number = values.read("architecture", values.pynvml.nvmlDeviceGetArchitecture, card)
    known = number is not None and 0 <= number - _KEPLER < len(_ARCHITECTURES)
    return {
        "compute_capability": f"{version[0]}.{version[1]}" if version else None,
        "architecture": _ARCHITECTURES[number - _KEPLER] if known else None,
    }


def _pcie(values: nvml.Values, card: Any) -> dict[str, Any] | None:
    """Return the link now and at best; an idle card lowers its generation, never its width."""
    pynvml = values.pynvml
    link = {
        "gen": values.read("pcie", pynvml.nvmlDeviceGetCurrPcieLinkGeneration, card),
        "width": values.read("pcie", pynvml.nvmlDeviceGetCurrPcieLinkWidth, card),
        "gen_max": values.read("pcie", pynvml.nvmlDeviceGetMaxPcieLinkGeneration, card),
        "width_max": values.read("pcie", pynvml.nvmlDeviceGetMaxPcieLinkWidth, card),
    }
    return None if all(value is None for value in link.values()) else link


def _clocks(values: nvml.Values, card: Any) -> dict[str, Any] | None:
    """Return clocks in MHz; a lock cannot be asked for, only seen in them."""
    pynvml = values.pynvml
    graphics, memory = pynvml.NVML_CLOCK_GRAPHICS, pynvml.NVML_CLOCK_MEM
    clocks = {
        "graphics_mhz": values.read("clocks", pynvml.nvmlDeviceGetClockInfo, card, graphics),
        "graphics_max_mhz": values.read("clocks", pynvml.nvmlDeviceGetMaxClockInfo, card, graphics),
        "memory_mhz": values.read("clocks", pynvml.nvmlDeviceGetClockInfo, card, memory),
        "memory_max_mhz": values.read("clocks", pynvml.nvmlDeviceGetMaxClockInfo, card, memory),
    }
    return None if all(value is None for value in clocks.values()) else clocks


def _ecc(values: nvml.Values, card: Any) -> dict[str, Any] | None:
    """Return whether ECC is on, whether it will be after a reboot, and what it has counted."""
    pynvml = values.pynvml
    mode = values.read("ecc", pynvml.nvmlDeviceGetEccMode, card)
    if mode is None:
        return None
    found: dict[str, Any] = {"mode": bool(mode[0]), "pending": bool(mode[1])}
    for kind, error_type in (
        ("corrected", pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ("uncorrected", pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
    ):
        for span, counter in (
            ("volatile", pynvml.NVML_VOLATILE_ECC),
            ("aggregate", pynvml.NVML_AGGREGATE_ECC),
        ):
            found[f"{kind}_{span}"] = (
                values.read("ecc", pynvml.nvmlDeviceGetTotalEccErrors, card, error_type, counter)
                if mode[0]
                else None
            )
    return found


def _nvlink(values: nvml.Values, card: Any) -> dict[str, Any] | None:
    """Return how many links the card has and how many of them are up; null where it has none."""
    pynvml = values.pynvml
    states = []
    for link in range(_LINKS_AT_MOST):
        try:
            states.append(pynvml.nvmlDeviceGetNvLinkState(card, link))
        except pynvml.NVMLError:
            break  # the first that is not there ends the row
    return {"links": len(states), "active": sum(map(bool, states))} if states else None
