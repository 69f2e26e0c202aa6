"""All metrics of the page, as a table; docs/monitoring.md explains them, and a test compares the two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from labctl.domain.health.wording import one_line

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its whole name as it is scraped, its kind, what it says, and its labels."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    about: str
    labels: tuple[str, ...] = ()


_HOST = ("host",)
_GPU = ("host", "gpu")
_ENGINE = ("host", "service", "kind")
_CHECK = ("code", "host", "subject")
_METER = ("kind", "meter")

FAMILIES: tuple[Family, ...] = (
    Family(
        "labctl_build_info", "gauge", "Always 1; the version of labctl that serves this page.", ("version",)
    ),
    Family("labctl_controller_up", "gauge", "1: the controller answered; 0: nothing is known of hosts."),
    Family("labctl_controller_leading", "gauge", "1: this controller acts; 0: it stands by."),
    Family("labctl_controller_led", "gauge", "1: some controller leads the rack."),
    Family(
        "labctl_controller_tick_age_seconds", "gauge", "How long ago the controller last looked at hosts."
    ),
    Family("labctl_controller_store_usable", "gauge", "0: the store fails, and nothing is put to sleep."),
    Family("labctl_rack_paused", "gauge", "1: a person paused the whole rack."),
    Family(
        "labctl_host_state", "gauge", "1 for the mode that a host is in, 0 for the others.", ("host", "state")
    ),
    Family("labctl_host_state_since_seconds", "gauge", "Since when, in seconds since 1970.", _HOST),
    Family("labctl_host_talking", "gauge", "1: the host's agent reports.", _HOST),
    Family("labctl_host_paused", "gauge", "1: the controller keeps its hands off the host.", _HOST),
    Family("labctl_host_quarantined", "gauge", "1: the host came back broken, and serves nothing.", _HOST),
    Family("labctl_host_leases", "gauge", "Leases of gateways on the host.", _HOST),
    Family("labctl_host_holds", "gauge", "Holds that keep the host awake.", _HOST),
    Family("labctl_host_wishes", "gauge", "Wishes that the host be awake, or asleep.", ("host", "wants")),
    Family("labctl_host_wake_proven", "gauge", "0: the host is to sleep and has no valid wake proof.", _HOST),
    Family("labctl_host_wake_usual_seconds", "gauge", "How long a wake of the host usually takes.", _HOST),
    Family(
        "labctl_host_moves_total",
        "counter",
        "Moves from mode to mode, by what brought them about.",
        ("host", "event"),
    ),
    Family("labctl_host_wake_seconds", "histogram", "From a wake's first packet to its gate passed.", _HOST),
    Family("labctl_host_telemetry_seconds", "gauge", "When the host measured, in seconds since 1970.", _HOST),
    Family("labctl_host_cpu_energy_joules_total", "counter", "Of the processor, by RAPL.", ("host", "zone")),
    Family("labctl_gpu_info", "gauge", "Always 1; what card it is.", ("host", "gpu", "name", "pci")),
    Family("labctl_gpu_asleep", "gauge", "1: the card is in runtime suspend, and was not asked.", _GPU),
    Family("labctl_gpu_power_watts", "gauge", "What the card draws.", _GPU),
    Family("labctl_gpu_power_cap_watts", "gauge", "What the card may draw.", _GPU),
    Family("labctl_gpu_energy_joules_total", "counter", "Since the card's driver was loaded.", _GPU),
    Family("labctl_gpu_busy_ratio", "gauge", "Share of the time in which the card computed.", _GPU),
    Family("labctl_gpu_temperature_celsius", "gauge", "The chip's temperature.", _GPU),
    Family("labctl_gpu_memory_bytes", "gauge", "The card's memory.", _GPU),
    Family("labctl_gpu_memory_used_bytes", "gauge", "How much of it is used.", _GPU),
    Family("labctl_engine_up", "gauge", "1: the engine's unit is active.", _ENGINE),
    Family("labctl_engine_requests_running", "gauge", "Requests that the engine works on.", _ENGINE),
    Family("labctl_engine_requests_waiting", "gauge", "Requests that wait in the engine.", _ENGINE),
    Family("labctl_engine_tokens_total", "counter", "Tokens made since the engine started.", _ENGINE),
    Family(
        "labctl_model_loaded", "gauge", "1: the engine has the model loaded.", ("host", "service", "model")
    ),
    Family("labctl_meter_watts", "gauge", "What a supply or circuit bears, at the least.", _METER),
    Family("labctl_meter_declared_watts", "gauge", "Of that, what nobody measures.", _METER),
    Family("labctl_meter_limit_watts", "gauge", "What it may bear for hours.", _METER),
    Family("labctl_meter_silent_hosts", "gauge", "Hosts on it that are on and do not measure.", _METER),
    Family("labctl_health_level", "gauge", "How a check went: 0 OK, 1 WARN, 2 CRIT, 3 UNKNOWN.", _CHECK),
    Family(
        "labctl_health_level_since_seconds",
        "gauge",
        "Since when that is so, in seconds since 1970.",
        _CHECK,
    ),
    Family("labctl_health_results", "gauge", "How many results have a level.", ("level",)),
    *(
        Family(f"labctl_health_figure{unit}", "gauge", "What a check measured.", (*_CHECK, "figure"))
        for unit in ("", "_celsius", "_mebibytes", "_percent", "_seconds", "_watts")
    ),
    Family("labctl_health_run_seconds", "gauge", "When the last whole run ended, in seconds since 1970."),
)

NAMES = {family.name: family for family in FAMILIES}


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram's values: ``counts`` has one for each of ``bounds`` and one above, none added up."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Return them as Prometheus counts: each with all below it."""
        whole, found = 0, []
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            whole += count
            found.append(("+Inf" if math.isinf(bound) else repr(float(bound)), float(whole)))
        return found


class Sheet:
    """A page that is being filled: samples by the names of ``FAMILIES``."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[tuple[str, ...], float | Spread]] = {}

    def put(self, name: str, value: float | Spread | None, /, **labels: str) -> None:
        """Put a sample; of two with the same labels the last counts. None is not known, and left out.

        Raises:
            KeyError: the table has no such name, or it has other labels.
        """
        if value is None:
            return
        said = tuple(one_line(labels[label], _LONGEST) for label in NAMES[name].labels)
        if len(said) != len(labels):
            raise KeyError(f"{name} has the labels {NAMES[name].labels}")
        self._rows.setdefault(name, {})[said] = value

    def metrics(self) -> Iterator[Metric]:
        """Yield what was put, in the order of the table."""
        for family in FAMILIES:
            if rows := self._rows.get(family.name):
                yield _metric(family, rows)


def _metric(family: Family, rows: Mapping[tuple[str, ...], float | Spread]) -> Metric:
    if family.kind == "histogram":
        spreads = HistogramMetricFamily(family.name, family.about, labels=family.labels)
        for said, value in rows.items():
            if isinstance(value, Spread):
                spreads.add_metric(said, value.buckets, value.sum)
        return spreads
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    plain: CounterMetricFamily | GaugeMetricFamily = kind(family.name, family.about, labels=family.labels)
    for said, value in rows.items():
        if not isinstance(value, Spread):
            plain.add_metric(said, value)
    return plain
