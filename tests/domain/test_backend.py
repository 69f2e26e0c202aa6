"""Which backend is chosen: engines that fault, fall back, hang, babble or work, judged by their own words."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest

from labctl.domain import backend
from labctl.domain.backend import (
    Ground,
    Outcome,
    Record,
    Run,
    choose,
    record_of,
    stale,
)


def left(result: str, detail: str, stdout: str, stderr: str) -> backend.Raw:
    """What a run left, with the answers among its output as operations find them."""
    found = []
    for line in stdout.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return backend.Raw(
        result, detail, stdout, stderr, tuple(item for item in found if isinstance(item, dict))
    )


ROCM = (
    "ggml_cuda_init: found 1 ROCm devices:\n  Device 0: AMD Radeon RX 7900 XTX, gfx1100 (0x1100), VMM: no\n"
)
VULKAN = (
    "ggml_vulkan: Found 1 Vulkan devices:\n"
    "ggml_vulkan: 0 = AMD Radeon RX 7900 XTX (RADV NAVI31) (radv) | uma: 0 | fp16: 1 | warp size: 64\n"
)
ON_ROCM = (
    "load_tensors: offloaded 3/3 layers to GPU\n"
    "load_tensors:        ROCm0 model buffer size =     0.46 MiB\n"
    "load_tensors:   CPU_Mapped model buffer size =     0.01 MiB\n"
)
ON_VULKAN = ON_ROCM.replace("ROCm0", "Vulkan0")
ON_CPU = "load_tensors:   CPU_Mapped model buffer size =     0.46 MiB\n"
NO_GPU = "warning: no usable GPU found, --gpu-layers option will be ignored\n"
BENCH = json.dumps(
    {"build_commit": "abc123", "build_number": 11669, "backends": "ROCm", "n_gen": 32, "avg_ts": 151.5}
)
SERVER = json.dumps({"tokens_predicted": 32, "timings": {"predicted_per_second": 99.0}})
ABORTED = "code=killed/status=ABRT"


@pytest.mark.parametrize(
    ("name", "raw", "outcome", "why"),
    [
        ("rocm", left("success", "", BENCH, ROCM + ON_ROCM), "ok", "151.5 tokens/s"),
        ("vulkan", left("success", "", f"text\n{BENCH}\n", VULKAN + ON_VULKAN), "ok", "151.5"),
        ("vulkan", left("success", "", SERVER, VULKAN + ON_VULKAN), "ok", "99 tokens/s"),
        # A card is seen, then the first kernel faults: the commonest way to be wrong about ROCm.
        (
            "rocm",
            left("signal", ABORTED, "", ROCM + "Memory access fault by GPU node-1\n"),
            "faulted",
            f"the card was detected, then {ABORTED}: Memory access fault by GPU node-1",
        ),
        ("rocm", left("exit-code", "code=exited/status=1", "", ROCM + "hipError"), "faulted", "hipError"),
        ("rocm", left("oom-kill", "code=killed/status=KILL", "", ROCM), "faulted", "KILL"),
        # It decoded well and then crashed: not to be trusted with a service.
        ("rocm", left("core-dump", "code=dumped/status=SEGV", BENCH, ROCM + ON_ROCM), "faulted", "SEGV"),
        ("rocm", left("timeout", "code=killed/status=TERM", "", ROCM), "timeout", "not come to an end"),
        (
            "rocm",
            left("success", "", BENCH, ON_CPU),
            "cpu",
            "fell back to the processor: the model lay in CPU",
        ),
        ("rocm", left("success", "", BENCH, ROCM + ON_CPU), "cpu", "fell back"),
        ("rocm", left("success", "", SERVER, NO_GPU), "cpu", "nothing that it names"),
        ("rocm", left("success", "", BENCH, ""), "cpu", "nothing that it names"),
        ("rocm", left("success", "", BENCH, VULKAN + ON_VULKAN), "cpu", "the model lay in CPU, Vulkan"),
        (
            "rocm",
            left("success", "", BENCH, ROCM + ON_ROCM.replace("3/3", "1/3")),
            "cpu",
            "only 1 of 3 layers",
        ),
        (
            "vulkan",
            left("success", "", BENCH, "ggml_vulkan: 0 = llvmpipe (LLVM 19)\n" + ON_VULKAN),
            "cpu",
            "llvmpipe",
        ),
        ("vulkan", left("success", "", "\x01\x02 garbage", VULKAN), "faulted", "answer cannot be read"),
        ("vulkan", left("success", "", "", ""), "faulted", "answer cannot be read"),
        ("vulkan", left("success", "", "[1]\n{}\nnull\n7", VULKAN), "faulted", "answer cannot be read"),
        (
            "rocm",
            left("success", "", BENCH.replace("151.5", "0"), ROCM + ON_ROCM),
            "faulted",
            "cannot be read",
        ),
        (
            "rocm",
            left("success", "", BENCH.replace("151.5", "NaN"), ROCM + ON_ROCM),
            "faulted",
            "cannot be read",
        ),
        (
            "rocm",
            left(
                "exit-code", "code=exited/status=127", "", "libamdhip64.so.7: cannot open shared object file"
            ),
            "not-detected",
            "libamdhip64.so.7",
        ),
        (
            "rocm",
            left("", "", "", "Failed to start transient service unit"),
            "not-detected",
            "Failed to start",
        ),
    ],
)
def test_a_run_is_judged_by_what_the_engine_says_and_how_it_ended(
    name: str, raw: backend.Raw, outcome: Outcome, why: str
) -> None:
    run = backend.judge(name, raw)
    assert (run.backend, run.outcome) == (name, outcome)
    assert why in run.why


def test_the_engines_build_is_remembered() -> None:
    late = left("timeout", "", "", "build: 4641 (9f4cc8f8) with cc")
    assert backend.judge("rocm", left("success", "", BENCH, ROCM + ON_ROCM)).build == "11669 abc123"
    assert backend.judge("rocm", late).build == "4641 9f4cc8f8"


def ok(backend: str, speed: float) -> Run:
    return Run(backend, "ok", f"{speed:g} tokens/s", speed)


FAULT = Run("rocm", "faulted", "the card was detected, then it crashed")
CPU = Run("vulkan", "cpu", "it fell back to the processor", 500.0)


@pytest.mark.parametrize(
    ("runs", "chosen", "why"),
    [
        ((ok("rocm", 120), ok("vulkan", 100)), "rocm", "1.20 times as fast as vulkan"),
        ((ok("rocm", 110), ok("vulkan", 100)), "vulkan", "fewer parts"),
        ((ok("rocm", 100), ok("vulkan", 180)), "vulkan", "1.80 times"),
        ((FAULT, ok("vulkan", 1)), "vulkan", "rocm: the card was detected, then it crashed"),
        ((ok("rocm", 1), CPU), "rocm", "vulkan: it fell back"),
        ((FAULT, CPU), "none", "fell back"),
        ((), "none", "nothing was tried"),
    ],
)
def test_what_failed_is_never_chosen_and_of_what_works_the_clearly_faster(
    runs: tuple[Run, ...], chosen: str, why: str
) -> None:
    backend, said = choose(runs)
    assert backend == chosen
    assert why in said


GROUND = Ground("6.18.5", "25.0.7-2", "10.0.0", ("0000:03:00.0 0x744c",), {"rocm": "/a 1", "vulkan": "/b 2"})
RECORD = Record("rocm", "rocm: 120 tokens/s", (ok("rocm", 120), CPU), GROUND, "2026-11-21T08:00:00Z")


def test_a_record_comes_back_as_it_was_written() -> None:
    assert record_of(json.loads(json.dumps(RECORD.plain()))) == RECORD


@pytest.mark.parametrize(
    "said", [None, [], 7, "x", {}, {"format": 2}, {"format": 1}, {"format": 1, "ground": 3}]
)
def test_what_is_no_record_is_no_proof(said: object) -> None:
    assert record_of(said) is None
    assert stale(None, GROUND) == ("there is no proof yet",)


def test_a_proof_counts_until_something_that_it_stood_on_changes() -> None:
    assert stale(RECORD, GROUND) == ()
    for changed, why in (
        (replace(GROUND, kernel="6.18.6"), "the kernel changed: 6.18.5 -> 6.18.6"),
        (replace(GROUND, mesa=""), "Mesa changed: 25.0.7-2 -> none"),
        (replace(GROUND, rocm="10.1.0"), "ROCm changed: 10.0.0 -> 10.1.0"),
        (replace(GROUND, cards=()), "the cards changed: 0000:03:00.0 0x744c -> none"),
        (replace(GROUND, engines={"vulkan": "/b 2"}), "the engine for rocm changed"),
        (replace(GROUND, engines={"rocm": "/a 1", "vulkan": "/b 3"}), "the engine for vulkan changed"),
    ):
        assert stale(RECORD, changed) == (why,)
