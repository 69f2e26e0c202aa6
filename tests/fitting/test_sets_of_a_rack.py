"""From a rack to what is loaded together, how each engine runs it, and whether it fits."""

from __future__ import annotations

import pytest

from fit_racks import engine, judged, model, rack, shape, sizes, swap
from labctl.domain.fit.terms import GIB, MIB, Use
from labctl.domain.problem import Problem
from labctl.inventory import (
    Command,
    Gpu,
    Host,
    LlamaServer,
    Ollama,
    PrivateNet,
    Rack,
    RpcServer,
    Sglang,
    SwapGroup,
    SwapMatrix,
    TabbyApi,
    Vllm,
)
from labctl.inventory.fitting import Asked, Sizes, can_be_judged, host_fit, refusals, tried, unknowns, use_key
from labctl.inventory.served import Served, loads
from labctl.inventory.uses import use

CARDS = (Gpu(model="RTX 3090", slot="slot0"), Gpu(model="RTX 3090", slot="slot1", display=True))


def told(wanted: Rack, known: Sizes) -> list[str]:
    """Return what is refused of the host rig."""
    return [problem.reason for _, problem in refusals(judged(wanted, known))]


# --- devices ---


def test_a_card_keeps_a_part_for_its_driver_and_one_for_a_monitor() -> None:
    (found,) = loads(rack(gpus=CARDS, memory_gib=64))
    assert [(one.name, one.kind, one.usable_bytes / GIB) for one in found.devices] == [
        ("slot0", "gpu", 23.5),
        ("slot1", "gpu", 22.5),
        ("main memory", "ram", 60.0),
    ]


def test_a_chip_and_its_main_memory_are_one_pool() -> None:
    (found,) = loads(rack(gpus=(Gpu(model="GB10", slot="gpu"),), unified_memory_gib=128))
    assert {(one.shared, one.usable_bytes // GIB) for one in found.devices} == {("unified memory", 120)}


def test_engines_that_compute_on_the_processor_are_given_no_card() -> None:
    (found,) = loads(rack(engine("a", port=1), backend="none", memory_gib=32))
    assert [device.kind for device in found.served[0].devices] == ["ram"]


# --- what is loaded together ---


def test_services_are_always_loaded_and_count_beside_every_set() -> None:
    both = rack(engine("c", port=8080), swap("a", "b"))
    assert told(both, sizes(a=12, b=12, c=9)) == []
    assert told(both, sizes(a=12, b=14, c=9)) == [
        "llama-swap: b + c need 24.8 GiB of GPU slot0 (23.5 usable)"
    ]


def test_an_over_committed_matrix_is_refused_and_its_set_named() -> None:
    matrix = SwapMatrix(sets={"big": "a & b", "small": "c & d", "alone": "a | d"})
    found = judged(rack(swap(*"abcd", matrix=matrix)), sizes(a=13, b=11, c=5, d=6))
    ((path, problem),) = refusals(found)
    assert problem.reason == 'llama-swap matrix set "big": a + b need 25.8 GiB of GPU slot0 (23.5 usable)'
    assert path == ("hosts", 0, "services", 0, "matrix", "sets", "big")
    assert found.fits is False
    assert [one.verdict.fits for one in found.sets] == [False, True, True, True]


def test_of_many_combinations_of_one_set_the_worst_is_told() -> None:
    matrix = SwapMatrix(sets={"big": "(a | b) & (c | d)"})
    (reason,) = told(rack(swap(*"abcd", matrix=matrix)), sizes(a=13, b=14, c=12, d=4))
    assert reason == (
        'llama-swap matrix set "big": b + c need 27.8 GiB of GPU slot0 (23.5 usable)'
        "; 1 more combination of it is over"
    )


def test_a_group_that_is_not_exclusive_meets_one_that_is() -> None:
    groups = (
        SwapGroup(name="big", members=("a", "b")),
        SwapGroup(name="small", members=("c",), exclusive=False),
    )
    reasons = told(rack(swap(*"abc", groups=groups)), sizes(a=20, b=10, c=5))
    assert reasons == ['llama-swap group "big + small": a + c need 26.8 GiB of GPU slot0 (23.5 usable)']


def test_without_groups_models_take_turns() -> None:
    assert told(rack(swap(*"abcd")), sizes(a=20, b=20, c=20, d=20)) == []


def test_a_set_that_cannot_be_read_is_refused() -> None:
    reasons = told(rack(swap("a", matrix=SwapMatrix(sets={"big": "a & z"}))), sizes(a=1))
    assert reasons == ["set 'big' there is no model or var 'z' in this llama-swap"]


def test_each_engine_is_judged_by_the_cards_that_it_may_use() -> None:
    one_each = rack(engine("a", port=1, gpus=("slot0",)), engine("b", port=2, gpus=("slot1",)), gpus=CARDS)
    assert told(one_each, sizes(a=20, b=20)) == []
    same = rack(engine("a", port=1, gpus=("slot0",)), engine("b", port=2, gpus=("slot0",)), gpus=CARDS)
    assert told(same, sizes(a=20, b=20)) == [
        "service e-a and service e-b: a + b need 41.8 GiB of GPU slot0 (23.5 usable)"
    ]


@pytest.mark.parametrize(
    ("limit", "reasons"),
    [
        (None, []),
        (2, ["Ollama o with max_loaded_models=2: b + c need 24.8 GiB of GPU slot0 (23.5 usable)"]),
        (
            3,
            ["Ollama o with max_loaded_models=3: a + b + c need 33.7 GiB of GPU slot0 (23.5 usable)"],
        ),
    ],
)
def test_ollama_is_held_to_the_number_of_models_that_it_may_load(
    limit: int | None, reasons: list[str]
) -> None:
    ollama = Ollama(name="o", port=1, models=("a", "b", "c"), max_loaded_models=limit, context_length=4096)
    assert told(rack(ollama), sizes(a=8, b=11, c=12)) == reasons


def test_two_that_take_turns_are_judged_in_the_worst_case_of_both() -> None:
    ollama = Ollama(name="o", port=1, models=("c", "d"), context_length=4096)
    wanted = rack(swap("a", "b"), ollama)
    found = judged(wanted, sizes(a=4, b=12, c=6, d=9))
    assert {one.title: one.verdict.because for one in found.sets if one.verdict.fits is False} == {}
    over = {one.models: one.verdict.because for one in judged(wanted, sizes(a=4, b=12, c=6, d=11)).sets}
    assert over[("b",)] == "b + d need 24.8 GiB of GPU slot0 (23.5 usable)"
    assert over[("c",)].startswith("c + b need 19.8 of")


def test_cards_that_are_lent_count_on_the_host_that_has_them() -> None:
    lender = Host(
        name="lender", address="10.0.0.2", gpus=(Gpu(model="RTX 3090", slot="slot0"),),
        services=(RpcServer(name="rpc", port=50052), engine("b", port=2)),
        private=PrivateNet(interface="eth1", address="192.168.9.2"),
    )  # fmt: skip
    borrower = Host(
        name="rig", address="10.0.0.1", gpus=(Gpu(model="RTX 3090", slot="slot0"),),
        services=(engine("a", port=1, rpc=("lender",)),),
        private=PrivateNet(interface="eth1", address="192.168.9.1"),
    )  # fmt: skip
    both = Rack(name="home", hosts=(borrower, lender), models=(model("a"), model("b")))
    on_rig = judged(both, sizes(a=40, b=10))
    assert on_rig.fits is True
    shares = on_rig.rows[0].estimate
    assert shares is not None
    assert 18 < shares.on("lender/slot0") / GIB < 22
    assert 18 < shares.on("slot0") / GIB < 22
    on_lender = judged(both, sizes(a=40, b=10), "lender")
    (reason,) = [problem.reason for _, problem in refusals(on_lender)]
    assert reason.startswith("service e-b and service e-a of rig: b + a need 3")
    assert "GPU slot0 (23.5 usable)" in reason


def test_what_labctl_does_not_know_is_said_and_not_counted() -> None:
    own = Command(name="own", argv=("/usr/bin/own",), model="a", port=3)
    found = judged(
        rack(own, engine("b", port=1, extra_args=("-c", "9000", "--color", "--n-cpu-moe=3"))), sizes(b=1)
    )
    assert found.notes == (
        "own is not counted: labctl does not know what its program takes",
        "memory_gib is not stated, so what models need of main memory was not checked",
        "e-b: not counted of extra_args: -c --n-cpu-moe",
    )


def test_a_host_of_which_no_memory_is_known_is_not_checked() -> None:
    bare = rack(engine("a", port=1), gpus=())
    assert not can_be_judged(loads(bare)[0])
    found = judged(bare, Sizes())
    assert (found.sets, list(unknowns(found)), list(refusals(found))) == ((), [], [])
    assert "nothing was checked" in found.notes[0]


ODD = {"model": "Odd 1", "slot": "slot0", "vendor": "nvidia", "tdp_w": 100}


def test_a_card_that_labctl_does_not_know_is_checked_by_what_the_inventory_says() -> None:
    silent = rack(engine("a", port=1), gpus=(Gpu(**ODD),), memory_gib=64)  # type: ignore[arg-type]
    ((_, problem),) = unknowns(judged(silent, sizes(a=5)))
    assert problem.hint == "state memory_gib of the Gpu"
    for name in ("Odd 1", "RTX 3090"):  # boards with twice the memory are sold, too
        card = Gpu(**{**ODD, "model": name, "memory_gib": 48})  # type: ignore[arg-type]
        stated = rack(engine("a", port=1), gpus=(card,))
        assert judged(stated, sizes(a=40)).fits is True
        (reason,) = told(stated, sizes(a=47))
        assert "GPU slot0 (47.5 usable)" in reason


@pytest.mark.parametrize(
    ("card", "lacks"),
    [(ODD, "no Gpu that labctl knows"), ({"model": "Strix Halo", "slot": "s"}, "no unified_memory_gib")],
)
def test_a_host_with_cards_of_no_known_size_says_what_to_state(card: dict[str, object], lacks: str) -> None:
    found = judged(rack(engine("a", port=1), gpus=(Gpu(**card),)), sizes(a=5))  # type: ignore[arg-type]
    assert lacks in found.notes[0]


def test_main_memory_is_checked_where_it_is_stated() -> None:
    small = rack(engine("a", port=1), gpus=(), memory_gib=8)
    (reason,) = told(small, sizes(a=7))
    assert reason.startswith("service e-a: a needs 7.5 GiB of main memory (6.0 usable)")


def test_a_model_that_could_not_be_read_leaves_the_verdict_open() -> None:
    found = judged(rack(swap("a", "b")), Sizes({"a": shape(1)}, silent={"b": Problem("404", "is it right?")}))
    assert found.fits is None
    ((path, problem),) = unknowns(found)
    assert (problem.reason, problem.hint) == ("whether b fits is not known: 404", "is it right?")
    assert path == ("hosts", 0, "services", 0, "models", 1, "engine")


@pytest.mark.parametrize(
    ("one", "hint"),
    [
        (LlamaServer(name="e", model="a", port=1), "state ctx_size"),
        (LlamaServer(name="e", model="a", port=1, parallel=2), "state ctx_size"),
        (Vllm(name="v", model="a", port=1), "state max_model_len"),
        (TabbyApi(name="t", model="a", port=1), "state cache_size"),
    ],
)
def test_a_context_that_nobody_states_is_not_taken_for_none(one: object, hint: str) -> None:
    silent = Sizes({"a": shape(1, context=0)})
    found = judged(rack(one), silent)
    ((_, problem),) = unknowns(found)
    assert (found.fits, problem.hint) == (None, hint)
    assert "how long the context of a is stands neither in its files nor in the rack file" in problem.reason
    stated = one.model_copy(update={hint.removeprefix("state "): 4096})  # type: ignore[attr-defined]
    assert judged(rack(stated), silent).fits is True


@pytest.mark.parametrize(
    "one",
    [
        Vllm(name="v", model="a", port=1, max_model_len=8192),
        Sglang(name="s", model="a", port=1, context_length=8192),
        TabbyApi(name="t", model="a", port=1, cache_size=8192),
    ],
)
def test_every_user_that_a_person_asks_about_needs_a_cache(one: object) -> None:
    wanted, known = rack(one), sizes(a=5)  # a GiB for each user
    (host,) = loads(wanted)
    assert host_fit(wanted, host, known, Asked(users=8)).fits is True
    assert host_fit(wanted, host, known, Asked(users=24)).fits is False


def test_where_memory_is_free_and_an_engine_would_not_start_no_memory_is_said_to_lack() -> None:
    tight = rack(Vllm(name="v", model="a", port=1, gpu_memory_utilization=0.1))
    ((_, problem),) = refusals(judged(tight, sizes(a=5)))
    assert "a would not start: vllm's share of slot0 (0.1) is 2.4 GiB" in problem.reason
    assert problem.hint == "no shorter context or smaller cache changes that: see its options"


def test_what_would_make_it_fit_is_proposed_in_the_engines_words() -> None:
    wanted = rack(engine("a", port=1, ctx_size=65536, parallel=4))
    ((_, problem),) = refusals(judged(wanted, sizes(a=18)))
    cache, context = problem.hint.split("; or ")
    assert cache == 'cache_type_k="q8_0", cache_type_v="q8_0" for a'
    value = int(context.removeprefix("ctx_size=").removesuffix(" for a"))
    assert judged(rack(engine("a", port=1, ctx_size=value, parallel=4)), sizes(a=18)).fits is True
    assert judged(rack(engine("a", port=1, ctx_size=value + 4096, parallel=4)), sizes(a=18)).fits is False


def test_a_model_is_tried_beside_what_is_always_loaded() -> None:
    wanted = rack(engine("a", port=1), swap("b", "c"))
    (host,) = loads(wanted)
    known = sizes(a=10, d=14)
    found = host_fit(wanted, tried(wanted, host.host, wanted.model("d"), beside=host), known)
    assert found.sets[0].verdict.because.startswith("d + a need")
    assert found.fits is False


# --- how engines run a model ---


def served(one: object, cards: tuple[Gpu, ...] = CARDS) -> Served:
    (found,) = loads(rack(one, gpus=cards))
    return found.served[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"context": 32768, "sequences": 4, "unified_cache": True, "gpu_layers": None}),
        ({"ctx_size": 8192, "parallel": 4}, {"context": 2048, "sequences": 4, "unified_cache": False}),
        ({"ctx_size": 8192, "parallel": 4, "kv_unified": True}, {"context": 8192, "unified_cache": True}),
        ({"n_gpu_layers": 12, "cpu_moe": True}, {"gpu_layers": 12, "cpu_expert_layers": 32}),
        ({"n_gpu_layers": "all", "n_cpu_moe": 3}, {"gpu_layers": None, "cpu_expert_layers": 3}),
        ({"cache_type_k": "q8_0", "flash_attn": "off"}, {"cache_k": "q8_0", "flash_attention": False}),
        ({"cache_ram": 2048, "swa_full": True}, {"host_cache_bytes": 2048 * MIB, "full_window_cache": True}),
        ({"split_mode": "row", "tensor_split": (3.0, 1.0)}, {"split": "row", "shares": (3.0, 1.0)}),
    ],
)  # fmt: skip
def test_llama_servers_options_are_counted(options: dict[str, object], expected: dict[str, object]) -> None:
    found = use(served(LlamaServer(name="e", model="a", port=1, **options)), shape(1))  # type: ignore[arg-type]
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            Vllm(
                name="v", model="a", port=1, max_model_len=4096, tensor_parallel_size=2, kv_cache_dtype="fp8"
            ),
            {"engine": "vllm", "context": 4096, "tensor_parallel": 2, "memory_share": 0.9, "cache_k": "fp8"},
        ),
        (
            Sglang(name="s", model="a", port=1, mem_fraction_static=0.7, tp_size=2),
            {"engine": "sglang", "context": 32768, "memory_share": 0.7, "tensor_parallel": 2},
        ),
        (
            TabbyApi(name="t", model="a", port=1, cache_size=16384, cache_mode="8,6", tensor_parallel=True),
            {"engine": "tabbyapi", "context": 16384, "cache_k": "8", "cache_v": "6", "tensor_parallel": 2},
        ),
        (
            Ollama(name="o", port=1, models=("a",), num_parallel=3, kv_cache_type="q8_0"),
            {"engine": "ollama", "context": 32768, "sequences": 3, "cache_v": "q8_0"},
        ),
    ],
)
def test_the_other_engines_options_are_counted(one: object, expected: dict[str, object]) -> None:
    found = use(served(one), shape(1))
    assert {name: getattr(found, name) for name in expected} == expected


def test_what_a_person_asks_for_is_for_each_of_so_many_users() -> None:
    shared = Use("llama.cpp", 32768, sequences=4, unified_cache=True)
    assert Asked(context=8192).of(shared) == Use("llama.cpp", 8192, sequences=4, unified_cache=True)
    assert Asked(context=8192, users=2).of(shared) == Use("llama.cpp", 8192, sequences=2)


def test_a_measurement_is_of_one_model_build_and_use() -> None:
    wanted = rack(engine("a", port=1), engine("b", port=2, binary="/opt/other"))
    first, other = loads(wanted)[0].served
    plain = use(first, shape(1))
    keys = {
        use_key(wanted, first, plain),
        use_key(wanted, first, Asked(context=1024).of(plain)),
        use_key(wanted, other, plain),
    }
    assert len(keys) == 3
