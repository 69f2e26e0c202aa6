"""What the rack file wants of a host and of the rack, as far as it can be checked; see ``render.expected``.

Watts are W, times are wall times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..budget import Rack as Power
from ..capping import Declared
from .thresholds import USUAL, Thresholds


@dataclass(frozen=True, slots=True)
class ExpectedGpu:
    """A declared card.

    ``label`` is what findings and the budget call it; ``declared`` is how a real card is known to be this
    one. ``width`` and ``gen`` are the PCIe link that its slot has, None: the card's best. ``linked``: its
    link's numbers mean something, which they do not where it is built into a processor. ``counted_w`` are its
    watts in the power budget.
    """

    label: str
    uuid: str | None
    model: str
    vendor: str
    cap_w: float | None
    width: int | None = None
    gen: int | None = None
    linked: bool = True
    counted_w: float = 0.0
    declared: Declared = field(default_factory=lambda: Declared(""))


@dataclass(frozen=True, slots=True)
class ExpectedEngine:
    """A service that serves models; ``gpus`` are labels of its cards, empty: it runs on the processor."""

    service: str
    kind: str
    gpus: tuple[str, ...]
    config: str = ""  # the digest that models of llama-swap bear by the rack file, if it has any
    config_sha256: str = ""  # of that configuration's whole text


@dataclass(frozen=True, slots=True)
class Expected:
    """A host as it should be; see ``terms.Case``.

    ``controlled``: the rack has a controller, so somebody can say who sleeps. ``armed``: Wake-on-LAN must be
    armed on it. ``agent`` is the version of the agent that it should have. ``certificates`` are files on it.
    """

    host: str
    gpus: tuple[ExpectedGpu, ...] = ()
    engines: tuple[ExpectedEngine, ...] = ()
    model_mount: str = ""
    sleeps: bool = False
    wakeable: bool = False
    armed: bool = False
    controlled: bool = False
    agent: str = ""
    certificates: tuple[str, ...] = ()
    thresholds: Thresholds = USUAL


@dataclass(frozen=True, slots=True)
class ExpectedRack:
    """What all hosts share.

    Args:
        power: its supplies and circuits, as the budget counts them; a card is called there by its label.
        controlled: it has a controller.
        replace_by: keys and passwords that have a day by which each is to be replaced, by name.
        thresholds: the rack's.
    """

    power: Power = field(default_factory=lambda: Power(()))
    controlled: bool = False
    replace_by: Mapping[str, float] = field(default_factory=dict)
    thresholds: Thresholds = USUAL
