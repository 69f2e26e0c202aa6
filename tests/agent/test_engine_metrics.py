"""What engines count, and what is made of it: the agent's own code asks doubles on loopback, a clock is told.

The doubles note every request, so that it is seen what asking never does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.agent import enginemetrics
from labctl.agent import engines as units
from labctl.agent.config import Engine
from labctl.domain.health import judging
from labctl.domain.health.checks.serving import EngineProgress
from labctl.domain.health.evidence import Evidence
from labctl.domain.health.expected import Expected, ExpectedEngine
from labctl.domain.health.progress import APART_S, SILENT_S, STRIKES, remember
from labctl.domain.health.reading import evidence_of
from labctl.domain.health.terms import Case, EnginePast, Level, Result
from labctl.health.looking import Memory, Rules, Told, look
from labctl.lab.fake.programs.moody import HARMLESS, Moody
from labctl.render.llamaswap.config import FOLDER

MINUTE_S = 60.0
COUNTING = ("llama-server", "vllm", "sglang")
START = {"sglang": ("python", "-m", "sglang.launch_server")}


class Box:
    """A host with engines, which is looked at again and again; ``wall`` is its clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wall = 1_764_400_000.0
        self.past: tuple[EnginePast, ...] = ()
        self.engines: dict[str, Moody] = {}
        (root / units.UNITS).mkdir(parents=True)

    def runs(self, kind: str, mood: str = "well", name: str = "") -> Moody:
        """Have an engine, with its unit."""
        name = name or kind.replace("-", "")
        made = self.engines[name] = Moody(kind, mood).start()
        port = made.url.rpartition(":")[2]
        listen = ("-listen", f"127.0.0.1:{port}") if kind == "llama-swap" else ("--port", port)
        words = " ".join(f'"{word}"' for word in (*START.get(kind, (f"/opt/{kind}",)), *listen))
        environment = f'Environment="OLLAMA_HOST=127.0.0.1:{port}"\n' if kind == "ollama" else ""
        text = f"# By labctl\n{units.MARKER} {name}\n[Service]\n{environment}ExecStart={words}\n"
        (self.root / units.UNITS / f"labctl-{name}.service").write_text(text)
        return made

    def document(self) -> dict[str, Any]:
        """Return what the host says, as it comes over the wire."""
        said = {"at": self.wall, "engines": enginemetrics.engines(self.root)}
        found: dict[str, Any] = json.loads(json.dumps(said))
        return found

    def evidence(self) -> Evidence:
        return evidence_of(self.document())

    def look(self, after_s: float = MINUTE_S) -> dict[str, Result]:
        """Look once more, so many seconds later; return what is found of each engine."""
        self.wall += after_s
        evidence = self.evidence()
        self.past = remember(self.past, evidence)
        expected = Expected(
            "box", engines=tuple(ExpectedEngine(name, one.kind, ()) for name, one in self.engines.items())
        )
        case = Case(expected, evidence, "", None, None, self.past, self.wall)
        return {one.subject: one for one in EngineProgress().judge(case)}

    def did_no_harm(self) -> bool:
        return all(set(one.asked) <= HARMLESS[one.kind] for one in self.engines.values())


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    state = {"active": "active", "sub": "running", "restarts": 0, "since": None}
    monkeypatch.setattr(units, "_states", lambda names: dict.fromkeys(names, state))
    made = Box(tmp_path)
    yield made
    for one in made.engines.values():
        one.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enginemetrics, "_LIMIT_S", 0.02)
    monkeypatch.setattr(units, "_ASKED_FOR_S", 0.02)


def levels(box: Box, count: int, after_s: float = MINUTE_S) -> list[Level]:
    (name,) = box.engines
    return [box.look(after_s)[name].level for _ in range(count)]


# --- dead and not dead ---


@pytest.mark.parametrize("kind", COUNTING)
def test_an_engine_that_hangs_behind_a_green_health_page_is_found_within_three_looks(
    box: Box, kind: str
) -> None:
    engine = box.runs(kind)
    assert levels(box, 2) == [Level.OK, Level.OK]
    engine.mood = "hung"
    assert levels(box, 3)[-1] is Level.CRIT
    found = next(iter(box.look().values()))
    assert "has 1 request and has computed nothing for" in found.reason
    assert "though its health page answers 200" in found.reason
    assert found.cure.startswith("systemctl restart labctl-")
    engine.mood = "well"
    assert levels(box, 1) == [Level.OK]


@pytest.mark.parametrize("kind", COUNTING)
def test_a_saturated_engine_is_never_called_dead_in_a_hundred_looks(box: Box, kind: str) -> None:
    engine = box.runs(kind, "saturated")
    found = [next(iter(box.look(APART_S).values())) for _ in range(100)]
    assert {one.level for one in found} == {Level.OK}
    assert all(one.informs and "it is saturated: 4 requests running" in one.reason for one in found)
    assert engine.waiting == 300
    assert box.did_no_harm()


def test_looks_that_follow_too_closely_find_nobody_dead(box: Box) -> None:
    box.runs("vllm", "hung")
    assert set(levels(box, 30, after_s=0.5)) == {Level.OK}
    assert levels(box, STRIKES - 1, after_s=APART_S) == [Level.OK, Level.CRIT]


def test_one_that_answers_no_health_page_and_computes_is_not_dead(
    box: Box, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.runs("vllm", "saturated")
    monkeypatch.setattr(units, "_ask", lambda unit, root: None)
    found = [box.look()["vllm"] for _ in range(4)]
    assert {one.level for one in found} == {Level.OK}


def test_one_whose_counters_do_not_come_may_be_in_a_long_batch_until_no_batch_takes_that_long(
    box: Box, impatient: None
) -> None:
    box.runs("llama-server", "silent")
    before = int(SILENT_S / MINUTE_S)
    assert set(levels(box, before)) == {Level.UNKNOWN}
    assert levels(box, 1) == [Level.CRIT]
    assert "no sign of life for" in box.look()["llamaserver"].reason


def test_one_that_answers_nothing_is_deaf_before_it_is_dead(box: Box, impatient: None) -> None:
    box.runs("sglang", "deaf")
    assert levels(box, STRIKES) == [Level.UNKNOWN, Level.UNKNOWN, Level.WARN]
    assert levels(box, 1, after_s=SILENT_S) == [Level.CRIT]


def test_one_that_loads_or_has_nothing_to_do_is_well(box: Box) -> None:
    engine = box.runs("llama-server", "loading")
    assert set(levels(box, 4)) == {Level.OK}
    assert box.look()["llamaserver"].reason == "it loads its model"
    engine.mood = "idle"
    assert set(levels(box, 4)) == {Level.OK}
    assert box.look()["llamaserver"].reason == "it has nothing to do"


def test_one_below_llama_swap_is_found_by_its_own_name_past_llama_swap(box: Box) -> None:
    inner = box.runs("llama-server", "hung")
    swap = box.runs("llama-swap", name="swap")
    (box.root / units.UNITS / "labctl-llamaserver.service").unlink()
    del box.engines["llamaserver"]
    swap.below = [("qwen", "/opt/llama-server --port 5800", inner.url)]
    found = [box.look() for _ in range(STRIKES)][-1]
    assert found["swap/qwen"].level is Level.CRIT
    assert found["swap"].level is Level.OK
    assert set(swap.asked) == {"/running", "/v1/models"}
    assert set(inner.asked) == {"/metrics"}
    inner.close()


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("/opt/llama-server --sleep-idle-seconds 60", "http://127.0.0.1:1"),
        ("/opt/llama-server", "http://10.0.0.9:8080"),
        ("/opt/llama-server", "http://127.0.0.1.evil.example:80"),
    ],
)
def test_what_llama_swap_runs_is_not_asked_where_that_counts_as_use_or_leads_elsewhere(
    box: Box, command: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = box.runs("llama-swap", name="swap")
    swap.below = [("qwen", command, place)]
    asked: list[str] = []
    get = enginemetrics.http.get

    def noted(url: str, path: str, **more: Any) -> Any:
        asked.append(url)
        return get(url, path, **more)

    monkeypatch.setattr(enginemetrics.http, "get", noted)
    assert box.look()["swap/qwen"].level is Level.OK
    assert set(asked) == {swap.url}


def test_ollama_says_where_its_models_are(box: Box) -> None:
    engine = box.runs("ollama")
    for share, device, note in ((1.0, "gpu", ""), (0.5, "gpu", "main memory"), (0.0, "cpu", "")):
        engine.in_vram = share
        (found,) = box.evidence().engines or ()
        assert (found.device, note in found.note) == (device, True)
    assert found.models == (("m", "ready"),)


def test_llama_swap_says_by_what_it_runs_and_its_file_what_it_holds(box: Box) -> None:
    assert f"/{enginemetrics.CONFIGS}" == FOLDER
    swap = box.runs("llama-swap", name="swap")
    swap.below, swap.digest = [("qwen", "python x.py", "")], "0123456789abcdef"
    file = box.root / enginemetrics.CONFIGS / "swap.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("models:\n  qwen:\n    metadata:\n      labctl: 'fedcba9876543210'\n")
    (found,) = box.evidence().engines or ()
    assert (found.config, found.config_file) == ("0123456789abcdef", "fedcba9876543210")
    assert len(found.config_sha256) == 64


@pytest.mark.parametrize("page", ["", "<html>", "x" * 9, "vllm:num_requests_running -1\n", "\xff{"])
def test_a_page_that_is_none_is_nothing_known_and_never_well(
    box: Box, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = box.runs("vllm")
    monkeypatch.setattr(engine, "_metrics", lambda: page)
    found = [box.look()["vllm"] for _ in range(4)]
    assert {one.level for one in found} == {Level.UNKNOWN}


def test_its_key_is_shown_and_a_missing_one_is_said(box: Box) -> None:
    one = Engine("e", "vllm", "labctl-e.service", box.runs("vllm").url, key_file="/etc/labctl/agent-keys/e")
    said = enginemetrics.counted(one, box.root)
    assert said == enginemetrics.Counts(note="its key is not in /etc/labctl/agent-keys/e")
    (box.root / "etc/labctl/agent-keys").mkdir(parents=True)
    (box.root / "etc/labctl/agent-keys/e").write_text("key\n")
    assert enginemetrics.counted(one, box.root).running == 1


# --- a line of the watch ---


def test_a_line_of_the_watch_says_models_requests_and_tokens(box: Box) -> None:
    vllm, ollama = box.runs("vllm"), box.runs("ollama")
    llama, loads = box.runs("llama-server", name="l"), box.runs("llama-server", "loading", name="n")
    wanted = [
        Engine("chat", "vllm", "labctl-vllm.service", vllm.url),
        Engine("o", "ollama", "labctl-ollama.service", ollama.url),
        Engine("db", "pgvector", "labctl-db.service", ""),
        Engine("l", "llama-server", "labctl-l.service", llama.url, model="q"),
        Engine("n", "llama-server", "labctl-n.service", loads.url, model="q"),
    ]
    nobody = {"models": [], "running": None, "waiting": None, "tokens": None, "active": True}
    assert enginemetrics.now(wanted, box.root) == [
        {**nobody, "service": "chat", "kind": "vllm", "models": ["m"], "running": 1, "waiting": 0,
         "tokens": 1307.0},
        {**nobody, "service": "o", "kind": "ollama", "models": ["m"]},
        {**nobody, "service": "db", "kind": "pgvector"},
        {**nobody, "service": "l", "kind": "llama-server", "models": ["q"], "running": 1, "waiting": 0,
         "tokens": 4600.0},
        {**nobody, "service": "n", "kind": "llama-server"},
    ]  # fmt: skip
    (box.root / "sys/fs/cgroup/system.slice").mkdir(parents=True)
    vllm.asked.clear()
    assert [one["active"] for one in enginemetrics.now(wanted, box.root)] == [False] * 5
    assert vllm.asked == []


def test_a_line_of_the_watch_waits_for_nobody(box: Box) -> None:
    deaf = [box.runs("vllm", "deaf", name=f"e{n}") for n in range(5)]
    wanted = [Engine(f"e{n}", "vllm", f"e{n}", one.url) for n, one in enumerate(deaf)]
    began = time.monotonic()
    rows = enginemetrics.now(wanted, box.root, limit_s=0.05)
    assert time.monotonic() - began < 2
    assert [row["running"] for row in rows] == [None] * 5


# --- a thousand runs ---


def test_a_thousand_runs_wake_nobody_load_nothing_and_generate_nothing(box: Box) -> None:
    llama, swap = box.runs("llama-server", "idle"), box.runs("llama-swap", name="swap")
    box.runs("ollama")
    swap.below = [("qwen", "/opt/llama-server", llama.url)]
    connected: list[str] = []

    def ask(hosts: Any) -> dict[str, Any]:
        connected.extend(hosts)
        return {host: box.document() for host in hosts}

    asleep = [{"host": name, "mode": mode} for name, mode in (("a", "asleep"), ("b", "suspending"))]
    told = Told(declared=True, status={"hosts": [*asleep, {"host": "box", "mode": "ready"}]})
    wanted = [Expected("a"), Expected("b"), Expected("box")]
    rules = Rules(evidence_of, judging.judge, lambda cases, now: (), remember)
    _run(1000, lambda memory: look(wanted, lambda: told, ask, rules, memory, lambda: box.wall).memory)
    assert connected == ["box"] * 1000
    assert box.did_no_harm()
    assert {path for one in box.engines.values() for path in one.asked} >= {"/health", "/metrics", "/api/ps"}


def _run(times: int, once: Callable[[Memory], Memory]) -> None:
    memory = Memory()
    for _ in range(times):
        memory = once(memory)
