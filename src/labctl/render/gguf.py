"""A model file made on the spot, by which a backend is tried: llama's architecture, noise for weights.

Nothing has to be fetched to try a card, and the same bytes are tried on every host. The model is small
enough to travel with the command (under 2 MB), and large enough that every kind of layer runs. What it says
is noise; that it says something, and where it was computed, is what counts. GGUF is written by hand here,
because the one library for it would be a dependency for these lines.
"""

from __future__ import annotations

import struct
from array import array
from functools import cache
from random import Random

_ALIGNMENT = 32
_U32, _F32, _I32, _STRING, _ARRAY = 4, 6, 5, 8, 9
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6
_EMBEDDING, _HEADS, _FEED_FORWARD, _LAYERS, _CONTEXT = 128, 4, 256, 2, 512

_Tensor = tuple[str, tuple[int, ...], "array[float]"]


@cache
def tiny() -> bytes:
    """Return the model file, always the same."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    tensors = _tensors(len(tokens))
    facts = _facts(tokens, kinds)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)) + b"".join(facts)
    offset = 0
    for name, dimensions, weights in tensors:
        head += _text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, 0, offset)
        offset += len(_padded(weights.tobytes()))
    return _padded(head) + b"".join(_padded(weights.tobytes()) for _, _, weights in tensors)


def _facts(tokens: list[str], kinds: list[int]) -> list[bytes]:
    numbers = {
        "llama.context_length": _CONTEXT,
        "llama.embedding_length": _EMBEDDING,
        "llama.block_count": _LAYERS,
        "llama.feed_forward_length": _FEED_FORWARD,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _HEADS,
        "llama.rope.dimension_count": _EMBEDDING // _HEADS,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    words = {"general.architecture": "llama", "general.name": "labctl-tiny", "tokenizer.ggml.model": "llama"}
    scores = [-float(rank) for rank in range(len(tokens))]
    return [
        *(_text(key) + struct.pack("<I", _STRING) + _text(word) for key, word in words.items()),
        *(_text(key) + struct.pack("<II", _U32, number) for key, number in numbers.items()),
        _text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", _F32, 1e-5),
        _array("tokenizer.ggml.tokens", _STRING, b"".join(map(_text, tokens)), len(tokens)),
        _array("tokenizer.ggml.scores", _F32, struct.pack(f"<{len(scores)}f", *scores), len(scores)),
        _array("tokenizer.ggml.token_type", _I32, struct.pack(f"<{len(kinds)}i", *kinds), len(kinds)),
    ]


def _tensors(vocabulary: int) -> list[_Tensor]:
    """Return name, dimensions (innermost first) and weights of every tensor."""
    random = Random(0)

    def noise(name: str, columns: int, rows: int) -> _Tensor:
        return name, (columns, rows), array("f", (random.uniform(-0.08, 0.08) for _ in range(columns * rows)))

    def ones(name: str) -> _Tensor:
        return name, (_EMBEDDING,), array("f", [1.0] * _EMBEDDING)

    found = [noise("token_embd.weight", _EMBEDDING, vocabulary), ones("output_norm.weight")]
    found.append(noise("output.weight", _EMBEDDING, vocabulary))
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        attention = ("attn_q", "attn_k", "attn_v", "attn_output")
        found += [noise(f"{block}.{part}.weight", _EMBEDDING, _EMBEDDING) for part in attention]
        found += [ones(f"{block}.attn_norm.weight"), ones(f"{block}.ffn_norm.weight")]
        found += [
            noise(f"{block}.{part}.weight", _EMBEDDING, _FEED_FORWARD) for part in ("ffn_gate", "ffn_up")
        ]
        found.append(noise(f"{block}.ffn_down.weight", _FEED_FORWARD, _EMBEDDING))
    return found


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _array(key: str, kind: int, items: bytes, count: int) -> bytes:
    return _text(key) + struct.pack("<IIQ", _ARRAY, kind, count) + items


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
