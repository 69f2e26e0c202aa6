"""The table that the web page's process is given: all that it knows of the rack beside what it is told live.

It is made from the rack file by ``labctl.render.web``, and holds no key: of keys it has the hashes, of the
controller the path of its socket.

A *meter* is a power supply or a circuit, as ``domain.budget`` counts it. A ``Share`` is one host's part in
it: what it adds besides its cards, and how much of each watt of a card. So watts that were measured at cards
become watts at the meter, and what no card measures stays what the rack file declares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["psu", "circuit"]


@dataclass(frozen=True, slots=True)
class Key:
    """Who may look, by the SHA-256 of the key in hex; ``acts``: and give orders."""

    name: str
    sha256: str
    acts: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A host's part in a meter: ``base_w`` in W, and a factor for each card by UUID or PCI address.

    ``else_`` is the factor of a card that is not named there.
    """

    host: str
    base_w: float
    cards: Mapping[str, float]
    else_: float


@dataclass(frozen=True, slots=True)
class Meter:
    """A power supply or a circuit, the watts that it bears for hours, and who hangs on it."""

    title: str
    kind: Kind
    limit_w: float
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Everything; ``names`` are those by which it shows itself on loopback without a key.

    Results of checks that are older than ``stale_s`` are called so.
    ``certificate`` and ``private_key`` are names of files beside the table; empty: no TLS.
    """

    format: Literal[1]
    rack: str
    listen: str
    port: int
    controller: str
    results: str
    keys: tuple[Key, ...] = ()
    names: tuple[str, ...] = ()
    certificate: str = ""
    private_key: str = ""
    meters: tuple[Meter, ...] = ()
    stale_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a meter bears now: ``watts``, of which ``declared_w`` nobody measured.

    ``silent`` are hosts that may draw something and do not tell, so that ``watts`` is the least that it is.
    """

    meter: Meter
    watts: float
    declared_w: float
    silent: tuple[str, ...] = field(default=())

    @property
    def part(self) -> float:
        """Return which part of the limit that is."""
        return self.watts / self.meter.limit_w if self.meter.limit_w else 0.0


_DARK = "asleep"


def drawn(meter: Meter, hosts: Mapping[str, Mapping[str, Any]]) -> Drawn:
    """Return what a meter bears, by the controller's status of each host (docs/control-api.md).

    A host that sleeps draws nothing here. One that is awake and does not measure counts with nothing but its
    declared watts, and is named.
    """
    watts = declared = 0.0
    silent = []
    for share in meter.shares:
        status = hosts.get(share.host, {})
        if status.get("mode") == _DARK:
            continue
        cards = _cards(status) if status.get("talking") is True else None
        if cards is None:
            silent.append(share.host)
        watts += share.base_w + sum(
            share.cards.get(uuid, share.cards.get(pci, share.else_)) * power
            for uuid, pci, power in cards or ()
        )
        declared += share.base_w
    return Drawn(meter, watts, declared, tuple(silent))


def _cards(status: Mapping[str, Any]) -> Sequence[tuple[str, str, float]] | None:
    """Return UUID, PCI address and watts of each card that measures; None: some card does not tell."""
    telemetry = status.get("telemetry")
    if not isinstance(telemetry, Mapping) or not isinstance(telemetry.get("gpus"), list):
        return None
    found = []
    for gpu in telemetry["gpus"]:
        if not isinstance(gpu, Mapping):
            return None
        power = gpu.get("power_w")
        if gpu.get("asleep") is True:
            continue
        if isinstance(power, bool) or not isinstance(power, int | float) or not 0 <= power < 1e6:
            return None
        found.append((str(gpu.get("uuid")), str(gpu.get("pci")), float(power)))
    return found
