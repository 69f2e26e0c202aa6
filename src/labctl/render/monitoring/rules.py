"""Recording and alert rules; docs/monitoring.md says of each alert what to do, and a test compares the two.

A rule that could mistake sleep for failure names the state that it wants, positively: what the controller
does not say is no match. Alerts that rest on the controller's word cannot fire without it, so that there is
one on the controller and on the page itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from labctl.inventory.health import Health
from labctl.render import HEADER


@dataclass(frozen=True, slots=True)
class Recorded:
    """A series that is computed once for everybody."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody should know of: true for ``lasts``, said in ``summary``, mended by ``cure``."""

    name: str
    expr: str
    lasts: str
    severity: Literal["critical", "warning"]
    summary: str
    cure: str


_HOST, _GPU = "{{ $labels.host }}", "{{ $labels.host }}/{{ $labels.gpu }}"
_SINCE_HEALTH = "time() - labctl_health_run_seconds"
_MEANT_UP = 'labctl_host_state{state=~"ready|draining|unknown|failed"} == 1'

RECORDED = (
    Recorded(
        "labctl:host_awake",
        'sum by (rack, host) (labctl_host_state{state=~"ready|draining|verifying"})',
    ),
    Recorded(
        "labctl:host_asleep:ratio_1d",
        'avg by (rack, host) (avg_over_time(labctl_host_state{state="asleep"}[1d]))',
    ),
    Recorded(
        "labctl:host_wakes:increase_1d",
        'sum by (rack, host) (increase(labctl_host_moves_total{event="wished"}[1d]))',
    ),
    Recorded(
        "labctl:wake_seconds:p90_7d",
        "histogram_quantile(0.9, sum by (rack, host, le) (increase(labctl_host_wake_seconds_bucket[7d])))",
    ),
    Recorded("labctl:host_gpu_power_watts", "sum by (rack, host) (labctl_gpu_power_watts)"),
    Recorded("labctl:rack_gpu_power_watts", "sum by (rack) (labctl_gpu_power_watts)"),
    Recorded(
        "labctl:host_loaded_idle",
        # Some engines (Ollama, TabbyAPI) do not tell what they work on: not known is not idle.
        "max by (rack, host) (labctl_model_loaded)"
        " unless on (rack, host) (labctl_engine_requests_running > 0)"
        " unless on (rack, host) (labctl_model_loaded"
        " unless on (rack, host, service) labctl_engine_requests_running)",
    ),
    Recorded(
        "labctl:answer_tokens:rate_5m",
        'sum by (rack, model) (rate(labctl_gateway_tokens_total{kind="answer"}[5m]))',
    ),
    Recorded(
        "labctl:first_byte_seconds:p95_5m",
        "histogram_quantile(0.95, sum by (rack, model, le)"
        " (rate(labctl_gateway_first_byte_seconds_bucket[5m])))",
    ),
)

ALERTS = (
    Alert(
        "LabctlPageDown",
        'up{job="labctl"} == 0',
        "5m",
        "critical",
        "labctl's page of numbers cannot be scraped, so nothing is known of the rack",
        "on the controller's host: journalctl -u labctl-web",
    ),
    Alert(
        "LabctlGatewayDown",
        'up{job="labctl-gateway"} == 0',
        "2m",
        "critical",
        "the gateway does not answer",
        "labctl gateway status",
    ),
    Alert(
        "LabctlControllerDown",
        "labctl_controller_up == 0",
        "5m",
        "critical",
        "the controller does not answer: nothing is woken, and nothing is put to sleep",
        "labctl controller status; on its host: journalctl -u labctl-controller",
    ),
    Alert(
        "LabctlControllerStuck",
        "labctl_controller_tick_age_seconds > 120",
        "5m",
        "critical",
        "the controller has not looked at its hosts for minutes",
        "labctl controller status; on its host: journalctl -u labctl-controller",
    ),
    Alert(
        "LabctlNobodyLeads",
        "labctl_controller_led == 0",
        "5m",
        "critical",
        "no controller leads the rack: nothing is woken, and nothing is put to sleep",
        "labctl controller status",
    ),
    Alert(
        "LabctlStoreUnusable",
        "labctl_controller_store_usable == 0 or labctl_gateway_store_usable == 0",
        "2m",
        "critical",
        "the store cannot be used: nothing is put to sleep, and no host is woken for requests",
        "labctl controller status says what is wrong with it",
    ),
    Alert(
        "LabctlHostLost",
        'labctl_host_state{state="unknown"} == 1',
        "10m",
        "critical",
        f"{_HOST} does not answer, and was not put to sleep",
        f"labctl explain {_HOST}",
    ),
    Alert(
        "LabctlHostFailed",
        'labctl_host_state{state="failed"} == 1',
        "1m",
        "critical",
        f"{_HOST} did not come back, or is broken",
        f"labctl explain {_HOST}",
    ),
    Alert(
        "LabctlHostQuarantined",
        "labctl_host_quarantined == 1",
        "1m",
        "critical",
        f"{_HOST} came back broken, and serves nothing",
        f"labctl explain {_HOST}; when it is mended: labctl resume {_HOST}",
    ),
    Alert(
        "LabctlHostSilent",
        'labctl_host_state{state=~"ready|draining"} == 1 and on (rack, host) labctl_host_talking == 0',
        "10m",
        "warning",
        f"{_HOST} serves, but its agent does not report: it never sleeps, and its watts are not known",
        f"labctl explain {_HOST}",
    ),
    Alert(
        "LabctlHostStuckWaking",
        'labctl_host_state{state=~"waking|verifying|suspending"} == 1',
        "30m",
        "warning",
        f"{_HOST} has been on its way ({{{{ $labels.state }}}}) for half an hour",
        f"labctl explain {_HOST}",
    ),
    Alert(
        "LabctlHostFlaps",
        'increase(labctl_host_moves_total{event="wished"}[1h]) > 6',
        "1m",
        "warning",
        f"{_HOST} was woken more than six times in an hour",
        f"labctl events {_HOST}; a longer IdlePolicy(after=...) keeps it awake between requests",
    ),
    Alert(
        "LabctlHostUnproven",
        "labctl_host_wake_proven == 0",
        "6h",
        "warning",
        f"{_HOST} is to sleep, and has no valid proof that it wakes, so it stays awake",
        f"labctl sleep-test {_HOST}",
    ),
    Alert(
        "LabctlNodeDown",
        'up{job="labctl-node", sleeps="no"} == 0'
        f' or (up{{job="labctl-node", sleeps="yes"}} == 0 and on (rack, host) ({_MEANT_UP}))',
        "5m",
        "warning",
        f"node_exporter of {_HOST} does not answer, though the host should be awake",
        f"labctl status; on {_HOST}: systemctl status prometheus-node-exporter",
    ),
    Alert(
        "LabctlGpuHot",
        "labctl_gpu_temperature_celsius > 90",
        "10m",
        "warning",
        f"{_GPU} has {{{{ $value }}}} degrees Celsius",
        "clean it, give it air, or lower its cap: labctl powercap",
    ),
    Alert(
        "LabctlGpuOverCap",
        "labctl_gpu_power_watts > labctl_gpu_power_cap_watts * 1.1",
        "10m",
        "warning",
        f"{_GPU} draws {{{{ $value }}}} W, more than its cap",
        f"labctl powercap --show {_HOST}",
    ),
    Alert(
        "LabctlOverBudget",
        "labctl_meter_watts > labctl_meter_limit_watts",
        "5m",
        "critical",
        "{{ $labels.meter }} bears {{ $value }} W, more than it may for hours",
        "labctl power shows what is allowed; then lower caps (labctl powercap), or let a host sleep",
    ),
    Alert(
        "LabctlGatewayErrors",
        'sum by (rack, host) (rate(labctl_gateway_requests_total{status=~"5.."}[10m]))'
        " > 0.05 * sum by (rack, host) (rate(labctl_gateway_requests_total[10m]))",
        "10m",
        "warning",
        f"more than one answer in twenty of {_HOST} is an error",
        "labctl gateway status; labctl health",
    ),
    Alert(
        "LabctlHealthCritical",
        "max by (rack, code, host, subject) (labctl_health_level == 2)",
        "15m",
        "critical",
        f"{{{{ $labels.code }}}} of {_HOST} {{{{ $labels.subject }}}} is critical",
        f"labctl health {_HOST}",
    ),
    Alert(
        "LabctlHealthStale",
        f"{_SINCE_HEALTH} > {Health().stale_s:.0f}",
        "10m",
        "warning",
        "no health run has ended for too long",
        "on the controller's host: systemctl status labctl-health.timer",
    ),
)


def rules(health: Health | None = None) -> str:
    """Return the file of rules, for how often health is looked after."""
    late = f"{_SINCE_HEALTH} > {(health or Health()).stale_s:.0f}"
    alerts = [replace(one, expr=late) if one.expr.startswith(_SINCE_HEALTH) else one for one in ALERTS]
    groups = [
        {"name": "labctl-recorded", "rules": [{"record": one.name, "expr": one.expr} for one in RECORDED]},
        {"name": "labctl-alerts", "rules": [_alert(one) for one in alerts]},
    ]
    return f"{HEADER}\n{yaml.safe_dump({'groups': groups}, sort_keys=False, width=1000)}"


def _alert(one: Alert) -> dict[str, Any]:
    return {
        "alert": one.name,
        "expr": one.expr,
        "for": one.lasts,
        "labels": {"severity": one.severity},
        "annotations": {"summary": one.summary, "description": one.cure},
    }
