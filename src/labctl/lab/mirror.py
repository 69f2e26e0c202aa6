"""What a virtual rack's hosts find at /opt/lab/mirror: engines and models to install, with their pins.

The hosts have no way out, so engines come to them as they come to an air-gapped rack: from a mirror. It is
made once on this machine and shown, read-only, to every host that boots after. In it are

- llama.cpp as one of its releases is packed: the real llama-server, from Debian's unstable archive. It
  computes on the processor, also where it is declared as a build for cards, which are imitated here anyway;
- a double of llama-swap, which does what was recorded of the real one;
- three tiny models. What they say is noise, but they load, count and stream like any other.

Debian's package changes with time, so the pins are written when the mirror is made: as a module that a rack
file imports.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab import llama
from labctl.lab.fake import llama_swap
from labctl.lab.supplies import MIRROR_INSIDE, mirror_folder

MODELS = ("tiny-chat", "tiny-coder", "tiny-writer")
_RECIPE = '''\
"""Engines and models of the virtual rack, with their pins; written by `labctl lab engines`.

Import it in a rack file: `from inventory.{module} import engines, mirror, models`.
"""

from labctl.inventory import Artifact, LlamaCpp, LlamaSwapBuild, Model

mirror = "file://{inside}"
engines = [
    LlamaCpp(version="{tag}", backend="cpu", archive=Artifact(url="{llama_url}", sha256="{llama}")),
    # The same program: the lab's cards are imitated, and nothing computes on them.
    LlamaCpp(
        version="{tag}", backend="cuda", cuda="12.8", archive=Artifact(url="{llama_url}", sha256="{llama}")
    ),
    LlamaCpp(version="{tag}", backend="vulkan", archive=Artifact(url="{llama_url}", sha256="{llama}")),
    LlamaSwapBuild(version="{swap_version}", archive=Artifact(url="{swap_url}", sha256="{swap}")),
]
models = [
{models}]
'''
_MODEL = '    Model(id="{id}", source="file://{inside}/{id}/{id}.gguf", sha256="{sha256}", size={size}),\n'
_TAG = "b9999"


@dataclass(frozen=True, slots=True)
class Wares:
    """What the mirror holds: the archives, each a file name and its sha256, and each model."""

    llama: tuple[str, str]
    swap: tuple[str, str]
    models: dict[str, tuple[str, int]]


def make(cache: Path, progress: Callable[[str], None]) -> Wares:
    """Make the mirror where it is missing, and return what is in it.

    Raises:
        LabctlError: llama-server cannot be had from Debian's archive.
    """
    place = mirror_folder(cache)
    place.mkdir(parents=True, exist_ok=True)
    progress("engines for virtual hosts: llama-server from Debian's archive, a double of llama-swap")
    # Hosts may be reading: what is there is only ever replaced, whole, by the same or a newer file.
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place) as made:
        wares = _make(cache, Path(made))
        for path in sorted(Path(made).rglob("*")):
            target = place / path.relative_to(made)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.chmod(0o644)
                path.replace(target)
    return wares


def _make(cache: Path, place: Path) -> Wares:
    try:
        packed = llama.archive(cache, place, _TAG)
    except llama.NoLlama as reason:
        raise LabctlError(
            f"llama-server cannot be had: {reason}", hint="a Debian mirror that has unstable is needed"
        ) from None
    swap = llama_swap.archive(place)
    models = {}
    for seed, name in enumerate(MODELS):
        path = place / name / f"{name}.gguf"
        path.parent.mkdir()
        write_tiny(path, seed)
        models[name] = (_sha256(path), path.stat().st_size)
    return Wares((packed[0].name, packed[1]), (swap.name, _sha256(swap)), models)


def recipe(wares: Wares, module: str, inside: str = MIRROR_INSIDE) -> str:
    """Return the text of a Python module that names everything in the mirror; hosts see it at ``inside``."""
    rows = "".join(
        _MODEL.format(id=name, inside=inside, sha256=sha256, size=size)
        for name, (sha256, size) in wares.models.items()
    )
    return _RECIPE.format(
        module=module,
        inside=inside,
        tag=_TAG,
        llama_url=f"file://{inside}/{wares.llama[0]}",
        llama=wares.llama[1],
        swap_url=f"file://{inside}/{wares.swap[0]}",
        swap=wares.swap[1],
        swap_version=llama_swap.NAME.split("_")[1],
        models=rows,
    )


def write_tiny(path: Path, seed: int) -> None:
    """Write a model of random weights that llama.cpp loads, about 1 MB; equal seeds give equal bytes."""
    import gguf
    import numpy as np

    width, heads, hidden, layers, context = 128, 4, 256, 2, 4096
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    for name, shape in _tensors(width, hidden, layers, len(tokens)):
        one = len(shape) == 1
        weights = np.ones(shape) if one else rng.standard_normal(shape) * 0.05
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(width: int, hidden: int, layers: int, vocabulary: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape (outermost first) of every tensor."""
    found: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (vocabulary, width)),
        ("output_norm.weight", (width,)),
        ("output.weight", (vocabulary, width)),
    ]
    for layer in range(layers):
        block = f"blk.{layer}"
        found += [(f"{block}.attn_{part}.weight", (width, width)) for part in ("q", "k", "v", "output")]
        found += [(f"{block}.{part}_norm.weight", (width,)) for part in ("attn", "ffn")]
        found += [(f"{block}.ffn_{part}.weight", (hidden, width)) for part in ("gate", "up")]
        found.append((f"{block}.ffn_down.weight", (width, hidden)))
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
