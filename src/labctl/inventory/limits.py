"""From which number on a check warns, where a rack knows better than labctl.

The defaults, with their sources, are ``domain.health.thresholds``; a field left out keeps its own.
"""

from dataclasses import replace
from typing import Any, Self

from pydantic import Field, model_validator

from labctl.domain.health.thresholds import USUAL, Thresholds
from labctl.inventory.fields import Celsius, Duration, MendableError, Percent, Whole
from labctl.inventory.spec import Spec

_IN_ORDER = (
    ("temperature_warn_c", "temperature_crit_c"),
    ("hotspot_warn_c", "hotspot_crit_c"),
    ("memory_warn_c", "memory_crit_c"),
    ("disk_free_crit_percent", "disk_free_warn_percent"),
)
_MIB = 1024


class Limits(Spec):
    """Limits of checks; what is left out is labctl's own (docs/health.md lists it)."""

    temperature_warn_c: Celsius | None = Field(default=None, description="A card's own sensor, warning.")
    temperature_crit_c: Celsius | None = Field(default=None, description="A card's own sensor, critical.")
    hotspot_warn_c: Celsius | None = Field(default=None, description="A card's hottest spot, warning.")
    hotspot_crit_c: Celsius | None = Field(default=None, description="A card's hottest spot, critical.")
    memory_warn_c: Celsius | None = Field(default=None, description="A card's memory, warning.")
    memory_crit_c: Celsius | None = Field(default=None, description="A card's memory, critical.")
    disk_free_warn_percent: Percent | None = Field(default=None, description="Room on a disk, warning.")
    disk_free_crit_percent: Percent | None = Field(default=None, description="Room on a disk, critical.")
    disk_free_warn_gib: Whole | None = Field(
        default=None, description="So many GiB are room enough, however few percent they are."
    )
    power_warn_percent: Percent | None = Field(
        default=None, description="Share of a supply's or circuit's limit that warns."
    )
    certificate_warn: Duration | None = Field(
        default=None, description='How long before its end a certificate or key warns, such as "21d".'
    )
    lists_warn: Duration | None = Field(
        default=None, description="How old the package lists of a host may be."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        found = self.thresholds()
        for lower, higher in _IN_ORDER:
            if getattr(found, lower) > getattr(found, higher):
                raise MendableError(
                    f"`{lower}` is above `{higher}` ({getattr(found, higher):g})", f"give `{higher}` as well"
                )
        return self

    def thresholds(self) -> Thresholds:
        """Return all limits: these, and labctl's own for what is left out."""
        own: dict[str, Any] = {
            name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None
        }
        for name in ("certificate_warn", "lists_warn"):
            if name in own:
                own[f"{name}_s"] = own.pop(name).total_seconds()
        if "disk_free_warn_gib" in own:
            enough = own.pop("disk_free_warn_gib") * _MIB
            own |= {
                "disk_free_warn_mib": enough,
                "disk_free_crit_mib": min(enough, USUAL.disk_free_crit_mib),
            }
        if "certificate_warn_s" in own:
            own["certificate_crit_s"] = min(own["certificate_warn_s"], USUAL.certificate_crit_s)
        return replace(USUAL, **own)
