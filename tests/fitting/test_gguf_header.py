"""GGUF headers: what is read agrees with the gguf library, and what is hostile is refused in words."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import made_gguf as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.adapters import gguf_header
from labctl.adapters.file_ranges import FileRanges
from labctl.adapters.gguf_header import MOST_BYTES, read_header
from labctl.domain.fit.cache import BLOCKS
from labctl.domain.problem import LabctlError


@dataclass
class Memory:
    """A file in memory that counts what is read of it; it may claim to be longer than it is."""

    data: bytes
    size: int
    name: str = "model.gguf"
    got: int = 0

    def read(self, offset: int, length: int) -> bytes:
        piece = self.data[offset : offset + length]
        self.got += len(piece)
        return piece


def of(data: bytes, size: int | None = None) -> Memory:
    return Memory(data, len(data) if size is None else size)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def begin(tensors: int, keys: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def scalar(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def tensor(name: str, lengths: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(lengths)}QIQ", len(lengths), *lengths, kind, offset)


MADE: list[Callable[[], made.Made]] = [made.llama, made.qwen3moe, made.gemma3, made.mamba, made.lfm2]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_what_is_read_agrees_with_the_library(make: Callable[[], made.Made], tmp_path: Path) -> None:
    path = make().write(tmp_path / "model.gguf")
    ours = read_header(FileRanges(path))
    theirs = gguf.GGUFReader(path)

    assert {one.name: one.size for one in ours.tensors} == {
        one.name: int(one.n_bytes) for one in theirs.tensors
    }
    for key, field in theirs.fields.items():
        if key.startswith("GGUF.") or field.types[0] == gguf.GGUFValueType.ARRAY:
            continue
        assert ours.values[key] == field.contents(), key
    assert ours.counts["tokenizer.ggml.tokens"] == made.VOCABULARY
    assert ours.file_bytes == path.stat().st_size


def test_cache_types_have_the_blocks_that_the_library_knows() -> None:
    sizes = {kind.name.lower(): tuple(size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {name: sizes[name] for name in BLOCKS} == BLOCKS


def test_short_lists_are_kept_and_vocabularies_only_counted(tmp_path: Path) -> None:
    header = read_header(FileRanges(made.lfm2().write(tmp_path / "model.gguf")))
    assert header.values["lfm2.attention.head_count_kv"] == (0, 4, 0, 4)
    assert "tokenizer.ggml.tokens" not in header.values
    assert "tokenizer.ggml.scores" not in header.values


def test_of_a_file_of_gigabytes_only_the_header_is_read() -> None:
    """A vocabulary of 150 000 words with its merges, and a claim of 40 GB behind it."""
    words = b"".join(text(f"word{number}") for number in range(150_000))
    merges = b"".join(text(f"wor {number}") for number in range(280_000))
    data = (
        begin(1, 2)
        + text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, 150_000)
        + words
        + text("tokenizer.ggml.merges")
        + struct.pack("<IIQ", 9, 8, 280_000)
        + merges
        + tensor("blk.0.attn_k.weight", (4096, 4096))
    )
    source = of(data + bytes(64 * 1024**2), 40 * 10**9)
    header = read_header(source)
    assert header.counts == {"tokenizer.ggml.tokens": 150_000, "tokenizer.ggml.merges": 280_000}
    assert len(data) <= source.got < len(data) + 4 * 1024**2
    assert source.got < 32 * 1024**2


WORD_LIST = text("k") + struct.pack("<IIQ", 9, 8, 2**60)
HOSTILE = {
    "nothing at all": (b"", "ends within its header"),
    "another kind of file": (b"PK\x03\x04" + bytes(64), "it is no GGUF file"),
    "the other byte order": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "the other byte order"),
    "version 1": (begin(1, 1, version=1), "version 1; labctl reads 2 and 3"),
    "version 4": (begin(1, 1, version=4), "version 4"),
    "more keys than can be": (begin(0, 2**63), "it claims 0 tensors and 9223372036854775808 keys"),
    "more tensors than can be": (begin(2**40, 0), "that cannot be"),
    "a key longer than the file": (begin(0, 1) + struct.pack("<Q", 4000), "ends within its header"),
    "a key of gigabytes": (begin(0, 1) + struct.pack("<Q", 2**40), "a name of 1099511627776 bytes"),
    "a key that is not text": (begin(0, 1) + struct.pack("<Q", 2) + b"\xff\xfe", "a name that is not text"),
    "the same key twice": (begin(0, 2) + scalar("a", 1) + scalar("a", 2), "it has the key a twice"),
    "a type that GGUF does not have": (begin(0, 1) + text("k") + struct.pack("<I", 77), "of type 77"),
    "a text of gigabytes": (begin(0, 1) + text("k") + struct.pack("<IQ", 8, 2**40), "that cannot be"),
    "a list of endless words": (begin(0, 1) + WORD_LIST, "a list of 1152921504606846976 words"),
    "a list of endless numbers": (
        begin(0, 1) + text("k") + struct.pack("<IIQ", 9, 4, 2**50),
        "that cannot be",
    ),
    "a list of lists": (begin(0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "values of type 9"),
    "a tensor without dimensions": (begin(1, 0) + tensor("t", ()), "has 0 dimensions"),
    "a tensor with too many": (begin(1, 0) + tensor("t", (1, 1, 1, 1, 1)), "has 5 dimensions"),
    "a tensor of a type nobody knows": (begin(1, 0) + tensor("t", (32,), 999), "is of type 999"),
    "a tensor beyond all memory": (begin(1, 0) + tensor("t", (2**40, 2**40)), "has lengths"),
    "a row that is no whole block": (begin(1, 0) + tensor("t", (33,), 8), "has lengths [33]"),
    "two tensors of one name": (
        begin(2, 0) + tensor("t", (1,)) + tensor("t", (1,)) + bytes(64),
        "two tensors of one name",
    ),
    "an alignment that is none": (
        begin(0, 1) + scalar("general.alignment", 3),
        "its alignment is 3; that cannot be",
    ),
    "weights that are not there": (begin(1, 0) + tensor("t", (1024, 1024)), "it is cut off"),
    "weights far beyond the end": (begin(1, 0) + tensor("t", (1,), 0, 2**60), "it is cut off"),
}


@pytest.mark.parametrize("data, words", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_sound_header_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(LabctlError) as refused:
        read_header(of(data))
    assert words in str(refused.value)
    assert str(refused.value).startswith("model.gguf: ")


def test_an_endless_header_is_given_up_within_bounds() -> None:
    """A key with a text as long as is believed, again and again, in a file that claims to be endless."""
    one = struct.pack("<IQ", 8, 1024**2) + bytes(1024**2)
    data = begin(0, 60_000) + b"".join(text(f"k{number}") + one for number in range(40))
    source = of(data, 2**50)
    with pytest.raises(LabctlError, match="its header is longer than 28 MiB"):
        read_header(source)
    assert source.got <= MOST_BYTES


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    with pytest.raises(LabctlError, match="became shorter"):
        read_header(of(begin(0, 1), 10_000))


def test_a_real_header_cut_anywhere_is_refused(tmp_path: Path) -> None:
    with made.llama().write(tmp_path / "model.gguf").open("rb") as file:
        data = file.read(2048)
    for cut in range(2048):
        with pytest.raises(LabctlError):
            read_header(of(data[:cut]))


@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"GGUF", begin(1, 1), begin(1, 0)]))
def test_no_bytes_end_in_anything_but_a_header_or_a_refusal(data: bytes, start: bytes) -> None:
    try:
        read_header(of(start + data))
    except LabctlError as refused:
        assert str(refused)


def test_the_limit_is_above_every_real_header() -> None:
    """Three hundred thousand words of 12 bytes with 600 000 merges of 12 fit well below it."""
    assert MOST_BYTES > 300_000 * (8 + 12) + 600_000 * (8 + 4)
    assert gguf_header.MOST_BYTES < 32 * 1024**2
