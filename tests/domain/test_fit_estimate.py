"""What a model takes: known cases by number, mutants that they catch, and what holds for every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from fit_shapes import CACHES, DEVICES, HOST, card, llama_uses, model, other_uses, shapes
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labctl.domain.fit import cache, ceiling, graph, llamacpp, paged, split
from labctl.domain.fit.arena import Step, peak
from labctl.domain.fit.cache import BLOCKS, block, bytes_of, layer_bytes, paged_bytes
from labctl.domain.fit.estimate import estimate
from labctl.domain.fit.terms import GIB, Cache, Device, Estimate, ModelShape, Share, Use
from labctl.domain.problem import LabctlError

MHA = model(64, cache=Cache("full", 5120, 5120), width=5120, heads=40, head_size=128)
GQA = model(64, cache=Cache("full", 1024, 1024), width=5120, heads=40, head_size=128)
FULL = Use("llama.cpp", 4096)


def _cache(found: Estimate) -> int:
    return sum(share.cache for share in found.shares)


# --- the cases that anyone can work out on paper ---


def check_full_attention() -> None:
    """2 x 64 layers x 5120 x 4096 tokens x 2 bytes."""
    assert _cache(estimate("m", MHA, FULL, [HOST])) == 5_368_709_120


def check_grouped_attention() -> None:
    """8 key-value heads of 128: a fifth of it."""
    assert _cache(estimate("m", GQA, FULL, [HOST])) == GIB


def check_each_sequence_has_its_own() -> None:
    assert _cache(estimate("m", GQA, replace(FULL, sequences=3), [HOST])) == 3 * GIB
    shared = replace(FULL, sequences=3, unified_cache=True)
    assert _cache(estimate("m", GQA, shared, [HOST])) == GIB


def check_weights_at_half_precision() -> None:
    """30 billion weights at two bytes are 60 GB, and 1792 GB/s read them 30 times a second."""
    shape = model(60, weight=10**9, input_bytes=0, output_bytes=0)
    found = estimate("m", shape, FULL, [card(gib=96, bandwidth=1792 * 10**9), HOST])
    assert sum(share.weights for share in found.shares) == 60 * 10**9
    assert found.ceiling_tok_s == pytest.approx(29.87, abs=0.01)


def check_quantised_caches() -> None:
    """32 elements of q8_0 take 34 bytes, of q4_0 18: not one byte and not half."""
    eight = estimate("m", GQA, replace(FULL, cache_k="q8_0", cache_v="q8_0"), [HOST])
    assert _cache(eight) == GIB * 34 // 64
    four = estimate("m", GQA, replace(FULL, cache_k="q8_0", cache_v="q4_0"), [HOST])
    assert _cache(four) == GIB * (34 + 18) // 128


def check_a_window_stops_growing() -> None:
    """A window of 1024 and a batch of 512, rounded up to 256: 1536 tokens, however long the context."""
    one = Cache("window", 1024, 1024, 1024)
    assert cache.cells(one, replace(FULL, context=131_072)) == 1536
    assert cache.cells(one, replace(FULL, context=1000)) == 1024
    assert cache.cells(one, replace(FULL, context=131_072, full_window_cache=True)) == 131_072
    together = replace(FULL, context=131_072, sequences=4, unified_cache=True)
    assert cache.cells(one, together) == 4 * 1024 + 512


def check_a_state_does_not_grow() -> None:
    state = model(10, cache=Cache("recurrent", state_bytes=1_000_000))
    for context in (256, 1_000_000):
        use = Use("llama.cpp", context, 4)
        assert _cache(estimate("m", state, use, [HOST])) == 40_000_000


def check_the_context_is_rounded_up() -> None:
    assert cache.cells(Cache("full", 64, 64), replace(FULL, context=4097)) == 4352


def check_the_embedding_stays_in_main_memory() -> None:
    found = estimate("m", model(4), FULL, [card(), HOST])
    assert [share.weights for share in found.shares] == [4 * 100_000_000 + 60_000_000, 50_000_000]


def check_a_tied_head_is_a_copy_on_the_card() -> None:
    tied = model(4, tied=True)
    on_card = estimate("m", tied, FULL, [card(), HOST]).shares[0]
    assert on_card.weights == 4 * 100_000_000 + 60_000_000 + 50_000_000
    alone = estimate("m", tied, FULL, [HOST]).shares[0]
    assert alone.weights == tied.weight_bytes


def check_the_head_is_one_more_layer() -> None:
    """Of 4 blocks and the head, two cards get three and two."""
    found = estimate("m", model(4), FULL, [card("a"), card("b"), HOST])
    assert [share.weights for share in found.shares] == [300_000_000, 160_000_000, 50_000_000]


def check_layers_beyond_the_cards_stay_home() -> None:
    """One layer on the card is the head; two are the head and the last block."""
    one = estimate("m", model(4), replace(FULL, gpu_layers=1), [card(), HOST])
    assert [share.weights for share in one.shares] == [60_000_000, 450_000_000]
    two = estimate("m", model(4), replace(FULL, gpu_layers=2), [card(), HOST])
    assert [share.weights for share in two.shares] == [160_000_000, 350_000_000]
    assert two.shares[1].cache == 3 * two.shares[0].cache


def check_experts_stay_home() -> None:
    shape = model(4, expert=80_000_000)
    use = replace(FULL, cpu_expert_layers=3)
    found = estimate("m", shape, use, [card(), HOST])
    assert [share.weights for share in found.shares] == [220_000_000, 290_000_000]
    assert found.shares[1].cache == 0  # the caches stay on the card


def check_only_experts_in_use_are_read() -> None:
    """20 MB and a quarter of 80 in each block, and the head, at 1 GB/s."""
    shape = model(4, expert=80_000_000)
    found = estimate("m", shape, FULL, [card(bandwidth=10**9), HOST])
    assert found.ceiling_tok_s == pytest.approx(1 / (4 * 0.040 + 0.060))


def check_devices_one_after_another_add_their_times() -> None:
    fast, slow = card("a", bandwidth=10**9), card("b", bandwidth=10**8)
    layered = estimate("m", model(4), FULL, [fast, slow, HOST])
    assert layered.ceiling_tok_s == pytest.approx(1 / (0.300 + 1.60))
    divided = estimate("m", model(4), replace(FULL, split="tensor"), [fast, slow, HOST])
    assert divided.ceiling_tok_s == pytest.approx(1 / 2.30)


def check_divided_matrices_are_divided() -> None:
    use = replace(FULL, shares=(3.0, 1.0))
    layered = estimate("m", model(4), use, [card("a"), card("b"), HOST])
    rows = estimate("m", model(4), replace(use, split="row"), [card("a"), card("b"), HOST])
    tensors = estimate("m", model(4), replace(use, split="tensor"), [card("a"), card("b"), HOST])
    assert [share.weights for share in rows.shares[:2]] == [345_000_000, 115_000_000]
    assert [share.cache for share in rows.shares[:2]] == [share.cache for share in layered.shares[:2]]
    total = sum(share.cache for share in layered.shares)
    assert [share.cache for share in tensors.shares[:2]] == [total * 3 // 4, total // 4]


def check_a_draft_model_has_a_cache_of_its_own() -> None:
    small = model(2, cache=Cache("full", 256, 256), weight=1_000_000)
    without = estimate("m", model(4), FULL, [card(), HOST]).shares
    with_draft = estimate("m", model(4), replace(FULL, draft=small), [card(), HOST]).shares
    assert [share.draft for share in without] == [0, 0]
    assert with_draft[0].draft > 2 * 1_000_000 + 60_000_000 + 2 * 2 * 256 * 4096 * 2
    assert with_draft[1].draft > 50_000_000


def check_a_projector_lies_where_it_is_told() -> None:
    use = replace(FULL, projector_bytes=800)
    on_card = estimate("m", model(4), use, [card(), HOST]).shares
    assert [share.projector for share in on_card] == [1000, 0]
    at_home = estimate("m", model(4), replace(use, projector_on_gpu=False), [card(), HOST]).shares
    assert [share.projector for share in at_home] == [0, 1000]


def check_an_engine_that_fills_its_share() -> None:
    """0.9 of 24 GiB; weights of 460 MB and the embedding; the rest is cache."""
    found = estimate("m", model(4), Use("vllm", 4096, memory_share=0.9), [card(), HOST])
    (share,) = found.shares
    assert share.total == int(24 * GIB * 0.9)
    assert share.weights == model(4).weight_bytes
    assert found.refused == ""


def check_an_engine_that_lacks_room_for_one_request() -> None:
    """4 KiB for each token and layer: a million tokens take 16 GiB, and 10 % of the card is 2.4."""
    use = Use("vllm", 1_000_000, memory_share=0.1)
    found = estimate("m", model(4), use, [card(), HOST])
    assert found.refused.startswith("vllm's share of gpu0 (0.1) is 2.4 GiB, and ")
    assert found.refused.endswith(" for one request of 1000000 tokens")


def check_parallel_cards_each_hold_a_part() -> None:
    use = Use("vllm", 4096, tensor_parallel=2, pipeline_parallel=2)
    cards = [card(f"gpu{number}") for number in range(4)]
    found = estimate("m", model(4), use, [*cards, HOST])
    first, last = found.shares[0], found.shares[3]
    assert first.weights == (200_000_000 + 50_000_000) // 2
    assert last.weights == (200_000_000 + 60_000_000) // 2


def check_cards_that_hold_nothing_are_opened_all_the_same() -> None:
    """A context on each, and where no block is on any, the largest matrix: a third of a block."""
    cards = [card("gpu0"), card("gpu1")]
    nothing = estimate("m", model(4), replace(FULL, gpu_layers=0), [*cards, HOST])
    assert [nothing.on(one.name) for one in cards] == [
        llamacpp.CONTEXT + 100_000_000 // 3, llamacpp.CONTEXT
    ]  # fmt: skip
    one = replace(FULL, gpu_layers=0, split="none", main_gpu=1)
    assert [estimate("m", model(4), one, [*cards, HOST]).on(name) for name in ("gpu0", "gpu1")] == [
        0, llamacpp.CONTEXT + 100_000_000 // 3
    ]  # fmt: skip
    first = estimate("m", model(4), replace(FULL, shares=(1.0, 0.0)), [*cards, HOST])
    assert first.on("gpu1") == llamacpp.CONTEXT


CHECKS = {name: value for name, value in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("check", CHECKS.values(), ids=[name[6:] for name in CHECKS])
def test_known_case(check: Callable[[], None]) -> None:
    check()


# --- mutants: each breaks one rule, and some known case must see it ---


def _patched(module: Any, name: str, broken: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, broken)


_layer = cache.layer_bytes
_place = split.place
MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "values are forgotten": _patched(
        llamacpp, "layer_bytes", lambda one, use, **_: _layer(replace(one, v_width=0), use)
    ),
    "sequences are forgotten": _patched(
        llamacpp, "layer_bytes", lambda one, use, **_: _layer(one, replace(use, sequences=1))
    ),
    "a unified cache is kept for each sequence": _patched(
        llamacpp, "layer_bytes", lambda one, use, **_: _layer(one, replace(use, unified_cache=False))
    ),
    "windows grow": _patched(cache, "cells", lambda one, use: cache.rounded(use.context)),
    "scales of blocks are forgotten": _patched(cache, "bytes_of", lambda n, kind: n * BLOCKS[kind][1] // 32),
    "the context is not rounded": _patched(cache, "rounded", lambda tokens, to=1: tokens),
    "the head is free": _patched(ceiling, "head_bytes", lambda shape: 0),
    "a tied head is not copied": _patched(ceiling, "head_bytes", lambda shape: shape.output_bytes),
    "every expert is read": _patched(ceiling, "active_experts", lambda shape, layer: layer.expert_bytes),
    "layers are counted from the front": _patched(
        llamacpp,
        "place",
        lambda shape, use, cards: replace(
            (found := _place(shape, use, cards)), blocks=found.blocks[::-1], head=split.HOST
        ),
    ),
    "experts all go to the card": _patched(
        llamacpp,
        "place",
        lambda shape, use, cards: replace(_place(shape, use, cards), host_experts=0),
    ),
    "divided matrices lie whole": _patched(
        llamacpp,
        "place",
        lambda shape, use, cards: replace(_place(shape, use, cards), divided=False, divided_cache=False),
    ),
    "the engine's share is not filled": _patched(
        paged,
        "_fill",
        lambda card, rank, use, share: (Share(card.name, rank.weights, rank.least), ""),
    ),
    "every card holds everything": _patched(paged, "_stage", lambda shape, use, stage: shape.layers),
}


@pytest.mark.parametrize("mutate", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_broken_rule_is_seen_by_some_known_case(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    seen = 0
    for check in CHECKS.values():
        try:
            check()
        except (AssertionError, KeyError):
            seen += 1
    assert seen


# --- what must hold for every model and every use ---


@given(shapes(), llama_uses(), DEVICES)
def test_no_byte_of_weights_or_cache_is_lost_or_invented(
    shape: ModelShape, use: Use, devices: tuple[Device, ...]
) -> None:
    found = estimate("m", shape, use, devices)
    weights = sum(share.weights for share in found.shares)
    copy = shape.input_bytes if shape.tied else 0
    assert shape.weight_bytes <= weights <= shape.weight_bytes + copy
    widest = max(layer.cache.v_width for layer in shape.layers)
    assert _cache(found) == sum(layer_bytes(layer.cache, use, widest_v=widest) for layer in shape.layers)
    names = {device.name for device in devices}
    assert {share.device for share in found.shares} <= names
    assert len({share.device for share in found.shares}) == len(found.shares)


@given(shapes(), st.one_of(llama_uses(), other_uses()), DEVICES)
def test_nothing_is_negative_and_speed_only_where_it_is_known(
    shape: ModelShape, use: Use, devices: tuple[Device, ...]
) -> None:
    found = estimate("m", shape, use, devices, disk_bytes_s=10**9)
    for share in found.shares:
        parts = (share.weights, share.cache, share.compute, share.projector, share.draft, share.overhead)
        assert min(parts) >= 0
        assert share.total == sum(parts)
    assert found.load_s is not None and found.load_s >= 0
    if all(device.bandwidth == 0 for device in devices if device.kind != "ram") and use.engine == "vllm":
        assert found.ceiling_tok_s is None


@given(CACHES, llama_uses(), st.integers(0, 100_000), st.integers(0, 8))
def test_more_context_or_more_users_never_keep_less(one: Cache, use: Use, context: int, users: int) -> None:
    kept = layer_bytes(one, use)
    assert layer_bytes(one, replace(use, context=use.context + context)) >= kept
    assert layer_bytes(one, replace(use, sequences=use.sequences + users)) >= kept


@given(CACHES, llama_uses(), st.integers(0, 100_000), st.sampled_from([1, 2, 4, 8]))
def test_pages_of_a_longer_request_never_take_less(one: Cache, use: Use, context: int, parts: int) -> None:
    kept = paged_bytes(one, use, parts=parts)
    assert paged_bytes(one, replace(use, context=use.context + context), parts=parts) >= kept
    assert kept * parts >= paged_bytes(one, use)


BY_WIDTH = ["q4_0", "iq4_nl", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16", "f32"]


@given(st.integers(0, 10**8).map(lambda blocks: 32 * blocks), st.integers(0, len(BY_WIDTH) - 2))
def test_more_bits_never_take_less(elements: int, at: int) -> None:
    assert bytes_of(elements, BY_WIDTH[at]) <= bytes_of(elements, BY_WIDTH[at + 1])


@given(st.integers(0, 2**50), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_cutting_conserves_bytes(size: int, weights: list[float]) -> None:
    assume(sum(weights) > 0)
    fractions = [weight / sum(weights) for weight in weights]
    pieces = split.cut(size, fractions)
    assert sum(pieces) == size
    assert all(piece >= 0 for piece in pieces)
    for piece, fraction in zip(pieces, fractions, strict=True):
        assert abs(piece - size * fraction) <= 1 + size * 1e-9


@settings(max_examples=60)
@given(shapes(), llama_uses(), DEVICES, st.integers(1, 4))
def test_a_longer_context_never_keeps_less_on_any_device(
    shape: ModelShape, use: Use, devices: tuple[Device, ...], factor: int
) -> None:
    """What is kept never shrinks; buffers may by chance, where results happen to fit into gaps."""
    before = estimate("m", shape, use, devices)
    after = estimate("m", shape, replace(use, context=use.context * (1 + factor)), devices)
    then = {share.device: share for share in after.shares}
    for share in before.shares:
        assert then[share.device].weights == share.weights
        assert then[share.device].cache >= share.cache
        assert then[share.device].compute >= share.compute * 0.75


@settings(max_examples=60)
@given(shapes(), llama_uses())
def test_more_of_the_same_blocks_need_no_larger_buffer(shape: ModelShape, use: Use) -> None:
    """So that it is enough to look at a few of each kind; a result that nobody frees would show here."""
    few = replace(shape, layers=shape.layers * 2)
    many = replace(shape, layers=shape.layers * 12)
    looked_at = graph.compute_bytes(many, use, graph.Part(many.layers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_REPEATS", 10**6)
        every = graph.compute_bytes(many, use, graph.Part(many.layers))
        # Gaps may fall otherwise, which has cost a fifth; what nobody frees comes again with each block.
        assert every <= graph.compute_bytes(few, use, graph.Part(few.layers)) * 1.5
    assert looked_at == pytest.approx(every, rel=0.1)


# --- the arena ---


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_an_arena_holds_at_least_what_is_alive_and_at_most_everything(sizes: list[int]) -> None:
    aligned = [-(-size // 32) * 32 for size in sizes]
    chain = [Step(f"s{n}", size, (f"s{n - 1}",) if n else ()) for n, size in enumerate(sizes)]
    alive = max((a + b for a, b in pairwise(aligned)), default=aligned[0])
    assert max(alive, max(aligned)) <= peak([], chain) <= sum(aligned)


def test_gaps_that_are_too_small_cost_memory() -> None:
    """2 + 3 + 2, the middle one read no more: 4 does not fit where 3 was."""
    steps = [
        Step("a", 64),
        Step("b", 96),
        Step("c", 64, ("b",)),
        Step("d", 128, ("c",)),
        Step("e", 0, ("a", "d")),
    ]
    assert peak([], steps) == 64 + 96 + 64 + 128


def test_what_is_written_over_takes_no_new_place() -> None:
    apart = [Step("a", 64), Step("b", 64, ("a",)), Step("c", 0, ("b",))]
    over = [Step("a", 64), Step("b", 64, ("a",), over="a"), Step("c", 0, ("b",))]
    read_twice = [*over[:2], Step("c", 0, ("a", "b"))]
    assert (peak([], apart), peak([], over), peak([], read_twice)) == (128, 64, 128)


# --- refusals ---


def test_an_unknown_type_of_cache_is_refused_in_words() -> None:
    with pytest.raises(LabctlError, match="'q9_9' is no type of a cache that labctl knows"):
        estimate("m", model(), replace(FULL, cache_k="q9_9"), [HOST])


def test_narrow_values_without_flash_attention_would_not_start() -> None:
    use = replace(FULL, cache_v="q8_0", flash_attention=False)
    assert "only with flash attention" in estimate("m", model(), use, [HOST]).refused
    assert estimate("m", model(), replace(use, cache_v="f16", cache_k="q8_0"), [HOST]).refused == ""


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tabbyapi"])
def test_an_engine_that_needs_a_card_says_so(engine: Any) -> None:
    assert estimate("m", model(), Use(engine, 4096), [HOST]).refused == f"{engine} needs a graphics card"


def test_a_context_beyond_training_is_noted() -> None:
    (note,) = estimate("m", model(), replace(FULL, context=40_000), [HOST]).notes
    assert "more than the 32768 that the model was trained with" in note


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("f16", (1, 2)),
        ("auto", (1, 2)),
        ("FP8", (1, 1)),
        ("fp8_e5m2", (1, 1)),
        ("Q8", (32, 34)),
        ("4", (32, 18)),
    ],
)
def test_types_of_caches_by_every_engine_s_names(kind: str, expected: tuple[int, int]) -> None:
    assert block(kind) == expected


def test_cards_without_a_known_size_get_equal_shares() -> None:
    cards = [Device("a", "gpu", 0, 0), Device("b", "gpu", 0, 0)]
    found = estimate("m", model(5), FULL, [*cards, HOST])
    assert [share.weights for share in found.shares[:2]] == [300_000_000, 260_000_000]
    assert found.ceiling_tok_s is None


def test_unified_memory_is_one_device_for_the_card_and_the_machine() -> None:
    pool = Device("graphics", "unified", 128 * GIB, 8 * GIB, 256 * 10**9, "unified memory")
    ram = Device("main memory", "ram", 128 * GIB, 8 * GIB, 256 * 10**9, "unified memory")
    found = estimate("m", model(4), FULL, [pool, ram])
    assert [share.device for share in found.shares] == ["graphics", "main memory"]
    assert sum(share.weights for share in found.shares) == model(4).weight_bytes
