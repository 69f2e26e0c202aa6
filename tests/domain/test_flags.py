"""Flags: read from the help of a build, and held against command lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.flags import Wrong, check, read

LLAMA = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, q8_0
                                        (default: f16)
-sm,   --split-mode {none,layer,row}
                                        how to split the model across multiple GPUs, see --main-gpu
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
--spec-type none,draft-simple,draft-mtp
                                        comma-separated list of types of speculative decoding
--reasoning-budget N                    token budget for thinking: -1 for unrestricted
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max
                                        (env: LLAMA_ARG_DRAFT_MAX)
--metrics                               enable prometheus compatible metrics endpoint
"""
VLLM = """\
usage: vllm serve [-h] [--host HOST] [model_tag]

positional arguments:
  model_tag             The model tag to serve

ModelConfig:
  --dtype {auto,bfloat16,half}
                        Data type. See --quantization for more.
  -tp TENSOR_PARALLEL_SIZE, --tensor-parallel-size TENSOR_PARALLEL_SIZE
                        Cards.
  --served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]
                        Names.
  --enforce-eager, --no-enforce-eager
                        Eager mode.
  --speculative-config SPECULATIVE_CONFIG
                        As JSON.
  --host HOST           Host name. (default: None)
"""


def wrong(help_text: str, *argv: str) -> list[Wrong]:
    return list(check(argv, read(help_text)))


@pytest.mark.parametrize(
    "argv",
    [
        ("-c", "4096", "--flash-attn", "on", "--no-kv-offload", "-nkvo", "--metrics"),
        ("--reasoning-budget", "-1"),
        ("--cache-type-k", "q8_0", "-sm", "row", "--tensor-split", "1,2.5"),
        ("--spec-type", "draft-simple,draft-mtp"),
        ("--ctx-size=4096", "--flash-attn=auto"),
    ],
    ids=" ".join,
)
def test_what_llama_cpp_lists_is_known_by_every_name(argv: tuple[str, ...]) -> None:
    assert wrong(LLAMA, *argv) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("model", "--host", "::", "-tp", "2", "--tensor-parallel-size", "2", "--no-enforce-eager"),
        ("--tensor_parallel_size", "2", "--served-model-name", "one", "two", "--enforce-eager"),
        ("--speculative-config", '{"method": "mtp"}', "--speculative-config.model", "x"),
    ],
    ids=" ".join,
)
def test_what_vllm_lists_is_known_by_every_name(argv: tuple[str, ...]) -> None:
    assert wrong(VLLM, *argv) == []


@pytest.mark.parametrize(
    ("text", "argv", "expected"),
    [
        (
            LLAMA,
            ("--ctx-sise", "1"),
            Wrong("--ctx-sise", "there is no flag --ctx-sise", "did you mean --ctx-size?"),
        ),
        (LLAMA, ("-zz",), Wrong("-zz", "there is no flag -zz", "")),
        (
            LLAMA,
            ("--draft-n", "4"),
            Wrong("--draft-n", "--draft-n has been removed", "use --spec-draft-n-max"),
        ),
        (LLAMA, ("--main-gpu", "0"), Wrong("--main-gpu", "there is no flag --main-gpu", "")),
        (
            LLAMA,
            ("--no-metrics",),
            Wrong("--no-metrics", "there is no flag --no-metrics", "did you mean --metrics?"),
        ),
        (LLAMA, ("-sm", "tensor"), Wrong("-sm", "'tensor' is no value of -sm", "it takes: none, layer, row")),
        (LLAMA, ("-ctk", "q9"), Wrong("-ctk", "'q9' is no value of -ctk", "it takes: f32, f16, q8_0")),
        (
            VLLM,
            ("--dtype=int", "x"),
            Wrong("--dtype", "'int' is no value of --dtype", "it takes: auto, bfloat16, half"),
        ),
        (VLLM, ("--quantization", "x"), Wrong("--quantization", "there is no flag --quantization", "")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_a_build_would_not_take_is_told_with_what_it_would(
    text: str, argv: tuple[str, ...], expected: Wrong
) -> None:
    assert wrong(text, *argv) == [expected]


def test_a_value_is_never_taken_for_a_flag() -> None:
    assert wrong(LLAMA, "--ctx-size", "--unknown") == []


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=6))
def test_any_text_can_be_read_and_any_words_can_be_judged(text: str, argv: list[str]) -> None:
    list(check(argv, read(text)))


@given(st.text("abc \n", max_size=200), st.lists(st.text(max_size=20), max_size=6))
def test_a_help_without_flags_says_nothing_about_any(text: str, argv: list[str]) -> None:
    assert list(check(argv, read(text))) == []
