"""The parts of a health document that name cards: the cards themselves, and the engines that hold them."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import Engine, Gpu, Link, Rows
from .told import Told, rows_of

_VENDORS = ("nvidia", "amd")


def gpus_of(vendor: str, section: object) -> tuple[Gpu, ...] | None:
    """Return the cards of one vendor, None where the section is none."""
    if not isinstance(section, dict) or not isinstance(section.get("gpus"), list):
        return None
    return tuple(_gpu(vendor, card) for card in Told(section).rows("gpus"))


def _gpu(vendor: str, card: Told) -> Gpu:
    deep = card.inner("health")
    ecc, errors = card.inner("ecc"), card.inner("errors")
    return Gpu(
        vendor=vendor,
        uuid=card.word("uuid"),
        pci=card.word("pci"),
        name=card.word("name"),
        asleep=card.flag("asleep") is True,
        code=card.text("code"),
        errors={name: errors.text(name) for name in list(errors.fields)[:64]},
        vram_mib=card.whole("vram_mib"),
        vram_used_mib=card.whole("vram_used_mib"),
        busy_percent=card.whole("busy_percent"),
        power_w=card.number("power_w"),
        cap_w=card.number("cap_w"),
        temperature_c=card.number("temperature_c") or deep.number("temperature_c"),
        hotspot_c=deep.number("hotspot_c"),
        memory_c=deep.number("memory_c"),
        slowdown_c=deep.number("slowdown_c"),
        throttle=deep.words("throttle") if isinstance(deep.get("throttle"), list) else None,
        link=_link(card.inner("pcie"), deep),
        ecc_uncorrected=ecc.whole("uncorrected_volatile"),
        ecc_corrected=ecc.whole("corrected_volatile"),
        rows=_rows(deep),
        retired_pending=deep.flag("retired_pending"),
        recovery=deep.word("recovery"),
        device=_pci_ids(vendor, card.text("device_id")),
    )


def _pci_ids(vendor: str, device_id: str) -> str | None:
    """Return a card's PCI ids, ``1002:1586``; cards of AMD alone may have no name and are known by them."""
    return f"1002:{device_id[2:].lower()}" if vendor == "amd" and device_id.startswith("0x") else None


def _link(pcie: Told, deep: Told) -> Link | None:
    """Return the link; the slot's own, where a card has a bridge on it that would hide a bad riser."""
    slot = deep.inner("slot")
    seen = slot if slot.fields else pcie
    if not seen.fields:
        return None
    return Link(
        gen=seen.whole("gen"),
        width=seen.whole("width"),
        gen_max=seen.whole("gen_max"),
        width_max=seen.whole("width_max"),
        replays=deep.whole("replays"),
    )


def _rows(deep: Told) -> Rows | None:
    rows = deep.inner("rows")
    if not rows.fields:
        return None
    return Rows(rows.whole("corrected"), rows.whole("uncorrected"), rows.flag("pending"), rows.flag("failed"))


def engines_of(section: object, whole: Told) -> tuple[Engine, ...] | None:
    """Return the engines, each with the cards on which processes of its unit hold memory.

    Which those are is not known as long as one card that is awake does not tell who holds it.
    """
    if not isinstance(section, list):
        return None
    held = _held(whole)
    return tuple(_engine(row, held) for row in rows_of(section))


def _held(whole: Told) -> dict[str, dict[str, int]] | None:
    """Return by unit and card the MiB that are held, None where one card does not tell."""
    held: dict[str, dict[str, int]] = {}
    for card in (card for vendor in _VENDORS for card in whole.inner(vendor).rows("gpus")):
        if card.flag("asleep"):
            continue  # nobody computes on it
        if not isinstance(card.inner("health").get("processes"), list):
            return None
        for one in card.inner("health").rows("processes"):
            name = card.text("uuid") or card.text("pci")
            on = held.setdefault(one.text("unit"), {})
            on[name] = on.get(name, 0) + (one.whole("mib") or 0)
    return held


def _engine(row: Told, held: dict[str, dict[str, int]] | None) -> Engine:
    on = None if held is None else held.get(row.text("unit"), {})
    return Engine(
        service=row.text("service"),
        unit=row.text("unit"),
        kind=row.text("kind"),
        active=row.text("active"),
        sub=row.text("sub"),
        restarts=row.whole("restarts"),
        answer=row.whole("answer"),
        running=row.whole("running"),
        waiting=row.whole("waiting"),
        tokens=row.number("tokens"),
        pulse=row.number("pulse"),
        models=tuple(_models(row)),
        gpus=None if on is None else tuple(on),
        gpu_mib=None if on is None else sum(on.values()),
        device=row.text("device"),
        config=row.text("config"),
        config_file=row.text("config_file"),
        config_sha256=row.text("config_sha256"),
        silent=row.flag("silent") is True,
        rests=row.flag("rests") is True,
        note=row.text("note"),
    )


def _models(row: Told) -> Iterator[tuple[str, str]]:
    for one in row.rows("models"):
        yield one.text("model"), one.text("state")
