"""Where the watts come from: circuits feed power supplies, power supplies feed slots and boards.

Only what is declared is checked; a rack without PSUs is valid and simply has no power budget.
"""

from pydantic import Field

from labctl.inventory.fields import GpuRef, Label, Share, Watts
from labctl.inventory.spec import Spec


class Circuit(Spec):
    """One fused circuit of the building; several power supplies can hang on it."""

    name: Label = Field(description="Name by which power supplies refer to the circuit.")
    volts: int = Field(default=230, strict=True, ge=50, le=1000, description="Nominal voltage in volts.")
    amps: float = Field(
        default=16, strict=True, ge=0.1, le=1000, description="Rating of the fuse in amperes."
    )
    continuous_share: Share = Field(
        default=0.8, description="Share of the rating that may be drawn for hours; electricians use 0.8."
    )
    spike_tolerance: float = Field(
        default=3.0,
        strict=True,
        ge=1,
        le=10,
        description="How many times its rating it carries for milliseconds; a UPS may carry no more than 1.",
    )
    upstream: Label | None = Field(
        default=None, description="Circuit that feeds this one, such as the house's behind a UPS or strip."
    )


class Psu(Spec):
    """One power supply unit of a host."""

    name: Label = Field(description="Name of the power supply, unique in its host.")
    watts: Watts = Field(description="Rated output in watts (as printed on the unit).")
    efficiency: Share = Field(
        default=0.9, description="Output divided by input; 0.9 suits an 80 PLUS Gold unit."
    )
    spike_tolerance: float = Field(
        default=1.3,
        strict=True,
        ge=1,
        le=3,
        description="How many times its rating it gives for milliseconds; an ATX 3 unit gives 2.",
    )
    circuit: Label | None = Field(default=None, description="Name of the circuit that it is plugged into.")
    feeds: tuple[GpuRef, ...] = Field(
        default=(),
        description='What hangs on it: slots (or UUIDs or PCI addresses) of GPUs, and "board" for the rest.',
    )
