"""The estimate against a real llama-server: what it reports for its buffers, for models made on the spot.

Each case starts it once on this machine's processor, with ``--fit off`` so that it changes nothing of what it
was told. What a model, its cache and its states take must be what it says to the last hundredth of a MiB that
it prints; what it computes with, within 5 %.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import made_gguf as made
import pytest

from labctl import wiring
from labctl.adapters.file_ranges import FileRanges
from labctl.adapters.gguf_header import read_header
from labctl.domain.fit.estimate import estimate
from labctl.domain.fit.gguf_shape import shape
from labctl.domain.fit.terms import MIB, Device, ModelShape, Use
from labctl.lab import llama

MOST_S = 120
PRINTED = 0.011  # MiB; it prints two decimals, of each of a few buffers
NO_CARDS = [Device("memory", "ram", 0, 0)]
PLAIN = Use("llama.cpp", 4096, 2, gpu_layers=0)
_SIZE = re.compile(r"(model|KV|RS|compute) buffer size =\s+([\d.]+) MiB")


@dataclass(frozen=True)
class Case:
    """A model, how llama-server is told to run it, and the same in our terms."""

    name: str
    model: made.Made
    argv: tuple[str, ...] = ("-c", "8192", "-np", "2", "--no-kv-unified")
    use: Use = PLAIN
    draft: made.Made | None = None
    within: float = 0.05


@dataclass
class Buffers:
    """What llama-server reported, in MiB; a draft model's are the second."""

    model: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)


CASES = [
    Case("every head its own keys and values", made.llama()),
    Case("groups of heads that share them", made.llama(kv_heads=4, ff=3072)),
    Case("weights in blocks of q8_0", made.llama(kind=made.Q8)),
    Case("experts", made.qwen3moe()),
    Case("many small experts", made.qwen3moe(experts=64, used=8, ff=256)),
    Case("a window on five layers of six", made.gemma3()),
    Case("a window on every second layer, experts, biases", made.gpt_oss()),
    Case("no attention", made.mamba()),
    Case("short convolutions and attention", made.lfm2()),
    Case("a delta network and attention", made.qwen3next()),
    Case("keys and values kept compressed", made.deepseek2()),
    Case("attention and state space side by side", made.falcon_h1(), within=0.08),
    Case(
        "keys and values in q8_0",
        made.llama(),
        (*Case.argv, "-ctk", "q8_0", "-ctv", "q8_0"),
        replace(PLAIN, cache_k="q8_0", cache_v="q8_0"),
    ),
    Case(
        "keys in q4_0 and values in q5_1",
        made.llama(heads=16, kv_heads=8),
        (*Case.argv, "-ctk", "q4_0", "-ctv", "q5_1"),
        replace(PLAIN, cache_k="q4_0", cache_v="q5_1"),
    ),
    Case(
        "keys and values in f32",
        made.llama(),
        (*Case.argv, "-ctk", "f32", "-ctv", "f32"),
        replace(PLAIN, cache_k="f32", cache_v="f32"),
    ),
    Case(
        "one cache for four sequences",
        made.llama(kv_heads=4),
        ("-c", "8192", "-np", "4", "--kv-unified"),
        Use("llama.cpp", 8192, 4, unified_cache=True, gpu_layers=0),
    ),
    Case(
        "windows in one cache for three sequences",
        made.gemma3(window=512),
        ("-c", "6000", "-np", "3", "--kv-unified"),
        Use("llama.cpp", 6000, 3, unified_cache=True, gpu_layers=0),
    ),
    Case(
        "windows with a cache of full size",
        made.gemma3(),
        (*Case.argv, "--swa-full"),
        replace(PLAIN, full_window_cache=True),
    ),
    Case(
        "three sequences whose contexts do not come out even",
        made.llama(),
        ("-c", "9000", "-np", "3", "--no-kv-unified"),
        Use("llama.cpp", 3000, 3, gpu_layers=0),
    ),
    Case("a small batch", made.llama(), (*Case.argv, "-ub", "128"), replace(PLAIN, micro_batch=128)),
    Case("a large batch", made.qwen3moe(), (*Case.argv, "-ub", "2048"), replace(PLAIN, micro_batch=2048)),
    Case(
        "no flash attention", made.llama(), (*Case.argv, "-fa", "off"), replace(PLAIN, flash_attention=False)
    ),
    Case(
        "windows and no flash attention",
        made.gemma3(),
        (*Case.argv, "-fa", "off"),
        replace(PLAIN, flash_attention=False),
    ),
    Case(
        "a draft model",
        made.llama(),
        (*Case.argv, "--spec-type", "draft-simple"),
        draft=made.llama(kv_heads=4, ff=1024, layers=2),
    ),
]


@pytest.fixture(scope="module")
def server() -> Path:
    try:
        return llama.tree(wiring.cache_home() / "lab") / "llama-server"
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server from the archive: {reason}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _lines(argv: list[str]) -> Iterator[str]:
    """Yield what a program prints until it is up; then end it."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    late = threading.Timer(MOST_S, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            yield line
            if "listening on" in line or "all slots are idle" in line:
                return
    finally:
        late.cancel()
        process.kill()
        process.communicate()


def _report(server: Path, model: Path, *argv: str) -> Buffers:
    found = Buffers()
    printed = []
    command = [str(server), "--host", "127.0.0.1", "--port", str(_free_port()), "--no-warmup", "--fit", "off"]
    for line in _lines([*command, "--verbose", "-m", str(model), *argv]):
        printed.append(line)
        if match := _SIZE.search(line):
            {"model": found.model, "compute": found.compute}.get(match[1], found.kept).append(float(match[2]))
    assert found.compute, "".join(printed[-20:])
    return found


def _shape(path: Path) -> ModelShape:
    return shape(read_header(FileRanges(path)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_estimate_is_what_a_real_server_reports(case: Case, server: Path, tmp_path: Path) -> None:
    path = case.model.write(tmp_path / "model.gguf")
    argv, use = case.argv, case.use
    if case.draft is not None:
        draft = case.draft.write(tmp_path / "draft.gguf")
        argv, use = (*argv, "-md", str(draft)), replace(use, draft=_shape(draft), draft_gpu_layers=0)
    reported = _report(server, path, *argv)
    (share,) = estimate("made", _shape(path), use, NO_CARDS).shares

    assert share.compute / MIB == pytest.approx(reported.compute[0], rel=case.within)
    if case.draft is None:
        assert share.weights / MIB == pytest.approx(sum(reported.model), abs=PRINTED)
        assert share.cache / MIB == pytest.approx(sum(reported.kept), abs=3 * PRINTED)
        return
    of_draft = reported.model[1] + reported.kept[1] + reported.compute[1]
    assert share.weights / MIB == pytest.approx(reported.model[0], abs=PRINTED)
    assert share.cache / MIB == pytest.approx(reported.kept[0], abs=PRINTED)
    assert share.draft / MIB == pytest.approx(of_draft, rel=0.05)


def test_the_cases_are_large_enough_for_a_wrong_formula_to_show() -> None:
    """Each part is many times what rounding and fixed costs could hide."""
    for case in CASES:
        assert case.model.weight_bytes > 50 * MIB, case.name
