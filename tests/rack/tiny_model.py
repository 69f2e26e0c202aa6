"""A real model file, small enough to be made by a test: llama's architecture with random weights, half a MB.

GGUF is written by hand here, because the one library for it would be a dependency for forty lines. What
llama-server says with such a model is noise, but it loads, counts tokens and streams like any other.
"""

from __future__ import annotations

import struct
from array import array
from random import Random

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
EMBEDDING, HEADS, FEED_FORWARD, LAYERS, CONTEXT = 64, 4, 128, 2, 4096
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1

Value = int | float | bool | str | list[str] | list[float] | list[int]


def tiny_gguf(seed: int = 0) -> bytes:
    """Return a GGUF file that llama.cpp loads; equal seeds give equal bytes."""
    tokens, kinds = _vocabulary()
    tensors = _tensors(Random(seed), len(tokens))
    facts = _facts(tokens, kinds)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    head += b"".join(_string(key) + _typed(kind, value) for key, kind, value in facts)
    offset = 0
    for name, dimensions, weights in tensors:
        head += _string(name) + struct.pack(
            f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, 0, offset
        )
        offset += len(_padded(weights.tobytes()))
    return _padded(head) + b"".join(_padded(weights.tobytes()) for _, _, weights in tensors)


def _vocabulary() -> tuple[list[str], list[int]]:
    pieces = [f"{first}{second}" for first in "▁tsrnlm" for second in "aeiou"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *pieces]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (1 + len(pieces))]
    return tokens, kinds


def _facts(tokens: list[str], kinds: list[int]) -> list[tuple[str, int, Value]]:
    return [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "labctl-tiny"),
        ("llama.context_length", U32, CONTEXT),
        ("llama.embedding_length", U32, EMBEDDING),
        ("llama.block_count", U32, LAYERS),
        ("llama.feed_forward_length", U32, FEED_FORWARD),
        ("llama.attention.head_count", U32, HEADS),
        ("llama.attention.head_count_kv", U32, HEADS),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.rope.dimension_count", U32, EMBEDDING // HEADS),
        ("llama.vocab_size", U32, len(tokens)),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.tokens", STRING, tokens),
        ("tokenizer.ggml.scores", F32, [-float(rank) for rank in range(len(tokens))]),
        ("tokenizer.ggml.token_type", I32, kinds),
        ("tokenizer.ggml.unknown_token_id", U32, 0),
        ("tokenizer.ggml.bos_token_id", U32, 1),
        ("tokenizer.ggml.eos_token_id", U32, 2),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
        (
            "tokenizer.chat_template",
            STRING,
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
        ),
    ]


def _tensors(random: Random, tokens: int) -> list[tuple[str, tuple[int, ...], array[float]]]:
    """Return name, dimensions (innermost first) and weights of every tensor."""

    def noise(name: str, columns: int, rows: int) -> tuple[str, tuple[int, ...], array[float]]:
        return name, (columns, rows), array("f", (random.uniform(-0.08, 0.08) for _ in range(columns * rows)))

    def ones(name: str) -> tuple[str, tuple[int, ...], array[float]]:
        return name, (EMBEDDING,), array("f", [1.0] * EMBEDDING)

    found = [noise("token_embd.weight", EMBEDDING, tokens), ones("output_norm.weight")]
    found.append(noise("output.weight", EMBEDDING, tokens))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        found += [
            noise(f"{block}.attn_{part}.weight", EMBEDDING, EMBEDDING) for part in ("q", "k", "v", "output")
        ]
        found += [ones(f"{block}.attn_norm.weight"), ones(f"{block}.ffn_norm.weight")]
        found += [noise(f"{block}.ffn_{part}.weight", EMBEDDING, FEED_FORWARD) for part in ("gate", "up")]
        found.append(noise(f"{block}.ffn_down.weight", FEED_FORWARD, EMBEDDING))
    return found


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _typed(kind: int, value: Value) -> bytes:
    """Return a value with its type in front; a list is an array of that type."""
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(_plain(kind, item) for item in value)
    return struct.pack("<I", kind) + _plain(kind, value)


def _plain(kind: int, value: object) -> bytes:
    if kind == STRING:
        return _string(str(value))
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
