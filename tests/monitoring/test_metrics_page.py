"""The rack's page of numbers: what is known is on it, what is not known is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from labctl.domain.health.formats import exposition
from labctl.domain.health.results import Finding, Findings
from labctl.domain.health.terms import Figure, Level
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import Hold, Wish
from labctl.web.metrics import families
from monitoring_kit import NOON, finding, host, measuring, metrics, of, read, status

FOUND = Findings(NOON - 30, (finding(), finding(Level.OK, subject="/")))


@pytest.mark.parametrize("mode", Mode)
def test_a_host_is_in_one_state_and_in_none_of_the_others(mode: Mode) -> None:
    samples = read(metrics(status(host(mode=mode))).page()[0])
    states = {state: samples[of("labctl_host_state", host="rig", state=state.value)] for state in Mode}
    assert states == {state: float(state is mode) for state in Mode}


def test_what_the_controller_says_is_on_the_page() -> None:
    one = host(
        holds=(Hold(1, "rig", "a fine-tune", "ann", NOON),),
        wishes=(Wish(1, "rig", "ben", "a demo", NOON, NOON),),
        leases=2,
        proof="its kernel changed",
        usual_s=42.0,
        paused="by ann",
    )
    samples = read(metrics(status(one)).page()[0])
    assert {
        "leases": samples[of("labctl_host_leases", host="rig")],
        "holds": samples[of("labctl_host_holds", host="rig")],
        "awake": samples[of("labctl_host_wishes", host="rig", wants="awake")],
        "asleep": samples[of("labctl_host_wishes", host="rig", wants="asleep")],
        "proven": samples[of("labctl_host_wake_proven", host="rig")],
        "usual": samples[of("labctl_host_wake_usual_seconds", host="rig")],
        "paused": samples[of("labctl_host_paused", host="rig")],
        "quarantined": samples[of("labctl_host_quarantined", host="rig")],
        "up": samples[of("labctl_controller_up")],
        "age": samples[of("labctl_controller_tick_age_seconds")],
    } == {
        "leases": 2,
        "holds": 1,
        "awake": 1,
        "asleep": 0,
        "proven": 0,
        "usual": 42,
        "paused": 1,
        "quarantined": 0,
        "up": 1,
        "age": 2,
    }


def test_every_move_is_counted_from_zero_on_and_wakes_by_their_seconds() -> None:
    samples = read(metrics(status(host())).page()[0])
    moves = {event: samples[of("labctl_host_moves_total", host="rig", event=event.value)] for event in Event}
    counted = {Event.WISHED: 3.0, Event.PASSED: 2.0, Event.REFUSED: 1.0}
    assert moves == {event: counted.get(event, 0.0) for event in Event}
    buckets = [
        samples[of("labctl_host_wake_seconds_bucket", host="rig", le=le)] for le in ("10.0", "60.0", "+Inf")
    ]
    assert buckets == [1, 2, 2]
    assert samples[of("labctl_host_wake_seconds_sum", host="rig")] == 47.5


def test_what_a_host_measured_is_in_prometheus_own_units() -> None:
    samples = read(metrics(status(measuring())).page()[0])
    card = {"host": "rig", "gpu": "GPU-1"}
    assert samples[of("labctl_gpu_power_watts", **card)] == 27.5
    assert samples[of("labctl_gpu_power_cap_watts", **card)] == 280
    assert samples[of("labctl_gpu_energy_joules_total", **card)] == pytest.approx(812.345)
    assert samples[of("labctl_gpu_busy_ratio", **card)] == 0.5
    assert samples[of("labctl_gpu_memory_used_bytes", **card)] == 2**30
    assert samples[of("labctl_host_cpu_energy_joules_total", host="rig", zone="package-0")] == 5
    assert samples[of("labctl_model_loaded", host="rig", service="chat", model="qwen")] == 1
    assert samples[of("labctl_engine_tokens_total", host="rig", service="chat", kind="llama-server")] == 81230


def test_a_card_that_sleeps_has_no_watts_and_is_called_by_its_place_where_it_has_no_uuid() -> None:
    samples = read(metrics(status(measuring())).page()[0])
    assert samples[of("labctl_gpu_asleep", host="rig", gpu="0000:02:00.0")] == 1
    assert of("labctl_gpu_power_watts", host="rig", gpu="0000:02:00.0") not in samples


@pytest.mark.parametrize("mode", [Mode.ASLEEP, Mode.UNKNOWN, Mode.SUSPENDING, Mode.WAKING])
def test_what_a_host_measured_before_it_fell_silent_is_not_shown(mode: Mode) -> None:
    samples = read(metrics(status(replace(measuring(), mode=mode, talking=False))).page()[0])
    assert not [name for name, _ in samples if name.startswith(("labctl_gpu", "labctl_engine"))]
    assert samples[of("labctl_host_state", host="rig", state=mode.value)] == 1


def test_a_controller_that_does_not_answer_leaves_no_state_of_a_while_ago() -> None:
    said: list[Any] = [status(host())]

    page = metrics(lambda: said[0], FOUND)
    assert of("labctl_host_leases", host="rig") in read(page.page()[0])
    said[0] = LabctlError("the controller does not answer")
    samples = read(page.page()[0])
    assert samples[of("labctl_controller_up")] == 0
    assert not [name for name, _ in samples if name.startswith(("labctl_host", "labctl_rack", "labctl_gpu"))]
    assert samples[of("labctl_health_run_seconds")] == NOON - 30


def test_findings_have_the_names_and_values_that_labctl_health_writes() -> None:
    figures = tuple(Figure(f"of {unit}", 7.5, unit) for unit in ("", "W", "C", "MiB", "s", "%"))
    measured = Finding(replace(finding().result, code="power-over", figures=figures), NOON)
    found = Findings(NOON - 30, (*FOUND.findings, measured))
    ours = read(metrics(status(), found).page()[0])
    theirs = read(exposition(found.findings, found.at).encode())
    assert {key: value for key, value in ours.items() if key[0].startswith("labctl_health")} == theirs
    assert len({name for name, _ in theirs}) == 10


def test_without_a_run_of_the_checks_nothing_is_said_of_health() -> None:
    samples = read(metrics(status(host())).page()[0])
    assert not [name for name, _ in samples if name.startswith("labctl_health")]


def test_prometheus_may_choose_the_newer_format() -> None:
    body, kind = metrics(status(measuring()), FOUND).page("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics(body.decode())} >= {
        "labctl_host_state",
        "labctl_host_moves",
    }


def test_supplies_and_circuits_have_what_was_measured_and_what_is_declared() -> None:
    asleep = host("box", Mode.ASLEEP)
    samples = read(metrics(status(measuring(), asleep)).page()[0])
    psu, circuit = {"kind": "psu", "meter": "psu0 of rig"}, {"kind": "circuit", "meter": "circuit office"}
    assert samples[of("labctl_meter_watts", **psu)] == 87.5
    assert samples[of("labctl_meter_limit_watts", **psu)] == 1200
    assert samples[of("labctl_meter_declared_watts", **circuit)] == 60
    assert samples[of("labctl_meter_silent_hosts", **circuit)] == 0
    samples = read(metrics(status(host(talking=False), host("box"))).page()[0])
    assert samples[of("labctl_meter_silent_hosts", **circuit)] == 2


@pytest.mark.parametrize("at", [NOON - 31, NOON + 31, None, "now"])
def test_what_the_controller_said_a_while_ago_counts_as_no_answer(at: Any) -> None:
    said = {**status(host()), "at": at}
    samples = read(metrics(said).page()[0])
    assert samples[of("labctl_controller_up")] == 0
    assert not [name for name, _ in samples if name.startswith(("labctl_host", "labctl_meter"))]


def test_a_scrape_asks_the_controller_once_and_registering_asks_nothing() -> None:
    asked: list[int] = []

    def ask() -> dict[str, Any]:
        asked.append(1)
        return status(host())

    page = metrics(ask)
    assert asked == []
    page.page()
    assert asked == [1]


def test_what_people_wrote_never_becomes_a_label() -> None:
    one = host(
        holds=(Hold(1, "rig", "canary-why", "canary-by", NOON),),
        wishes=(Wish(1, "rig", "canary-by", "canary-why", NOON, NOON),),
        paused="canary-paused",
        quarantined="canary-quarantined",
        proof="canary-proof",
        next="canary-next",
    )
    page, _ = metrics(status(one, paused="canary-rack", store="canary-store", leader="canary-leader")).page()
    assert b"canary" not in page


def test_a_text_of_a_host_cannot_break_out_of_its_label() -> None:
    evil = 'x"} 1\nlabctl_host_state{host="rig",state="failed"} 1\n#' + "y" * 5000
    said = {"engines": [{"service": evil, "kind": evil, "active": True, "models": [evil] * 500}]}
    answer = status(host())
    answer["hosts"][0]["telemetry"] = {"wall": NOON, **said}
    samples = read(metrics(answer).page()[0])
    assert samples[of("labctl_host_state", host="rig", state="failed")] == 0
    assert len([name for name, _ in samples if name == "labctl_model_loaded"]) == 1
    assert max(len(value) for _, labels in samples for _, value in labels) <= 200


_NAMES = (
    *("host", "mode", "hosts", "talking", "telemetry", "gpus", "uuid", "power_w", "rapl_uj", "engines"),
    *("service", "models", "counts", "moves", "wakes", "bounds", "sum", "wished", "holds", "wishes"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=6),
    max_leaves=25,
)


@given(_JSON, st.booleans())
def test_whatever_another_version_says_there_is_a_page_that_prometheus_reads(said: Any, deep: bool) -> None:
    one = {"host": "rig", "mode": "ready", "talking": True, "telemetry": said, "counts": said}
    answer = {"hosts": [one]} if deep else (said if isinstance(said, dict) else {"hosts": said})
    answer = {**answer, "at": NOON}
    samples = read(metrics(answer).page()[0])
    assert samples[of("labctl_controller_up")] == 1


def test_a_metric_that_the_table_does_not_have_cannot_be_shown() -> None:
    sheet = families.Sheet()
    with pytest.raises(KeyError):
        sheet.put("labctl_whatever", 1.0)
    with pytest.raises(KeyError):
        sheet.put("labctl_host_leases", 1.0, host="rig", user="ann")


def test_the_table_keeps_prometheus_rules_of_naming() -> None:
    assert len(families.NAMES) == len(families.FAMILIES)
    for family in families.FAMILIES:
        assert re.fullmatch(r"labctl_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert family.about.endswith(".")


def test_the_page_of_docs_lists_every_metric_with_its_labels() -> None:
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(labctl_(?!gateway)\w+)` \| ([^|]*) \|", text, re.M))
    wanted = {one.name: ", ".join(f"`{label}`" for label in one.labels) for one in families.FAMILIES}
    assert {name: labels.strip() for name, labels in rows.items()} == wanted
