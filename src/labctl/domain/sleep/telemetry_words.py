"""What a line of the watch says under ``telemetry``, read without ever refusing the line for it.

A report decides whether a host may sleep; what it draws only feeds numbers that people look at. So a value
that is odd costs that value, and a ``telemetry`` that is none at all is None.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..health.told import LIST_MAX, Told, plain
from ..telemetry import EngineNow, GpuNow, Telemetry


def telemetry_of(value: object) -> Telemetry | None:
    """Return what a host draws and does, None where it does not tell."""
    told = Told(value)
    wall = told.number("wall")
    if wall is None:
        return None
    return Telemetry(
        wall=wall,
        gpus=tuple(_gpu(one) for one in told.rows("gpus")),
        rapl_uj=_counts(told.inner("rapl_uj")),
        rapl_max_uj=_counts(told.inner("rapl_max_uj")),
        engines=tuple(_engine(one) for one in told.rows("engines")),
    )


def _gpu(one: Told) -> GpuNow:
    return GpuNow(
        uuid=one.text("uuid"),
        pci=one.text("pci"),
        name=one.text("name"),
        asleep=one.flag("asleep") is True,
        power_w=one.number("power_w"),
        energy_mj=one.whole("energy_mj"),
        cap_w=one.number("cap_w"),
        busy_percent=one.whole("busy_percent"),
        temperature_c=one.number("temperature_c"),
        vram_mib=one.whole("vram_mib"),
        vram_used_mib=one.whole("vram_used_mib"),
    )


def _engine(one: Told) -> EngineNow:
    return EngineNow(
        service=one.text("service"),
        kind=one.text("kind"),
        active=one.flag("active") is True,
        models=one.words("models"),
        running=one.whole("running"),
        waiting=one.whole("waiting"),
        tokens=one.number("tokens"),
    )


def _counts(told: Told) -> Mapping[str, int]:
    names = list(told.fields)[:LIST_MAX]
    return {plain(name): count for name in names if (count := told.whole(name)) is not None}
