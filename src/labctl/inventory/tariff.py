"""What electricity costs, for `labctl energy`; nothing else rests on it."""

from typing import Annotated

from pydantic import Field

from labctl.domain.energy import tariff
from labctl.domain.sleep.terms import Window
from labctl.inventory.fields import Text
from labctl.inventory.idle import TimeWindow, window_parts
from labctl.inventory.spec import Spec

PerKwh = Annotated[float, Field(strict=True, ge=0, le=1e6)]


class TariffWindow(Spec):
    """What a kWh costs at some times of the week."""

    when: tuple[TimeWindow, ...] = Field(
        min_length=1, description='When, in the rack\'s time zone: "mon-fri 17-20", "sat,sun 0-24", "22-6".'
    )
    per_kwh: PerKwh = Field(description="Price of a kWh then.")


class Tariff(Spec):
    """What a kWh costs."""

    per_kwh: PerKwh = Field(description="Price of a kWh, at all times that no window names.")
    currency: Text = Field(default="EUR", description="Name of the currency, as it is shown.")
    windows: tuple[TariffWindow, ...] = Field(
        default=(), description="Times with a price of their own; the first that fits counts."
    )


def energy_policy(zone: str, declared: Tariff | None) -> tariff.EnergyPolicy:
    """Return what the domain needs of a rack file to say what energy cost."""
    if declared is None:
        return tariff.EnergyPolicy(zone)
    prices = tuple(
        tariff.Price(tuple(Window(*window_parts(text)) for text in one.when), one.per_kwh)
        for one in declared.windows
    )
    return tariff.EnergyPolicy(zone, tariff.Tariff(declared.per_kwh, declared.currency, prices))
