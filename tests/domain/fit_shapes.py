"""Shapes and uses for tests of fit planning, and how Hypothesis makes others."""

from __future__ import annotations

from hypothesis import strategies as st

from labctl.domain.fit.terms import GIB, Cache, Device, Layer, ModelShape, Use

HOST = Device("main memory", "ram", 512 * GIB, 8 * GIB, 60 * 10**9)


FULL_CACHE = Cache("full", 1024, 1024)


def card(name: str = "gpu0", gib: int = 24, bandwidth: int = 936 * 10**9, reserve: int = 0) -> Device:
    """Return a graphics card."""
    return Device(name, "gpu", gib * GIB, reserve, bandwidth)


def model(
    layers: int = 4,
    *,
    cache: Cache = FULL_CACHE,
    weight: int = 100_000_000,
    expert: int = 0,
    **more: object,
) -> ModelShape:
    """Return a model of equal layers."""
    facts: dict[str, object] = {
        "architecture": "made",
        "layers": tuple(Layer(weight, expert, cache) for _ in range(layers)),
        "input_bytes": 50_000_000,
        "output_bytes": 60_000_000,
        "vocabulary": 32_000,
        "width": 1024,
        "heads": 16,
        "head_size": 64,
        "largest_ff": 2816,
        "trained_context": 32_768,
        "experts": 8 if expert else 0,
        "experts_used": 2 if expert else 0,
        **more,
    }
    return ModelShape(**facts)  # type: ignore[arg-type]


WIDTHS = st.sampled_from([64, 128, 256, 512, 1024, 4096])
CACHES = st.one_of(
    st.builds(Cache, st.just("full"), WIDTHS, WIDTHS),
    st.builds(Cache, st.just("full"), WIDTHS, st.just(0)),
    st.builds(Cache, st.just("window"), WIDTHS, WIDTHS, st.sampled_from([128, 512, 1024, 4096])),
    st.builds(
        Cache,
        st.just("recurrent"),
        state_bytes=st.integers(1, 4_000_000),
        inner_width=st.sampled_from([1024, 4096]),
    ),
    st.just(Cache("none")),
)


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    """Make a model of unequal layers."""
    experts = draw(st.sampled_from([0, 0, 8, 128]))
    layers = []
    for cache in draw(st.lists(CACHES, min_size=1, max_size=12)):
        weight = draw(st.integers(1_000, 2 * GIB))
        layers.append(Layer(weight, draw(st.integers(0, weight)) if experts else 0, cache))
    heads = draw(st.sampled_from([1, 8, 32, 64]))
    return ModelShape(
        "made",
        tuple(layers),
        input_bytes=draw(st.integers(0, 2 * GIB)),
        output_bytes=draw(st.integers(0, 2 * GIB)),
        vocabulary=draw(st.sampled_from([1_000, 32_000, 262_144])),
        width=draw(st.sampled_from([256, 1024, 8192])),
        heads=heads,
        head_size=draw(st.sampled_from([64, 128])),
        largest_ff=draw(st.sampled_from([0, 1024, 16_384])),
        trained_context=32_768,
        tied=draw(st.booleans()),
        experts=experts,
        experts_used=min(experts, 8),
        extra_bytes=draw(st.integers(0, GIB)),
    )


DEVICES = st.lists(
    st.builds(
        Device,
        name=st.uuids().map(str),
        kind=st.just("gpu"),
        memory_bytes=st.integers(0, 192 * GIB),
        reserve_bytes=st.integers(0, 2 * GIB),
        bandwidth=st.integers(0, 8 * 10**12),
    ),
    max_size=4,
).map(lambda cards: (*cards, HOST))


@st.composite
def llama_uses(draw: st.DrawFn) -> Use:
    """Make a way to run a model with llama.cpp."""
    kinds = st.sampled_from(["f32", "f16", "q8_0", "q5_1", "q4_0", "iq4_nl"])
    return Use(
        "llama.cpp",
        context=draw(st.integers(1, 300_000)),
        sequences=draw(st.integers(1, 16)),
        cache_k=draw(kinds),
        cache_v=draw(kinds),
        gpu_layers=draw(st.one_of(st.none(), st.integers(0, 14))),
        cpu_expert_layers=draw(st.integers(0, 14)),
        split=draw(st.sampled_from(["none", "layer", "row", "tensor"])),
        shares=tuple(draw(st.lists(st.floats(0, 100), max_size=4))),
        main_gpu=draw(st.integers(0, 3)),
        flash_attention=draw(st.booleans()),
        micro_batch=draw(st.sampled_from([32, 512, 2048])),
        full_window_cache=draw(st.booleans()),
        unified_cache=draw(st.booleans()),
        projector_bytes=draw(st.integers(0, GIB)),
        projector_on_gpu=draw(st.booleans()),
        draft=draw(st.one_of(st.none(), shapes())),
    )


@st.composite
def other_uses(draw: st.DrawFn) -> Use:
    """Make a way to run a model with another engine."""
    return Use(
        draw(st.sampled_from(["vllm", "sglang", "tabbyapi", "other"])),
        context=draw(st.integers(1, 300_000)),
        sequences=draw(st.integers(1, 16)),
        cache_k=draw(st.sampled_from(["auto", "fp8", "8", "4"])),
        cache_v=draw(st.sampled_from(["auto", "fp8", "8", "4"])),
        tensor_parallel=draw(st.sampled_from([1, 2, 4])),
        pipeline_parallel=draw(st.sampled_from([1, 2])),
        memory_share=draw(st.one_of(st.none(), st.floats(0.1, 1.0))),
        projector_bytes=draw(st.integers(0, GIB)),
    )
