"""What supplies and circuits bear, as the web page shows it (see ``domain.web_table``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from labctl.domain.web_table import Meter, drawn
from labctl.web.metrics.families import Sheet
from labctl.web.metrics.reading import items, text


def put(sheet: Sheet, meters: Iterable[Meter], status: Mapping[str, Any]) -> None:
    """Put every meter on the page, by the controller's answer to ``status``."""
    hosts = {text(one.get("host")): one for one in items(status.get("hosts"))}
    for meter in meters:
        found, said = drawn(meter, hosts), {"kind": meter.kind, "meter": meter.title}
        sheet.put("labctl_meter_watts", found.watts, **said)
        sheet.put("labctl_meter_declared_watts", found.declared_w, **said)
        sheet.put("labctl_meter_limit_watts", meter.limit_w, **said)
        sheet.put("labctl_meter_silent_hosts", float(len(found.silent)), **said)
