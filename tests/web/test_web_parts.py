"""What the page makes of what it is told: spans of modes, watts at a meter, and words of any kind."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain import web_table
from labctl.domain.problem import LabctlError
from labctl.domain.web_table import Meter, Share
from labctl.inventory import Circuit, Controller, Gateway, Gpu, Health, Host, Psu, Rack, Secret, Web, WebKey
from labctl.render import controller, firewall
from labctl.render import web as rendering
from labctl.web import orders, serving, sight, timeline, view, writing
from labctl.web.reading import read_table
from labctl.web.sight import Seen, Sight
from web_kit import FINDINGS, TELEMETRY, sources, table

NOW, HOUR = 1_800_000_000.0, 3600.0
ASSETS = writing.HERE / "assets"


# --- the day of a host


def log(*lines: tuple[float, str]) -> list[dict[str, Any]]:
    """Return lines of the log, each so many hours ago."""
    return [
        {"at": NOW - hours * HOUR, "host": "rig", "kind": "mode", "text": f"{text}: x"}
        for hours, text in lines
    ]


@pytest.mark.parametrize(
    ("mode", "since", "events", "day"),
    [
        ("asleep", 2.0, [], "asleep 2 0"),
        ("ready", 90.0, [], "awake 24 0"),
        ("asleep", 2.0, log((5, "waking -> ready"), (2, "draining -> asleep")), "awake 5 2, asleep 2 0"),
        ("ready", 1.0, log((30, "waking -> ready"), (1, "draining -> ready")), "awake 24 0"),
        ("failed", 1.0, log((3, "asleep -> waking"), (1, "waking -> failed")), "changing 3 1, failed 1 0"),
        ("dreaming", 1.0, log((1, "ready -> dreaming")), "unknown 1 0"),
        # The clock was set back, or a line says nothing that can be read: neither makes a span of its own.
        ("ready", 1.0, log((-3, "asleep -> ready"), (1, "asleep -> ready")), "awake 1 0"),
        ("ready", 1.0, log((1, "nonsense")), "awake 1 0"),
    ],
)  # fmt: skip
def test_a_day_is_read_from_the_log(mode: str, since: float, events: list[dict[str, Any]], day: str) -> None:
    status = {"host": "rig", "mode": mode, "since": NOW - since * HOUR}
    other = {"at": NOW - HOUR, "host": "nas", "kind": "mode", "text": "ready -> asleep: x"}
    line = timeline.line(status, [*events, other], NOW)
    spans = [f"{one.kind} {(NOW - one.begin) / HOUR:g} {(NOW - one.end) / HOUR:g}" for one in line.stretches]
    assert ", ".join(spans) == day


MODES = st.sampled_from(["ready", "asleep", "waking", "failed", "draining", "unknown"])


@given(st.lists(st.tuples(st.floats(-2, 30), MODES, MODES)), MODES)
def test_whatever_the_log_says_spans_are_in_order_within_the_day(
    lines: list[tuple[float, str, str]], mode: str
) -> None:
    events = log(*((hours, f"{before} -> {after}") for hours, before, after in lines))
    found = timeline.line({"host": "rig", "mode": mode, "since": NOW - HOUR}, events, NOW).stretches
    edges = [edge for one in found for edge in (one.begin, one.end)]
    assert edges == sorted(edges)
    assert all(NOW - timeline.SPAN_S <= edge <= NOW for edge in edges)


# --- watts


def status(mode: str = "ready", *, talking: bool = True, telemetry: object = TELEMETRY) -> dict[str, Any]:
    return {"host": "rig", "mode": mode, "talking": talking, "telemetry": telemetry}


METER = Meter("psu0 of rig", "psu", 1000.0, (Share("rig", 60.0, {"GPU-1": 0.5}, 1.0),))


@pytest.mark.parametrize(
    ("said", "watts", "silent"),
    [
        (status(), 60 + 0.5 * 248.4, ()),
        (status("asleep"), 0.0, ()),
        (status(talking=False), 60.0, ("rig",)),
        (status(telemetry=None), 60.0, ("rig",)),
        (status(telemetry={"gpus": [{"uuid": "GPU-1", "power_w": None}]}), 60.0, ("rig",)),
        (status(telemetry={"gpus": [{"uuid": "GPU-1", "power_w": True}]}), 60.0, ("rig",)),
        (status(telemetry={"gpus": [{"uuid": "GPU-9", "power_w": 10.0}]}), 70.0, ()),
        (status(telemetry={"gpus": []}), 60.0, ()),
    ],
)
def test_a_meter_shows_what_cards_measure_and_who_does_not_tell(
    said: Mapping[str, Any], watts: float, silent: tuple[str, ...]
) -> None:
    found = web_table.drawn(METER, {"rig": said})
    assert found.watts == pytest.approx(watts)
    assert found.silent == silent
    assert found.part == pytest.approx(watts / 1000)


def test_a_host_that_nobody_knows_of_may_draw_something() -> None:
    assert web_table.drawn(METER, {}).silent == ("rig",)


UUID = "GPU-1a2b3c4d-0000-0000-0000-000000000000"
GPUS = (
    Gpu(model="RTX 3090", slot="a", uuid=UUID, cap_w=280, cap_reason="psu"),
    Gpu(model="RTX 3090", slot="b", pci="0000:02:00.0", cap_w=280, cap_reason="psu"),
)
RACK = Rack(
    name="desk",
    hosts=(
        Host(
            name="rig",
            address="10.0.0.2",
            base_w=100,
            gpus=GPUS,
            psus=(
                Psu(name="p0", watts=1200, efficiency=0.9, circuit="ups", feeds=("a", "board")),
                Psu(name="p1", watts=800, efficiency=0.8, circuit="office", feeds=("b",)),
            ),
        ),
        Host(name="hub", address="10.0.0.1", roles=("always-on",)),
    ),
    circuits=(Circuit(name="office"), Circuit(name="ups", amps=5, upstream="office")),
    controller=Controller(host="hub"),
    web=Web(),
)


def test_shares_say_which_card_weighs_on_which_supply_and_circuit() -> None:
    found = {meter.title: meter for meter in rendering.meters_of(RACK)}
    first, second = GPUS[0].uuid, GPUS[1].pci
    assert first is not None
    assert second is not None
    assert found["p0 of rig"].shares == (Share("rig", 100.0, {first: 1.0, second: 0.0}, 0.5),)
    assert found["p1 of rig"].shares == (Share("rig", 0.0, {first: 0.0, second: 1.0}, 0.5),)
    (ups,), (office,) = found["circuit ups"].shares, found["circuit office"].shares
    assert ups.cards == {first: pytest.approx(1 / 0.9), second: 0.0}
    assert office.cards == {first: pytest.approx(1 / 0.9), second: pytest.approx(1 / 0.8)}
    assert office.base_w == pytest.approx(100 / 0.9)
    assert found["circuit office"].limit_w == pytest.approx(230 * 16 * 0.8)


# --- what is shown of what is said

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
HOST_KEYS = (
    "mode",
    "since",
    "because",
    "holds",
    "wishes",
    "leases",
    "talking",
    "telemetry",
    "paused",
    "usual_s",
)
GPU_KEYS = (
    "name",
    "power_w",
    "cap_w",
    "asleep",
    "temperature_c",
    "busy_percent",
    "vram_mib",
    "vram_used_mib",
)
GPU_SAID = st.dictionaries(st.sampled_from(GPU_KEYS), JSON)
ENGINE_SAID = st.dictionaries(st.sampled_from(("service", "active", "models", "running", "waiting")), JSON)
TOLD = st.fixed_dictionaries(
    {"gpus": st.lists(GPU_SAID, max_size=2) | JSON, "engines": st.lists(ENGINE_SAID, max_size=2)}
)
HOST_SAID = st.fixed_dictionaries(
    {"host": st.text(min_size=1, max_size=5), "talking": st.booleans(), "telemetry": TOLD | JSON},
    optional={name: JSON for name in HOST_KEYS if name not in ("talking", "telemetry")},
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(HOST_SAID, max_size=3), JSON, st.lists(st.dictionaries(st.text(max_size=5), JSON), max_size=3)
)
def test_whatever_is_said_a_page_can_be_written_of_it(
    hosts: list[Any], energy: Any, events: list[dict[str, Any]]
) -> None:
    used = energy if isinstance(energy, dict) else {"rack": energy}
    seen = Seen(NOW, "", {"hosts": hosts, "paused": energy}, tuple(events), used, FINDINGS)
    text = writing.page("live.html", page=view.page(table(), seen), acts=True)
    assert "<script" not in text
    assert text.count("<article") == len(hosts)


def test_health_that_nobody_looked_after_is_not_good_health() -> None:
    seen = Seen(NOW, findings=None)
    text = writing.page("live.html", page=view.page(table(), seen), acts=False)
    assert "Nothing is known: no health check has left its results here." in text
    late = Seen(FINDINGS.at + 7200, findings=FINDINGS)
    assert "is labctl-health.timer running?" in view.page(table(), late).checked


@pytest.mark.parametrize(
    ("verb", "answer", "said"),
    [
        ("wake", {"ok": None, "mode": "waking", "because": "round 1"}, "Asked for. rig is waking: round 1."),
        ("wake", {"ok": True, "mode": "ready", "because": "it serves"}, "rig is ready: it serves."),
        ("suspend", {"ok": False, "mode": "ready", "because": "ann"}, "rig is not put to sleep: ann."),
        ("hold", {"ok": True}, "rig is held."),
        ("release", {"ok": False, "because": "nobody holds it"}, "rig: nobody holds it."),
        ("wake", "nonsense", "Asked for. rig is as it was: nothing more is known yet."),
    ],
)  # fmt: skip
def test_an_answer_is_a_sentence(verb: str, answer: object, said: str) -> None:
    assert orders.told("rig", verb, {"hosts": {"rig": answer}}) == said


def test_results_are_called_old_by_how_often_checks_are_run() -> None:
    seen = Seen(FINDINGS.at + 2 * HOUR, findings=FINDINGS)
    assert "which is long" in view.page(table(), seen).checked
    seldom = RACK.model_copy(update={"health": Health(every=timedelta(hours=1))})
    stale_s = json.loads(rendering.ready(seldom, Path(), {}).table)["stale_s"]
    assert "which is long" not in view.page(table(stale_s=stale_s), seen).checked


# --- looking costs little


def test_many_who_look_cost_one_question_a_second_and_energy_one_a_minute() -> None:
    asked: list[str] = []
    now = [0.0]

    def ask(verb: str, by: str, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        asked.append(verb)
        return [{"done": True, "hosts": [], "after": 5}]

    around = sources(ask)
    looking = Sight(sight.Sources(ask, around.findings, around.wall, lambda: now[0]))
    for _ in range(100):
        looking.look()
    assert asked == ["status", "events", "energy"]
    for second in range(60):
        now[0] = float(second + 1)
        looking.look()
    assert (asked.count("status"), asked.count("energy")) == (61, 2)
    looking.forget()
    looking.look()
    assert asked.count("status") == 62


def test_a_store_that_does_not_answer_is_waited_for_once_in_a_look() -> None:
    asked: list[str] = []

    def ask(verb: str, by: str, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        asked.append(verb)
        if verb != "status":
            raise LabctlError("the controller does not answer")
        return [{"done": True}]

    assert Sight(sources(ask)).look().trouble == ""
    assert asked == ["status", "events"]


def test_what_happened_is_read_once_and_anew_from_another_store() -> None:
    kept = [{"event": 40 + number, "at": NOW, "text": f"line {number}"} for number in range(3)]
    asked: list[int] = []

    def ask(verb: str, by: str, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if verb != "events":
            return [{"done": True}]
        asked.append(fields["after"])
        found = [one for one in kept if one["event"] > fields["after"]][-fields["most"] :]
        return [*found, {"done": True, "after": max([fields["after"], *(one["event"] for one in found)])}]

    looking = Sight(sources(ask))

    def lines() -> list[str]:
        looking.forget()
        return [one["text"] for one in looking.look().events]

    assert lines() == ["line 0", "line 1", "line 2"]
    kept.append({"event": 43, "at": NOW, "text": "line 3"})
    assert lines() == ["line 0", "line 1", "line 2", "line 3"]
    assert lines() == ["line 0", "line 1", "line 2", "line 3"]
    assert asked == [0, 41, 42]
    kept[:] = [{"event": 1, "at": NOW, "text": "a new store"}]
    assert lines() == ["a new store"]
    kept[:] = [{"event": 1, "at": NOW, "text": "one more"}, {"event": 2, "at": NOW, "text": "and on"}]
    assert lines() == ["one more", "and on"]
    kept.clear()
    assert lines() == []


def test_an_older_controller_that_counts_no_energy_is_still_shown() -> None:
    def ask(verb: str, by: str, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if verb != "status":
            raise LabctlError(f"there is no {verb}")
        return [{"done": True, "hosts": [{"host": "rig", "mode": "ready"}]}]

    seen = Sight(sources(ask)).look()
    assert (seen.trouble, seen.energy, len(seen.hosts)) == ("", None, 1)


# --- what its host gets


def test_the_table_has_hashes_and_no_key(tmp_path: Path) -> None:
    secret = tmp_path / "web.key"
    secret.write_text("s3cret-canary\n")
    secret.chmod(0o600)
    keys = (
        WebKey(name="ann", secret=Secret(file=Path("web.key"))),
        WebKey(name="b", sha256="AB" * 32, acts=False),
    )
    rack = RACK.model_copy(update={"web": Web(keys=keys)})
    parts = rendering.ready(rack, tmp_path, {})
    assert "s3cret-canary" not in parts.table
    path = tmp_path / "table.json"
    path.write_text(parts.table)
    read = read_table(path)
    assert [(key.sha256, key.acts) for key in read.keys] == [
        (hashlib.sha256(b"s3cret-canary").hexdigest(), True),
        ("ab" * 32, False),
    ]
    assert read.meters == rendering.meters_of(rack)
    secret.chmod(0o644)
    with pytest.raises(LabctlError, match="others may read the secret"):
        rendering.ready(rack, tmp_path, {})


def test_two_keys_that_are_one_are_refused(tmp_path: Path) -> None:
    keys = tuple(WebKey(name=name, secret=Secret(env=f"KEY_{name.upper()}")) for name in ("a", "b"))
    rack = RACK.model_copy(update={"web": Web(keys=keys)})
    with pytest.raises(LabctlError, match="web: b is the same key as a"):
        rendering.ready(rack, tmp_path, {"KEY_A": "one", "KEY_B": "one"})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', "\x00"])
def test_a_table_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(LabctlError, match="is no table of the web page"):
        read_table(path)


def test_it_listens_beyond_loopback_only_with_keys() -> None:
    with pytest.raises(LabctlError, match=r"has no keys and would listen on 0\.0\.0\.0"):
        serving.refuse_open_door(table(listen="0.0.0.0", keys=()))
    serving.refuse_open_door(table(listen="0.0.0.0"))
    serving.refuse_open_door(table(keys=()))


def test_a_port_that_somebody_has_is_said() -> None:
    with serving.listening(table()) as sock:
        with pytest.raises(LabctlError, match=r"cannot listen on 127\.0\.0\.1 port"):
            serving.listening(table(port=sock.getsockname()[1]))


def test_its_unit_may_do_little_and_the_controllers_can_tell_who_it_is(tmp_path: Path) -> None:
    unit = tmp_path / rendering.UNIT
    unit.write_text(rendering.unit(RACK, rendering.Ready("{}", {})))
    program = shutil.which("systemd-analyze")
    assert program is not None, "install systemd"
    argv = [program, "security", "--offline=true", "--threshold=13", "--no-pager", "--json=short", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PrivateUsers=yes" not in controller.unit(RACK, "0" * 64)
    assert "web" not in json.loads(controller.rack_json(RACK))


@pytest.mark.parametrize("comes", ["gateway", "health", "web"])
def test_whoever_comes_to_the_controllers_socket_means_one_restart_of_it(comes: str) -> None:
    # It looks only at its start who they are, and refuses all others; with operators nothing else changes.
    guests = {"gateway": Gateway(host="hub"), "health": Health(), "web": Web()}
    known = {"controller": Controller(host="hub", operators=("ann",)), **guests}
    after, before = (RACK.model_copy(update={**known, **change}) for change in ({}, {comes: None}))
    assert controller.unit(before, "0" * 64) != controller.unit(after, "0" * 64)


def test_another_table_or_certificate_is_another_unit() -> None:
    parts = [("{}", {}), ("{ }", {}), ("{}", {"a": b"1"}), ("{}", {"a": b"2"})]
    assert len({rendering.unit(RACK, rendering.Ready(text, files)) for text, files in parts}) == 4


def test_the_firewall_opens_its_port_where_others_shall_reach_it() -> None:
    hub = RACK.hosts[1]
    key = WebKey(name="a", sha256="ab" * 32)
    assert firewall.own_ports(RACK, hub) == {}
    opened = RACK.model_copy(update={"web": Web(listen="0.0.0.0", keys=(key,))})
    assert firewall.own_ports(opened, hub) == {8090: "labctl web"}
    assert firewall.own_ports(opened, RACK.hosts[0]) == {}


# --- what it loads


def test_libraries_are_as_they_were_published() -> None:
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ASSETS.glob("*.min.js")} == {
        "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
        "idiomorph-ext.min.js": "5811b9a7eda14878b7dab4378bf60432e1bb6f11fcfb970cc26540642650181e",
        "sse.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
    }
