"""What llama-server's lines say of its memory and its loading."""

from __future__ import annotations

import pytest

from labctl.domain.fit.journal import RAM, read
from labctl.domain.fit.terms import MIB

START = [
    (10.0, "0.00.015.622 I srv    load_model: loading model '/srv/models/a.gguf'"),
    (11.0, "load_tensors: loading model tensors, this can take a while... (load_mode = mmap)"),
    (12.0, "load_tensors:   CPU_Mapped model buffer size =   256.00 MiB"),
    (12.0, "load_tensors:        CUDA0 model buffer size =  4685.50 MiB"),
    (12.0, "load_tensors:        CUDA1 model buffer size =  4000.00 MiB"),
    (13.0, "llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB"),
    (13.0, "llama_kv_cache:      CUDA0 KV buffer size =    64.00 MiB"),
    (13.5, "llama_memory_recurrent:      CUDA1 RS buffer size =    32.00 MiB"),
    (14.0, "llama_context:  CUDA_Host  output buffer size =     0.50 MiB"),
    (14.0, "sched_reserve:      CUDA0 compute buffer size =   258.00 MiB"),
    (14.0, "sched_reserve:  CUDA_Host compute buffer size =    10.00 MiB"),
    (15.5, "0.05.344.072 I srv  llama_server: model loaded"),
    (15.6, "0.05.346.007 I srv  llama_server: listening on http://127.0.0.1:8081"),
]


def test_buffers_are_added_up_by_card_and_part() -> None:
    said = read(START)
    in_mib = {card: {part: size / MIB for part, size in parts.items()} for card, parts in said.shares.items()}
    assert in_mib == {
        RAM: {"weights": 256.0, "compute": 10.5},
        0: {"weights": 4685.5, "cache": 576.0, "compute": 258.0},
        1: {"weights": 4000.0, "cache": 32.0},
    }


def test_loading_lasts_from_the_file_to_the_word_that_it_is_loaded() -> None:
    # By llama-server's own clock where it shows one: the journal may have come to the lines later.
    assert read(START).load_s == pytest.approx(5.328450)
    bare = [(moment, text.partition(" I ")[2] or text) for moment, text in START]
    assert read(bare).load_s == pytest.approx(5.5)
    assert read(START[:3]).load_s is None
    assert read([]).load_s is None


@pytest.mark.parametrize("lines", range(1, 11))
def test_a_start_that_ended_in_the_middle_says_nothing_of_sizes(lines: int) -> None:
    later = [(moment + 100, text) for moment, text in START]
    assert read(later[:lines]).shares == {}
    assert read([*START, *later[:lines]]).shares == {}


def test_only_the_last_start_counts() -> None:
    later = [(moment + 100, text.replace("4685.50", "1.00")) for moment, text in START]
    said = read([*START, *later])
    assert said.shares[0]["weights"] == MIB
    assert said.load_s == pytest.approx(5.328450)


@pytest.mark.parametrize("name", ["ROCm0", "Vulkan0", "SYCL0"])
def test_cards_of_other_makers_are_counted_alike(name: str) -> None:
    said = read([(1.0, f"load_tensors: {name} model buffer size = 1.00 MiB")])
    assert said.shares == {0: {"weights": MIB}}


def test_lines_of_other_things_say_nothing() -> None:
    assert read([(1.0, "buffer size = 3"), (2.0, "CUDA0 fancy buffer size = 1.00 MiB")]).shares == {}
