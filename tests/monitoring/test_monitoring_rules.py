"""The rules, judged by Prometheus' own promtool: what fires, what does not, and that sleep is not failure."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.inventory import Health
from labctl.render.monitoring import rules
from monitoring_kit import program

ALERTS = {alert.name: alert for alert in rules.ALERTS}
PAGE = {"rack": "desk", "job": "labctl", "instance": "hub:8090"}
GATE = {**PAGE, "job": "labctl-gateway", "instance": "hub:8000"}
RIG = {**PAGE, "host": "rig"}
CARD = {**RIG, "gpu": "GPU-1"}
NODE = {"rack": "desk", "job": "labctl-node", "instance": "rig:9100", "host": "rig"}


def series(name: str, labels: Mapping[str, str], values: str) -> dict[str, str]:
    said = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{said}}}", "values": values}


def state(mode: Mode | None, steps: str = "x120", labels: Mapping[str, str] = RIG) -> list[dict[str, str]]:
    """Return the states of a host that stays in one; None: the controller says nothing of it."""
    return [
        series("labctl_host_state", {**labels, "state": one.value}, f"{int(one is mode)}{steps}")
        for one in (Mode if mode is not None else ())
    ]


@dataclass(frozen=True)
class Fires:
    """A case in which exactly one alert fires, with these labels; ``value`` as it stands in its words."""

    alert: str
    series: list[dict[str, str]]
    at: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""


FIRING = (
    Fires("LabctlPageDown", [series("up", PAGE, "0x20")], "6m", PAGE),
    Fires("LabctlGatewayDown", [series("up", GATE, "0x20")], "3m", GATE),
    Fires("LabctlControllerDown", [series("labctl_controller_up", PAGE, "0x20")], "6m", PAGE),
    Fires(
        "LabctlControllerStuck",
        [series("labctl_controller_tick_age_seconds", PAGE, "60+60x20")],
        "10m",
        PAGE,
    ),
    Fires("LabctlNobodyLeads", [series("labctl_controller_led", PAGE, "0x20")], "6m", PAGE),
    Fires("LabctlStoreUnusable", [series("labctl_controller_store_usable", PAGE, "0x20")], "3m", PAGE),
    Fires("LabctlStoreUnusable", [series("labctl_gateway_store_usable", GATE, "0x20")], "3m", GATE),
    Fires("LabctlHostLost", state(Mode.UNKNOWN), "11m", {**RIG, "state": "unknown"}),
    Fires("LabctlHostFailed", state(Mode.FAILED), "2m", {**RIG, "state": "failed"}),
    Fires("LabctlHostQuarantined", [series("labctl_host_quarantined", RIG, "1x20")], "2m", RIG),
    Fires(
        "LabctlHostSilent",
        [*state(Mode.READY), series("labctl_host_talking", RIG, "0x20")],
        "11m",
        {**RIG, "state": "ready"},
    ),
    Fires("LabctlHostStuckWaking", state(Mode.WAKING), "31m", {**RIG, "state": "waking"}),
    Fires(
        "LabctlHostFlaps",
        [series("labctl_host_moves_total", {**RIG, "event": "wished"}, "0+1x60")],
        "60m",
        {**RIG, "event": "wished"},
    ),
    Fires("LabctlHostUnproven", [series("labctl_host_wake_proven", RIG, "0x380")], "361m", RIG),
    Fires("LabctlNodeDown", [series("up", {**NODE, "sleeps": "no"}, "0x20")], "6m", {**NODE, "sleeps": "no"}),
    *(
        Fires(
            "LabctlNodeDown",
            [series("up", {**NODE, "sleeps": "yes"}, "0x20"), *state(mode)],
            "6m",
            {**NODE, "sleeps": "yes"},
        )
        for mode in (Mode.READY, Mode.DRAINING)
    ),
    Fires("LabctlGpuHot", [series("labctl_gpu_temperature_celsius", CARD, "95x20")], "11m", CARD, "95"),
    Fires(
        "LabctlGpuOverCap",
        [
            series("labctl_gpu_power_watts", CARD, "340x20"),
            series("labctl_gpu_power_cap_watts", CARD, "280x20"),
        ],
        "11m",
        CARD,
        "340",
    ),
    Fires(
        "LabctlOverBudget",
        [
            series("labctl_meter_watts", {**PAGE, "kind": "psu", "meter": "psu0 of rig"}, "1300x20"),
            series("labctl_meter_limit_watts", {**PAGE, "kind": "psu", "meter": "psu0 of rig"}, "1200x20"),
        ],
        "6m",
        {**PAGE, "kind": "psu", "meter": "psu0 of rig"},
        "1300",
    ),
    Fires(
        "LabctlGatewayErrors",
        [
            series("labctl_gateway_requests_total", {**GATE, "host": "rig", "status": "200"}, "0+60x60"),
            series("labctl_gateway_requests_total", {**GATE, "host": "rig", "status": "502"}, "0+6x60"),
        ],
        "30m",
        {"rack": "desk", "host": "rig"},
    ),
    Fires(
        "LabctlHealthCritical",
        [series("labctl_health_level", {**RIG, "code": "disk-space", "subject": "/srv"}, "2x20")],
        "16m",
        {"rack": "desk", "host": "rig", "code": "disk-space", "subject": "/srv"},
    ),
    Fires("LabctlHealthStale", [series("labctl_health_run_seconds", PAGE, "0x100")], "75m", PAGE),
)

# What happens every day: [title, series, minutes at which nothing may fire].
_GAUGES_WELL = [
    series("up", PAGE, "1x120"),
    series("up", GATE, "1x120"),
    series("labctl_controller_up", PAGE, "1x120"),
    series("labctl_controller_led", PAGE, "1x120"),
    series("labctl_controller_tick_age_seconds", PAGE, "2x120"),
    series("labctl_controller_store_usable", PAGE, "1x120"),
    series("labctl_gateway_store_usable", GATE, "1x120"),
    series("labctl_host_quarantined", RIG, "0x120"),
    series("labctl_host_wake_proven", RIG, "1x120"),
    series("labctl_health_run_seconds", PAGE, "0+60x120"),
    series("labctl_health_level", {**RIG, "code": "reachable", "subject": ""}, "0x120"),
    series("labctl_health_level", {**RIG, "code": "throttle", "subject": "GPU-1"}, "1x120"),
]


def _night() -> list[dict[str, str]]:
    """A host serves, sleeps, is woken, and serves; it and its node_exporter are gone meanwhile."""
    plan = ((Mode.READY, 30), (Mode.DRAINING, 1), (Mode.SUSPENDING, 2), (Mode.ASLEEP, 100))
    plan += ((Mode.WAKING, 2), (Mode.VERIFYING, 2), (Mode.READY, 60))
    there = ((True, 31), (False, 105), (True, 61))
    modes = [
        series(
            "labctl_host_state",
            {**RIG, "state": mode.value},
            " ".join(f"{int(mode is one)}x{minutes - 1}" for one, minutes in plan),
        )
        for mode in Mode
    ]
    seen = " ".join(f"{int(up)}x{minutes - 1}" for up, minutes in there)
    watts = " ".join(f"{'120' if up else '_'}x{minutes - 1}" for up, minutes in there)
    return [
        *modes,
        series("labctl_host_talking", RIG, seen),
        series("up", {**NODE, "sleeps": "yes"}, seen),
        series("labctl_gpu_power_watts", CARD, watts),
        series("labctl_gpu_power_cap_watts", CARD, watts.replace("120", "280")),
        series("labctl_gpu_temperature_celsius", CARD, watts.replace("120", "60")),
        series("labctl_host_moves_total", {**RIG, "event": "wished"}, "0x133 1x70"),
    ]


QUIET: dict[str, tuple[list[dict[str, str]], Iterable[int]]] = {
    "a night of planned sleep": ([*_GAUGES_WELL, *_night()], (29, 31, 33, 40, 90, 132, 134, 138, 180)),
    "a host that sleeps by itself for days": (
        [
            *state(Mode.ASLEEP),
            series("labctl_host_talking", RIG, "0x120"),
            series("up", {**NODE, "sleeps": "yes"}, "0x120"),
        ],
        (5, 60, 119),
    ),
    "nobody knows whether a host that may sleep is asleep": (
        [series("up", {**NODE, "sleeps": "yes"}, "0x120")],
        (6, 60, 119),
    ),
    "a page that is gone for a minute": ([series("up", PAGE, "1x10 0x0 1x10")], (10, 11, 12, 20)),
    "one error in a hundred": (
        [
            series("labctl_gateway_requests_total", {**GATE, "host": "rig", "status": "200"}, "0+99x60"),
            series("labctl_gateway_requests_total", {**GATE, "host": "rig", "status": "502"}, "0+1x60"),
        ],
        (30, 59),
    ),
    "five wakes in an hour": (
        [series("labctl_host_moves_total", {**RIG, "event": "wished"}, "0x10 1x10 2x10 3x10 4x10 5x60")],
        (59, 61),
    ),
}

RECORDING = (
    ("labctl:host_awake", state(Mode.READY, "x5"), [({"rack": "desk", "host": "rig"}, 1)]),
    ("labctl:host_awake", state(Mode.ASLEEP, "x5"), [({"rack": "desk", "host": "rig"}, 0)]),
    (
        "labctl:host_asleep:ratio_1d",
        [series("labctl_host_state", {**RIG, "state": "asleep"}, "0 1 1 1x10")],
        [({"rack": "desk", "host": "rig"}, 0.8)],
    ),
    (
        "labctl:rack_gpu_power_watts",
        [
            series("labctl_gpu_power_watts", {**CARD, "host": host}, f"{watts}x5")
            for host, watts in (("rig", 100), ("box", 20))
        ],
        [({"rack": "desk"}, 120)],
    ),
    (
        "labctl:host_loaded_idle",
        [
            *(series("labctl_model_loaded", {**RIG, "host": host, "service": "chat", "model": "qwen"}, "1x5")
              for host in ("rig", "box", "mute")),
            series("labctl_engine_requests_running", {**RIG, "service": "chat"}, "0x5"),
            series("labctl_engine_requests_running", {**RIG, "host": "box", "service": "chat"}, "2x5"),
            series("labctl_engine_requests_running", {**RIG, "host": "mute", "service": "other"}, "0x5"),
        ],
        [({"rack": "desk", "host": "rig"}, 1)],
    ),
)  # fmt: skip


def _said(text: str, case: Fires) -> str:
    """Return a text with its holes filled, as Prometheus fills them."""
    whole = re.sub(r"{{ \$labels\.(\w+) }}", lambda hole: case.labels.get(hole[1], ""), text)
    return whole.replace("{{ $value }}", case.value)


def _fires(case: Fires) -> dict[str, Any]:
    alert = ALERTS[case.alert]
    expected = {
        "exp_labels": {**case.labels, "severity": alert.severity},
        "exp_annotations": {"summary": _said(alert.summary, case), "description": _said(alert.cure, case)},
    }
    tests = [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": [expected]}]
    tests += [
        {"eval_time": case.at, "alertname": name, "exp_alerts": []} for name in ALERTS if name != case.alert
    ]
    return {"interval": "1m", "name": case.alert, "input_series": case.series, "alert_rule_test": tests}


def _quiet(title: str, given: list[dict[str, str]], minutes: Iterable[int]) -> dict[str, Any]:
    tests = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for minute in minutes
        for name in ALERTS
    ]
    return {"interval": "1m", "name": title, "input_series": given, "alert_rule_test": tests}


def _recorded(
    name: str, given: list[dict[str, str]], wanted: list[tuple[Mapping[str, str], float]]
) -> dict[str, Any]:
    samples = [
        {
            "labels": name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}",
            "value": value,
        }
        for labels, value in wanted
    ]
    test = {"expr": name, "eval_time": "4m", "exp_samples": samples}
    return {"interval": "1m", "name": name, "input_series": given, "promql_expr_test": [test]}


def _promtool(folder: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (folder / rules_name).write_text(rules.rules())
    document = {"rule_files": [rules_name], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yml").write_text(yaml.safe_dump(document))
    return subprocess.run(
        [program("promtool"), "test", "rules", "tests.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


rules_name = "labctl.rules.yml"


def test_each_alert_fires_alone_and_says_what_is_so_and_what_to_do(tmp_path: Path) -> None:
    done = _promtool(tmp_path, [_fires(case) for case in FIRING])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire() -> None:
    assert {case.alert for case in FIRING} == set(ALERTS)


def test_what_happens_every_day_fires_nothing(tmp_path: Path) -> None:
    done = _promtool(tmp_path, [_quiet(title, *case) for title, case in QUIET.items()])
    assert done.returncode == 0, done.stdout + done.stderr


def test_recorded_series_are_what_they_are_called(tmp_path: Path) -> None:
    done = _promtool(tmp_path, [_recorded(*case) for case in RECORDING])
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_would_have_said_so(tmp_path: Path) -> None:
    wrong = Fires("LabctlHostFailed", state(Mode.ASLEEP), "2m", {**RIG, "state": "failed"})
    done = _promtool(tmp_path, [_fires(wrong)])
    assert done.returncode != 0
    assert "LabctlHostFailed" in done.stdout + done.stderr


def test_a_rule_names_modes_and_events_that_there_are() -> None:
    texts = [one.expr for one in (*rules.ALERTS, *rules.RECORDED)]
    states = {
        one for text in texts for said in re.findall(r'state=~?"([^"]+)"', text) for one in said.split("|")
    }
    events = {one for text in texts for one in re.findall(r'event="([^"]+)"', text)}
    assert states <= set(Mode)
    assert events <= set(Event)
    assert len(states) > 5
    assert events


def test_a_rack_whose_health_is_looked_after_seldom_raises_no_alarm_between_two_looks() -> None:
    def late(health: Health | None) -> str:
        (_, alerts) = yaml.safe_load(rules.rules(health))["groups"]
        (found,) = [one for one in alerts["rules"] if one["alert"] == "LabctlHealthStale"]
        return str(found["expr"]).rpartition(" > ")[2]

    assert [late(None), late(Health()), late(Health(every=timedelta(hours=1)))] == ["3600", "3600", "10800"]
