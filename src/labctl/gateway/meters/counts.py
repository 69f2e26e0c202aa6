"""Count requests, in plain numbers that cost next to nothing."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.domain.gateway.table import Table
from labctl.gateway.meters.lines import Lines
from labctl.gateway.terms import Record


class Counts:
    """The ``Meters`` of a gateway."""

    __slots__ = ()

    def __init__(self, table: Table, lines: Lines) -> None:
        raise NotImplementedError

    def took(self, record: Record, tail: bytes) -> None:
        """Count a request that is over and write its line; ``tail`` is searched for its usage."""
        raise NotImplementedError

    def wake(self, host: str, key: str, seconds: float, *, came: bool) -> None:
        """Count a wake that somebody waited for."""
        raise NotImplementedError

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> bytes:
        """Return everything in Prometheus' text format.

        ``gauges`` are more of them: by name without ``labctl_gateway_``, each value by its labels as they
        are written (``host="gpu-box"``), or by "" where it has none.
        """
        raise NotImplementedError
