"""What is loaded together, and what would make it fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.domain.fit.cure import Part, cures
from labctl.domain.fit.measured import Measured, compared, corrected, error_percent
from labctl.domain.fit.terms import GIB, Device, Estimate, Share, Use
from labctl.domain.fit.together import judge

CARD = Device("slot0", "gpu", 24 * GIB, GIB // 2)
OTHER = Device("slot1", "gpu", 24 * GIB, GIB // 2)
NO_RAM = Device("main memory", "ram", 0, 0)


def taking(name: str, **gib: float) -> Estimate:
    """Return a model that takes so many GiB of slot0 and so on."""
    return Estimate(
        name, tuple(Share(place.replace("_", " "), int(size * GIB)) for place, size in gib.items())
    )


@pytest.mark.parametrize(
    ("running", "devices", "fits", "because"),
    [
        ([], [CARD], True, "nothing is loaded"),
        ([taking("a", slot0=23.5)], [CARD], True, "a needs 23.5 of 23.5 GiB of GPU slot0"),
        (
            [taking("a", slot0=16), taking("b", slot0=11.3)],
            [CARD],
            False,
            "a + b need 27.3 GiB of GPU slot0 (23.5 usable)",
        ),
        (
            [taking("a", slot0=23.501)],
            [CARD],
            False,
            "a needs 23.501 GiB of GPU slot0 (23.5 usable)",
        ),
        (
            [taking("a", slot0=24, slot1=30)],
            [CARD, OTHER],
            False,
            "a needs 30.0 GiB of GPU slot1 (23.5 usable), and 1 more is over",
        ),
        (
            [taking("a", slot0=1, main_memory=500)],
            [CARD, NO_RAM],
            True,
            "a needs 1.0 of 23.5 GiB of GPU slot0",
        ),
        (
            [taking("a", slot0=1)],
            [replace(CARD, memory_bytes=0)],
            None,
            "how much memory GPU slot0 has is not known",
        ),
        (
            [taking("a", slot0=1, slot1=24)],
            [replace(CARD, memory_bytes=0), OTHER],
            False,
            "a needs 24.0 GiB of GPU slot1 (23.5 usable)",
        ),
        ([taking("a", main_memory=1)], [NO_RAM], True, "nothing limits it"),
    ],
)
def test_a_set_fits_or_says_what_is_over(
    running: list[Estimate], devices: list[Device], fits: bool | None, because: str
) -> None:
    verdict = judge(running, devices)
    assert (verdict.fits, verdict.because) == (fits, because)


def test_devices_that_share_memory_are_one_pool() -> None:
    pool = [
        Device("gpu", "unified", 16 * GIB, 2 * GIB, shared="unified memory"),
        Device("main memory", "ram", 16 * GIB, 2 * GIB, shared="unified memory"),
    ]
    assert judge([taking("a", gpu=10, main_memory=4)], pool).fits is True
    over = judge([taking("a", gpu=10, main_memory=4.1)], pool)
    assert over.because == "a needs 14.1 GiB of unified memory (14.0 usable)"


def test_a_model_that_would_not_start_does_not_fit_however_much_is_free() -> None:
    verdict = judge([replace(taking("a", slot0=1), refused="it needs flash attention")], [CARD])
    assert (verdict.fits, verdict.because) == (False, "a would not start: it needs flash attention")


def growing(name: str, weights: float, use: Use) -> Estimate:
    """Return a model whose cache takes a GiB for each 1024 tokens of a sequence, half of it with q8_0."""
    cache = use.context * use.sequences * GIB // 1024 // (2 if use.cache_k == "q8_0" else 1)
    return Estimate(name, (Share("slot0", int(weights * GIB), cache),))


def part(name: str, weights: float, use: Use, *options: tuple[str, str]) -> Part:
    return Part(
        name, growing(name, weights, use), use, lambda other: growing(name, weights, other), options, 2
    )


CACHE, CONTEXT, USERS = ("cache", "CACHE=8"), ("context", "ctx"), ("users", "users")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        # 20 + 4 of 23.5: half the cache, or three thousand tokens, would do.
        ([part("a", 20, Use("llama.cpp", 4096), CACHE, CONTEXT)], "CACHE=8 for a; or ctx=6144 for a"),
        ([part("a", 10, Use("llama.cpp", 4096, 4), USERS)], "users=3 for a"),
        (
            [part("a", 20, Use("llama.cpp", 4096), CONTEXT), part("b", 1, Use("llama.cpp", 1024))],
            "ctx=2048 for a; or not a at the same time",
        ),
        (
            [part("a", 20, Use("llama.cpp", 1024)), part("b", 20, Use("llama.cpp", 1024))],
            "not a at the same time",
        ),
        (
            [part("a", 24, Use("llama.cpp", 1024), CACHE, CONTEXT)],
            "no shorter context saves 1.5 GiB: a smaller quantisation, or more memory",
        ),
        (
            [part(name, 24, Use("llama.cpp", 1024)) for name in "ab"],
            "26.5 GiB too much for any one change: keep fewer of them loaded together",
        ),
    ],
)
def test_what_is_proposed_was_tried(parts: list[Part], words: str) -> None:
    assert judge([one.estimate for one in parts], [CARD]).fits is False
    assert cures(parts, [CARD]) == words


def test_what_an_engine_said_takes_the_place_of_what_was_estimated() -> None:
    guess = Estimate("a", (Share("slot0", 100, 20, 10, projector=5, draft=5, overhead=7), Share("ram", 3)))
    parts = {"weights": 110, "cache": 20, "compute": 30}
    fixed = corrected(guess, Measured("2026-01-02", "rig", "a", {"slot0": parts}))
    assert fixed.on("slot0") == 110 + 20 + 30 + 5 + 7  # llama-server says nothing of a projector's weights
    assert fixed.on("ram") == 3
    assert fixed.notes == ("as measured on rig at 2026-01-02",)
    assert compared(guess, Measured("now", "rig", "a", {"slot0": parts})) == (135, 160)


def test_a_part_of_which_an_engine_said_nothing_is_as_it_was_estimated() -> None:
    guess = Estimate("a", (Share("slot0", 100, 20, 10, overhead=7),))
    seen = Measured("now", "rig", "a", {"slot0": {"weights": 110}})
    assert corrected(guess, seen).on("slot0") == 110 + 20 + 10 + 7
    assert error_percent(guess, seen) == pytest.approx(-10 / 110 * 100)


@pytest.mark.parametrize("whole", [200, 137, 131, 125, 90])
def test_what_a_process_holds_is_what_its_parts_add_up_to(whole: int) -> None:
    guess = Estimate("a", (Share("slot0", 100, 20, 10, overhead=7),))
    seen = Measured("now", "rig", "a", {"slot0": {"process": whole}})
    # Less than the weights is a model that was still loading, which proves nothing.
    assert corrected(guess, seen).on("slot0") == (whole if whole >= 100 else 137)
    assert error_percent(guess, seen) == pytest.approx((137 - whole) / whole * 100)


def test_a_measurement_without_sizes_corrects_nothing() -> None:
    guess = Estimate("a", (Share("slot0", 100),))
    seen = Measured("now", "rig", "a", load_s=2.0, loaded_bytes=10)
    assert corrected(guess, seen) == guess
    assert error_percent(guess, seen) is None
    assert seen.bytes_s == 5
