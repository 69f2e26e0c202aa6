"""What the health checks found, by the names that ``labctl health --prometheus`` writes them under."""

from __future__ import annotations

import math
from collections import Counter

from labctl.domain.health.results import Findings
from labctl.domain.health.terms import Level
from labctl.web.metrics.families import Sheet

_UNITS = {"W": "_watts", "C": "_celsius", "MiB": "_mebibytes", "s": "_seconds", "%": "_percent"}


def put(sheet: Sheet, found: Findings | None) -> None:
    """Put every result on the page; nothing where no run is known."""
    if found is None:
        return
    for one in found.findings:
        code, host, subject = one.result.key
        sheet.put("labctl_health_level", float(one.result.level), code=code, host=host, subject=subject)
        sheet.put("labctl_health_level_since_seconds", one.since, code=code, host=host, subject=subject)
        for figure in one.result.figures:
            said = {"code": code, "host": host, "subject": subject, "figure": figure.label}
            value = figure.value if math.isfinite(figure.value) else None
            sheet.put(f"labctl_health_figure{_UNITS.get(figure.unit, '')}", value, **said)
    levels = Counter(one.result.level for one in found.findings)
    for level in Level:
        sheet.put("labctl_health_results", float(levels[level]), level=level.name.lower())
    sheet.put("labctl_health_run_seconds", found.at)
