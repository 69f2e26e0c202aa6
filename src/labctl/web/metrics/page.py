"""``Metrics``: one page of numbers from what the controller and the health checks last said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import labctl
from labctl.domain.health.results import Findings
from labctl.domain.problem import LabctlError
from labctl.web.metrics import findings, hosts
from labctl.web.metrics.families import Sheet


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the numbers come from.

    ``status`` asks the controller and returns its answer to ``status`` (docs/control-api.md), or raises
    ``LabctlError``. ``findings`` returns the newest results of the checks, None where there are none.
    """

    status: Callable[[], Mapping[str, Any]]
    findings: Callable[[], Findings | None]


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
        try:
            status = self._sources.status()
        except LabctlError:
            sheet.put("labctl_controller_up", 0.0)
        else:
            hosts.put(sheet, status)
        findings.put(sheet, self._sources.findings())
        yield from sheet.metrics()

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return the page and its content type, in the newest format that ``accept`` (the header) takes."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
