"""``Metrics``: one page of numbers from what the controller and the health checks last said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import labctl
from labctl.domain.health.results import Findings
from labctl.domain.problem import LabctlError
from labctl.domain.web_table import Meter
from labctl.web.metrics import findings, hosts, meters
from labctl.web.metrics.families import Sheet
from labctl.web.metrics.reading import number

OLD_S = 30.0
"""How old an answer may be: whoever shares one with others may wait for a controller that hangs."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the numbers come from.

    ``status`` asks the controller and returns its answer to ``status`` (docs/control-api.md), or raises
    ``LabctlError``. ``findings`` returns the newest results of the checks, None where there are none.
    ``wall`` tells seconds since 1970; ``meters`` are the supplies and circuits of the rack.
    """

    status: Callable[[], Mapping[str, Any]]
    findings: Callable[[], Findings | None]
    wall: Callable[[], float]
    meters: Sequence[Meter] = ()


class Metrics(Collector):
    """A collector for the official client, and the page that it makes."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: registering must not ask the controller."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Ask once, and yield all that is known."""
        sheet = Sheet()
        sheet.put("labctl_build_info", 1.0, version=labctl.__version__)
        status = self._status()
        if status is None:
            sheet.put("labctl_controller_up", 0.0)
        else:
            hosts.put(sheet, status)
            meters.put(sheet, self._sources.meters, status)
        findings.put(sheet, self._sources.findings())
        yield from sheet.metrics()

    def _status(self) -> Mapping[str, Any] | None:
        """Return what the controller says now; None: it says nothing, or it is what it said a while ago."""
        try:
            status = self._sources.status()
        except LabctlError:
            return None
        at = number(status.get("at"))
        return status if at is not None and abs(self._sources.wall() - at) <= OLD_S else None

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return the page and its content type, in the newest format that ``accept`` (the header) takes."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
