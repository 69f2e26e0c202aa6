"""Engines: dead or saturated, on their cards or not, by their configuration or an older one; as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.capping import Declared
from labctl.domain.health.checks.serving import EnginePlacement, EngineProgress, SwapConfig
from labctl.domain.health.evidence import Engine, Evidence, Gpu
from labctl.domain.health.expected import Expected, ExpectedEngine, ExpectedGpu
from labctl.domain.health.progress import APART_S, KEPT, SILENT_S, remember, standing, with_look
from labctl.domain.health.terms import Case, Check, EnginePast, Level, Look, Result

CARDS = tuple(Gpu("nvidia", f"GPU-{n}", f"0000:0{n}:00.0", "RTX 3090") for n in (1, 2, 3))
DECLARED = tuple(
    ExpectedGpu(
        f"slot{n}",
        f"GPU-{n}",
        "rtx-3090",
        "nvidia",
        None,
        declared=Declared("rtx-3090", f"slot{n}", f"GPU-{n}"),
    )
    for n in (1, 2, 3)
)
CHAT = Engine(
    "chat", "labctl-chat.service", "llama-server", "active", "running", 0, 200, running=0, waiting=0,
    tokens=9.0, pulse=9.0, gpus=("GPU-1",), gpu_mib=20_000,
)  # fmt: skip
SWAP = Engine(
    "swap", "labctl-swap.service", "llama-swap", "active", "running", 0, 200,
    config="aa", config_file="aa", config_sha256="cc",
)  # fmt: skip
WANTED = (
    ExpectedEngine("chat", "llama-server", ("slot1",)),
    ExpectedEngine("swap", "llama-swap", (), "aa", "cc"),
)


def case(*engines: Engine, wanted: tuple[ExpectedEngine, ...] = WANTED, looks: tuple[Look, ...] = ()) -> Case:
    evidence = Evidence(1000.0, "1", "b", gpus=CARDS, engines=engines)
    past = (EnginePast("chat", looks),) if looks else ()
    return Case(Expected("box", DECLARED, wanted), evidence, "", None, None, past, 1000.0)


def one(check: Check, given: Case, subject: str = "chat") -> Result | None:
    found = [result for result in check.judge(given) if result.subject == subject]
    assert len(found) < 2
    return found[0] if found else None


# --- progress ---


@pytest.mark.parametrize(
    ("engine", "level", "reason"),
    [
        (CHAT, Level.OK, "it has nothing to do"),
        (replace(CHAT, running=2), Level.OK, "2 requests running, 0 waiting"),
        (replace(CHAT, running=2, waiting=9), Level.OK, "it is saturated: 2 requests running, 9 waiting"),
        (replace(CHAT, active="failed", sub="failed"), Level.CRIT, "it does not run: failed (failed)"),
        (replace(CHAT, active="activating", sub="auto-restart"), Level.CRIT, "it does not run"),
        (replace(CHAT, active="activating", sub="start"), Level.UNKNOWN, "it is starting"),
        (replace(CHAT, active="inactive", sub="dead"), Level.WARN, "it is switched off: inactive (dead)"),
        (replace(CHAT, active="inactive", sub="dead", rests=True), Level.OK, "labctl stopped it for as long"),
        (replace(CHAT, active="failed", sub="failed", rests=True), Level.CRIT, "it does not run"),
        (replace(CHAT, active="", sub=""), Level.UNKNOWN, "systemd does not say whether it runs"),
        (replace(CHAT, answer=503, running=None, pulse=None), Level.OK, "it loads its model"),
        (replace(CHAT, answer=None, running=None, pulse=None), Level.UNKNOWN, "it does not answer"),
        (replace(CHAT, running=None, pulse=None, note="it answers 401"), Level.UNKNOWN, "it answers 401"),
        (replace(CHAT, running=None, pulse=None, waiting=None), Level.OK, "it does not count its requests"),
    ],
)  # fmt: skip
def test_a_single_look_at_an_engine(engine: Engine, level: Level, reason: str) -> None:
    found = one(EngineProgress(), case(engine))
    assert found is not None
    assert (found.level, reason in found.reason) == (level, True), found
    assert bool(found.cure) == (level is not Level.OK)


def test_an_engine_of_the_rack_file_that_is_not_there_is_said() -> None:
    found = one(EngineProgress(), case())
    assert found is not None and (found.level, found.reason) == (Level.CRIT, "its unit is not on the host")


def test_without_the_section_nothing_is_well() -> None:
    given = case()
    bare = replace(given, evidence=Evidence(1.0, "", "", errors={"engines": "systemctl does not answer"}))
    (found,) = EngineProgress().judge(bare)
    assert (found.level, found.reason) == (Level.UNKNOWN, "not known: systemctl does not answer")
    assert list(EngineProgress().judge(replace(given, evidence=None))) == []


LOOKS = st.builds(
    Look,
    at=st.just(0.0),
    requests=st.none() | st.integers(0, 3),
    pulse=st.none() | st.sampled_from([1.0, 2.0]),
    answered=st.booleans(),
    silent=st.booleans(),
)


@given(st.lists(st.tuples(LOOKS, st.floats(-5.0, 2000.0)), max_size=60))
def test_nobody_is_dead_but_by_three_equal_looks_or_a_long_silence(given: list[tuple[Look, float]]) -> None:
    looks: tuple[Look, ...] = ()
    seen: list[Look] = []
    at = 1000.0
    for said, after in given:
        at += after
        new = said._replace(at=at)
        looks = with_look(looks, new)
        seen.append(new)
        assert len(looks) <= KEPT
        stand = standing(looks)
        if stand.is_dead:
            equal = [look for look in looks if look.requests and look.pulse is not None]
            by_looks = len(equal) >= 3 and len({look.pulse for look in equal}) == 1
            assert by_looks or stand.for_s >= SILENT_S
            assert looks[-1].at - looks[0].at >= 2 * APART_S


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 500)), min_size=1, max_size=100))
def test_whoever_computes_is_never_dead_whatever_waits(given: list[tuple[int, int]]) -> None:
    looks: tuple[Look, ...] = ()
    for number, (running, waiting) in enumerate(given):
        looks = with_look(
            looks, Look(number * APART_S, running + waiting, float(number), answered=number % 3 == 0)
        )
        assert not standing(looks).is_dead and not standing(looks).is_deaf


def test_what_is_remembered_is_of_engines_that_run() -> None:
    now = Evidence(50.0, "", "", engines=(CHAT, replace(SWAP, active="failed")))
    kept = remember((EnginePast("swap", ()), EnginePast("gone", ())), now)
    assert kept == (EnginePast("chat", (Look(50.0, 0, 9.0),)),)
    assert remember(kept, Evidence(60.0, "", "")) == kept


# --- placement ---


@pytest.mark.parametrize(
    ("engine", "gpus", "level", "reason"),
    [
        (CHAT, ("slot1",), Level.OK, "it is on slot1"),
        (replace(CHAT, gpus=()), ("slot1",), Level.CRIT, "it runs on the processor: it is on no card"),
        (replace(CHAT, device="cpu"), ("slot1",), Level.CRIT, "its layers are all in main memory"),
        (replace(CHAT, gpu_mib=90), ("slot1",), Level.CRIT, "it holds no more than 90 MiB on cards"),
        (replace(CHAT, gpus=("GPU-2",)), ("slot1",), Level.CRIT, "it is on slot2, which it was not given"),
        (replace(CHAT, gpus=("0000:02:00.0",)), ("slot1",), Level.CRIT, "it is on slot2, which"),
        (CHAT, ("slot1", "slot3"), Level.WARN, "it holds nothing on slot3"),
        (replace(CHAT, gpus=None), ("slot1",), Level.UNKNOWN, "on which cards it runs is not known"),
        (replace(CHAT, gpus=None, device="gpu"), ("slot1",), Level.OK, "it says that it runs on cards"),
        (CHAT, (), Level.WARN, "it is to run on the processor, and holds memory on slot1"),
        (replace(CHAT, gpus=()), (), None, ""),
        (replace(CHAT, answer=503), ("slot2",), None, ""),
        (replace(CHAT, active="failed"), ("slot2",), None, ""),
    ],
)  # fmt: skip
def test_where_an_engine_is(engine: Engine, gpus: tuple[str, ...], level: Level | None, reason: str) -> None:
    found = one(EnginePlacement(), case(engine, wanted=(ExpectedEngine("chat", "llama-server", gpus),)))
    assert (None if found is None else found.level) == level
    assert found is None or reason in found.reason


def test_a_llama_swap_without_models_of_its_own_is_judged_by_its_file() -> None:
    front = (ExpectedEngine("swap", "llama-swap", (), "", "cc"),)
    quiet = replace(SWAP, config="", config_file="")
    found = one(SwapConfig(), case(quiet, wanted=front), "swap")
    assert found is not None and (found.level, found.informs) == (Level.OK, True)
    found = one(SwapConfig(), case(replace(quiet, config_sha256="dd"), wanted=front), "swap")
    assert found is not None and found.level is Level.WARN
    assert "its file is not what the rack file renders" in found.reason
    found = one(SwapConfig(), case(replace(quiet, note="it answers 401"), wanted=front), "swap")
    assert found is not None and found.level is Level.UNKNOWN


def test_an_ollama_is_judged_when_it_has_a_model_loaded_and_need_not_be_on_all_its_cards() -> None:
    wanted = (ExpectedEngine("chat", "ollama", ("slot1", "slot2")),)
    empty = replace(CHAT, kind="ollama", models=(), gpus=())
    assert one(EnginePlacement(), case(empty, wanted=wanted)) is None
    loaded = replace(empty, models=(("m", "ready"),), gpus=("GPU-2",), note="a part is in main memory")
    found = one(EnginePlacement(), case(loaded, wanted=wanted))
    assert found is not None and found.level is Level.OK
    assert found.reason == "it is on slot2; a part is in main memory"


# --- llama-swap ---


@pytest.mark.parametrize(
    ("engine", "level", "reason"),
    [
        (SWAP, Level.OK, "it runs by what the rack file renders"),
        (replace(SWAP, config="bb"), Level.WARN, "it runs by an older configuration than its file"),
        (replace(SWAP, config_sha256="dd"), Level.WARN, "its file was changed by hand"),
        (replace(SWAP, config_sha256="dd", config_file="b"), Level.WARN, "its file is not what the rack"),
        (replace(SWAP, config_sha256=""), Level.UNKNOWN, "its configuration on the host cannot be read"),
        (replace(SWAP, config="", note="it answers 401"), Level.UNKNOWN, "it answers 401"),
        (replace(SWAP, config=""), Level.UNKNOWN, "it lists no model of its own"),
        (replace(SWAP, active="failed"), None, ""),
    ],
)  # fmt: skip
def test_by_which_configuration_a_llama_swap_runs(engine: Engine, level: Level | None, reason: str) -> None:
    found = one(SwapConfig(), case(engine), "swap")
    assert (None if found is None else found.level) == level
    assert found is None or reason in found.reason
