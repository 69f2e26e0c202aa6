"""A dashboard for Grafana: the rack at a glance, watts, sleep and wake, requests.

Panels are a table; places and identities follow from their order, so the same rack is always the same
document. It names no data source but the one that is chosen at its top, and nothing of any rack.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labctl.domain.sleep.lifecycle import Mode

UID = "labctl-rack"
_WIDE, _HIGH = 24, 8
_COLOURS = {
    Mode.UNKNOWN: "dark-orange",
    Mode.READY: "green",
    Mode.DRAINING: "yellow",
    Mode.SUSPENDING: "blue",
    Mode.ASLEEP: "dark-blue",
    Mode.WAKING: "light-yellow",
    Mode.VERIFYING: "light-green",
    Mode.FAILED: "red",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: its kind and unit are Grafana's; ``queries`` are (expression, legend); ``width`` of 24."""

    title: str
    kind: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 12
    about: str = ""


_RACK = 'rack=~"$rack"'
_HOST = 'rack=~"$rack", host=~"$host"'
# The mode as a number, by its place: of all modes one is 1.
_EACH = " or ".join(
    f'{place} * labctl_host_state{{state="{mode}", {_HOST}}}' for place, mode in enumerate(Mode)
)
_STATE = f"sum by (rack, host) ({_EACH})"

PANELS = (
    Panel("Hosts awake", "stat", "none", ((f"sum(labctl:host_awake{{{_RACK}}})", "awake"),), 4),
    Panel("Cards draw", "stat", "watt", ((f"sum(labctl:rack_gpu_power_watts{{{_RACK}}})", "W"),), 4),
    Panel(
        "Findings",
        "stat",
        "none",
        (
            (f'sum(labctl_health_results{{level="crit", {_RACK}}})', "critical"),
            (f'sum(labctl_health_results{{level="warn", {_RACK}}})', "warnings"),
        ),
        6,
    ),
    Panel(
        "Requests now",
        "stat",
        "none",
        (
            (f"sum(labctl_gateway_running{{{_RACK}}})", "running"),
            (f"sum(labctl_gateway_waiting{{{_RACK}}})", "waiting"),
        ),
        6,
    ),
    Panel(
        "Controller looked",
        "stat",
        "s",
        ((f"max(labctl_controller_tick_age_seconds{{{_RACK}}})", "ago"),),
        4,
    ),
    Panel("State of hosts", "state-timeline", "none", ((_STATE, "{{host}}"),), 24, "Dark blue is asleep."),
    Panel(
        "Watts of cards by host",
        "timeseries",
        "watt",
        ((f"labctl:host_gpu_power_watts{{{_HOST}}}", "{{host}}"),),
    ),
    Panel(
        "Watts and caps of cards",
        "timeseries",
        "watt",
        (
            (f"labctl_gpu_power_watts{{{_HOST}}}", "{{host}} {{gpu}}"),
            (f"labctl_gpu_power_cap_watts{{{_HOST}}}", "cap of {{host}} {{gpu}}"),
        ),
    ),
    Panel(
        "Watts of supplies and circuits",
        "timeseries",
        "watt",
        (
            (f"labctl_meter_watts{{{_RACK}}}", "{{meter}}"),
            (f"labctl_meter_limit_watts{{{_RACK}}}", "limit of {{meter}}"),
        ),
        24,
    ),
    Panel(
        "Temperature",
        "timeseries",
        "celsius",
        ((f"labctl_gpu_temperature_celsius{{{_HOST}}}", "{{host}} {{gpu}}"),),
    ),
    Panel(
        "Memory of cards",
        "timeseries",
        "percentunit",
        (
            (
                f"labctl_gpu_memory_used_bytes{{{_HOST}}} / labctl_gpu_memory_bytes{{{_HOST}}}",
                "{{host}} {{gpu}}",
            ),
        ),
    ),
    Panel(
        "Asleep, share of a day",
        "timeseries",
        "percentunit",
        ((f"labctl:host_asleep:ratio_1d{{{_HOST}}}", "{{host}}"),),
    ),
    Panel(
        "Awake, loaded, and idle",
        "timeseries",
        "none",
        ((f"labctl:host_loaded_idle{{{_HOST}}}", "{{host}}"),),
        about="A model is loaded and nobody asks it: what sleeping could save.",
    ),
    Panel(
        "Wakes in a day",
        "timeseries",
        "none",
        ((f"labctl:host_wakes:increase_1d{{{_HOST}}}", "{{host}}"),),
    ),
    Panel(
        "How long wakes take (nine of ten)",
        "timeseries",
        "s",
        ((f"labctl:wake_seconds:p90_7d{{{_HOST}}}", "{{host}}"),),
    ),
    Panel(
        "Refused to sleep",
        "timeseries",
        "none",
        ((f'increase(labctl_host_moves_total{{event="refused", {_HOST}}}[1h])', "{{host}}"),),
    ),
    Panel(
        "Leases and holds",
        "timeseries",
        "none",
        (
            (f"labctl_host_leases{{{_HOST}}}", "leases on {{host}}"),
            (f"labctl_host_holds{{{_HOST}}}", "holds on {{host}}"),
        ),
    ),
    Panel(
        "Requests by model",
        "timeseries",
        "reqps",
        ((f"sum by (model) (rate(labctl_gateway_requests_total{{{_RACK}}}[5m]))", "{{model}}"),),
    ),
    Panel(
        "Refused requests by reason",
        "timeseries",
        "reqps",
        ((f"sum by (code) (rate(labctl_gateway_refused_total{{{_RACK}}}[5m]))", "{{code}}"),),
    ),
    Panel(
        "First byte (95 of 100)",
        "timeseries",
        "s",
        ((f"labctl:first_byte_seconds:p95_5m{{{_RACK}}}", "{{model}}"),),
    ),
    Panel(
        "Tokens made in a second",
        "timeseries",
        "none",
        ((f"labctl:answer_tokens:rate_5m{{{_RACK}}}", "{{model}}"),),
    ),
    Panel(
        "Findings that are not well",
        "table",
        "none",
        ((f"labctl_health_level{{{_HOST}}} > 0", "{{code}} {{host}} {{subject}}"),),
        24,
    ),
)


def dashboard() -> str:
    """Return the dashboard as Grafana's JSON."""
    whole = {
        "id": None,
        "uid": UID,
        "title": "labctl: the rack",
        "tags": ["labctl"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [_source(), *_variables()]},
        "panels": _placed(PANELS),
    }
    return json.dumps(whole, indent=2) + "\n"


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variables() -> list[dict[str, Any]]:
    asked = {
        "rack": "label_values(labctl_host_state, rack)",
        "host": 'label_values(labctl_host_state{rack=~"$rack"}, host)',
    }
    return [
        {
            "name": name,
            "type": "query",
            "datasource": {"type": "prometheus", "uid": "${source}"},
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }
        for name, query in asked.items()
    ]


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Return panels in rows, each as far to the left as there is room."""
    shown, x, y, high = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        height = _HIGH // 2 if panel.kind == "stat" else _HIGH
        if x + panel.width > _WIDE:
            x, y, high = 0, y + high, 0
        place = {"x": x, "y": y, "w": panel.width, "h": height}
        shown.append({**_panel(panel), "id": number, "gridPos": place})
        x, high = x + panel.width, max(high, height)
    return shown


def _panel(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    instant = panel.kind in ("stat", "table")
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": source,
            "expr": expr,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for place, (expr, legend) in enumerate(panel.queries)
    ]
    mappings = [_states()] if panel.kind == "state-timeline" else []
    return {
        "title": panel.title,
        "description": panel.about,
        "type": panel.kind,
        "datasource": source,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "mappings": mappings}, "overrides": []},
    }


def _states() -> dict[str, Any]:
    options = {
        str(place): {"text": str(mode), "color": _COLOURS[mode], "index": place}
        for place, mode in enumerate(Mode)
    }
    return {"type": "value", "options": options}
