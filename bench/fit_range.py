"""What it costs to look at a 40 GB model over HTTP: bytes read, seconds, and memory.

    python bench/fit_range.py

A GGUF file with the header of a real model (150 000 words, 280 000 merges, 48 layers of experts) and a hole
of 40 GB for weights is served on loopback. Its header is read as `labctl fit` does, in a fresh process. For
comparison, the gguf library's own reader gets the same file from the disk.
"""

from __future__ import annotations

import json
import re
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORDS, MERGES, LAYERS, EXPERTS = 150_000, 280_000, 48, 128
FILE_BYTES = 40 * 10**9
U32, F32, I32, STRING, ARRAY, Q4_K, F32_TENSOR = 4, 6, 5, 8, 9, 12, 0


def text(value: str) -> bytes:
    """Return a string as GGUF has it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header() -> bytes:
    """Return a header like that of a Qwen 3 with 30 billion parameters."""
    numbers = {
        "block_count": LAYERS,
        "context_length": 262144,
        "embedding_length": 2048,
        "feed_forward_length": 6144,
        "attention.head_count": 32,
        "attention.head_count_kv": 4,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "expert_count": EXPERTS,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    keys = [text("general.architecture") + struct.pack("<I", STRING) + text("qwen3moe")]
    keys += [text(f"qwen3moe.{key}") + struct.pack("<II", U32, value) for key, value in numbers.items()]
    words = b"".join(text(f"word{number}") for number in range(WORDS))
    merges = b"".join(text(f"wor {number}") for number in range(MERGES))
    keys.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, WORDS) + words)
    keys.append(text("tokenizer.ggml.merges") + struct.pack("<IIQ", ARRAY, STRING, MERGES) + merges)
    kinds = struct.pack("<IIQ", ARRAY, I32, WORDS) + bytes(4 * WORDS)
    keys.append(text("tokenizer.ggml.token_type") + kinds)
    listed, offset = [], 0
    for name, lengths, kind, size in tensors():
        listed.append(text(name) + struct.pack(f"<I{len(lengths)}QIQ", len(lengths), *lengths, kind, offset))
        offset += -(-size // 32) * 32
    return b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(keys)) + b"".join(keys) + b"".join(listed)


def tensors() -> list[tuple[str, tuple[int, ...], int, int]]:
    """Return name, lengths, type and bytes of each tensor."""

    def matrix(name: str, *lengths: int) -> tuple[str, tuple[int, ...], int, int]:
        elements = 1
        for length in lengths:
            elements *= length
        return name, lengths, Q4_K, elements // 256 * 144

    found = [matrix("token_embd.weight", 2048, WORDS), matrix("output.weight", 2048, WORDS)]
    found.append(("output_norm.weight", (2048,), F32_TENSOR, 8192))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        found += [(f"{block}.{part}.weight", (2048,), F32_TENSOR, 8192) for part in ("attn_norm", "ffn_norm")]
        found += [matrix(f"{block}.attn_{part}.weight", 2048, size) for part, size in SIZES.items()]
        found.append(matrix(f"{block}.attn_output.weight", 4096, 2048))
        found += [matrix(f"{block}.ffn_{part}_exps.weight", 2048, 768, EXPERTS) for part in ("gate", "up")]
        found.append(matrix(f"{block}.ffn_down_exps.weight", 768, 2048, EXPERTS))
    return found


SIZES = {"q": 4096, "k": 512, "v": 512}


class Handler(BaseHTTPRequestHandler):
    """Sends parts of one file and counts what it sends."""

    protocol_version = "HTTP/1.1"
    path_served: Path
    sent = 0

    def do_GET(self) -> None:
        """Send the part that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match is not None
        start, end = int(match[1]), int(match[2])
        with self.path_served.open("rb") as file:
            file.seek(start)
            data = file.read(end - start + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{FILE_BYTES}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        type(self).sent += len(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def by_labctl(where: str) -> int:
    """Read the header over HTTP and return the bytes of weights."""
    from labctl.adapters.gguf_header import read_header
    from labctl.adapters.http_ranges import HttpRanges
    from labctl.domain.fit.gguf_shape import shape

    with HttpRanges(where) as source:
        return shape(read_header(source)).weight_bytes


def by_the_library(where: str) -> int:
    """Read the header from the disk with the gguf library's reader, and return the bytes of weights."""
    import gguf

    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(where).tensors)


READERS = {"labctl": by_labctl, "library": by_the_library}


def measured(reader: str, where: str) -> dict[str, float]:
    """Run one reader in a process of its own and return what it cost."""
    argv = [sys.executable, __file__, reader, where]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, or be the process that is measured."""
    if len(sys.argv) == 3:
        began = time.perf_counter()
        weights = READERS[sys.argv[1]](sys.argv[2])
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mib": peak, "weights": weights}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(header())
        long = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(FILE_BYTES)
        Handler.path_served = path
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            ours = measured("labctl", f"http://127.0.0.1:{server.server_port}/model.gguf")
            server.shutdown()
            thread.join()
        theirs = measured("library", str(path))
    print(f"file {FILE_BYTES / 1e9:.0f} GB, of which header {long / 2**20:.1f} MiB")
    print(
        f"labctl, over HTTP:    {Handler.sent / 2**20:5.1f} MiB read, {ours['seconds']:5.2f} s, "
        f"{ours['peak_mib']:4.0f} MiB peak"
    )
    print(f"the library, on disk: {'':14} {theirs['seconds']:5.2f} s, {theirs['peak_mib']:4.0f} MiB peak")


if __name__ == "__main__":
    main()
