"""Shapes of a rack's models: which way is taken, what is kept, and what is said when nothing answers."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made_gguf as made
import pytest
from range_server import Served, serving

from labctl import wiring
from labctl.adapters.file_ranges import FileRanges
from labctl.adapters.gguf_header import read_header
from labctl.domain.failures import Failure, HostError
from labctl.domain.fit.gguf_shape import shape
from labctl.domain.problem import LabctlError
from labctl.fitting import shapes
from labctl.fitting.host_ranges import MOST_AT_ONCE, HostRanges
from labctl.fitting.shapes import Shapes
from labctl.inventory import HuggingFace, Model, ModelFile, Rack, Secret
from labctl.ports import Said

SHA = "ab" * 32


@dataclass
class Hosts:
    """The port ``Remote`` with files of hosts in a folder of this machine; runs the real programs on them."""

    root: Path
    commands: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    down: bool = False

    def run(
        self,
        host: str,
        data: Mapping[str, Any],
        argv: Sequence[str],
        *,
        root: bool,
        stdin: bytes,
        deadline_s: float,
    ) -> Said:
        import subprocess

        self.commands.append((host, tuple(argv)))
        if self.down:
            raise HostError(Failure("timeout", "did not answer", "is it switched on?", unreachable=True))
        words = [
            word.replace("if=/", f"if={self.root}/", 1) if word.startswith("if=/") else word for word in argv
        ]
        words = [f"{self.root}{word}" if word.startswith("/") else word for word in words]
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=30, check=False)
        return Said(done.returncode, done.stdout, done.stderr.decode())

    def stop(self) -> None:
        """Nothing is under way."""


@dataclass
class World:
    """A folder of files on a host, one of files behind an address, and what reads them."""

    hosts: Hosts
    server: Served
    cache: Path
    tokens: list[Secret] = field(default_factory=list)

    def put(self, path: str, model: made.Made, **how: Any) -> Path:
        """Lay a model on the host."""
        full = self.hosts.root / path.lstrip("/")
        full.parent.mkdir(parents=True, exist_ok=True)
        return model.write(full, **how)

    def offer(self, path: str, model: made.Made) -> str:
        """Lay a model behind an address, and return that."""
        full = self.hosts.root / "web" / path.replace("/", "-")
        full.parent.mkdir(parents=True, exist_ok=True)
        self.server.files[f"/{path}"] = model.write(full)
        return f"{self.server.url}/{path}"

    def shapes(self, *, mirror: str | None = None) -> Shapes:
        def token(secret: Secret) -> str:
            self.tokens.append(secret)
            return "hf_secret"

        ways = wiring.readers(self.hosts, {"box": {}})
        return Shapes(Rack(name="lab", hosts=(), mirror=mirror), ways, self.cache, token)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "cache").mkdir()
    (tmp_path / "host").mkdir()
    with serving({}) as server:
        yield World(Hosts(tmp_path / "host"), server, tmp_path / "cache")


def expected(model: made.Made, tmp_path: Path) -> Any:
    return shape(read_header(FileRanges(model.write(tmp_path / "expected.gguf"))))


def test_a_model_that_lies_on_a_host_is_read_there(world: World, tmp_path: Path) -> None:
    world.put("/srv/models/a.gguf", made.llama())
    model = Model(id="a", source="/srv/models/a.gguf")
    assert world.shapes().of(model, host="box") == expected(made.llama(), tmp_path)
    assert [host for host, _ in world.hosts.commands] == ["box", "box"]
    assert {argv[0] for _, argv in world.hosts.commands} == {"stat", "dd"}


def test_a_model_of_a_file_address_is_read_on_the_host(world: World, tmp_path: Path) -> None:
    world.put("/mnt/nas/a.gguf", made.gemma3())
    model = Model(id="a", source="file:///mnt/nas/a.gguf", sha256=SHA)
    assert world.shapes().of(model, host="box") == expected(made.gemma3(), tmp_path)


def test_without_a_host_a_path_is_of_this_machine(world: World, tmp_path: Path) -> None:
    path = made.llama().write(tmp_path / "here.gguf")
    found = world.shapes().of(Model(id="a", source=str(path)), host=None)
    assert found == expected(made.llama(), tmp_path)
    assert world.hosts.commands == []


def test_a_model_with_an_address_is_read_over_http_and_no_host_is_asked(world: World, tmp_path: Path) -> None:
    model = Model(id="a", source=world.offer("a.gguf", made.qwen3moe()), sha256=SHA)
    assert world.shapes().of(model, host="box") == expected(made.qwen3moe(), tmp_path)
    assert world.hosts.commands == []


def test_the_mirror_is_asked_first_and_never_gets_the_token(world: World, tmp_path: Path) -> None:
    world.offer("mirror/a/a.gguf", made.llama())
    model = Model(id="a", source=world.offer("a.gguf", made.llama()), sha256=SHA, token=Secret(env="HF"))
    found = world.shapes(mirror=f"{world.server.url}/mirror").of(model, host=None)
    assert found == expected(made.llama(), tmp_path)
    assert [path for path, _ in world.server.requests] == ["/mirror/a/a.gguf"] * len(world.server.requests)
    assert all("authorization" not in headers for _, headers in world.server.requests)
    assert world.tokens == []


def test_what_the_mirror_lacks_comes_from_its_own_address_with_the_token(world: World) -> None:
    model = Model(id="a", source=world.offer("a.gguf", made.llama()), sha256=SHA, token=Secret(env="HF"))
    world.shapes(mirror=f"{world.server.url}/mirror").of(model, host=None)
    asked = [(path, headers.get("authorization")) for path, headers in world.server.requests]
    assert asked[0] == ("/mirror/a/a.gguf", None)
    assert set(asked[1:]) == {("/a.gguf", "Bearer hf_secret")}


def test_a_mirror_that_is_a_folder_of_the_host_is_read_there(world: World, tmp_path: Path) -> None:
    world.put("/mnt/mirror/a/a.gguf", made.llama())
    model = Model(id="a", source="https://nowhere.invalid/a.gguf", sha256=SHA)
    assert world.shapes(mirror="file:///mnt/mirror").of(model, host="box") == expected(made.llama(), tmp_path)


def test_what_no_address_gives_is_looked_for_where_it_was_fetched_to(world: World, tmp_path: Path) -> None:
    world.put("/srv/models/a/a.gguf", made.llama())
    model = Model(id="a", source=f"{world.server.url}/gone/a.gguf", sha256=SHA)
    assert world.shapes().of(model, host="box") == expected(made.llama(), tmp_path)


def test_where_nothing_answers_every_reason_is_given(world: World) -> None:
    model = Model(id="a", source=f"{world.server.url}/gone/a.gguf", sha256=SHA)
    with pytest.raises(LabctlError) as refused:
        world.shapes().of(model, host="box")
    said = str(refused.value)
    assert said.startswith("the size of a is not known: ")
    assert "its server answers 404" in said
    assert "box:/srv/models/a/a.gguf: is no file there" in said


def test_a_host_that_is_down_is_named(world: World) -> None:
    world.hosts.down = True
    with pytest.raises(
        LabctlError, match=r"box:/srv/models/a\.gguf: cannot be read: did not answer"
    ) as refused:
        world.shapes().of(Model(id="a", source="/srv/models/a.gguf"), host="box")
    assert "is it switched on?" in str(refused.value)


def test_a_pinned_model_is_read_once(world: World) -> None:
    model = Model(id="a", source=world.offer("a.gguf", made.llama()), sha256=SHA)
    first = world.shapes().of(model, host=None)
    world.server.files.clear()
    assert world.shapes().of(model, host=None) == first
    assert len(list(world.cache.iterdir())) == 1


def test_a_model_that_nothing_pins_is_read_each_time(world: World) -> None:
    world.put("/srv/models/a.gguf", made.llama())
    model = Model(id="a", source="/srv/models/a.gguf")
    world.shapes().of(model, host="box")
    world.put("/srv/models/a.gguf", made.llama(ff=1024))
    assert world.shapes().of(model, host="box").largest_ff == 1024
    assert list(world.cache.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 0}', '{"format": 1, "found": {"layers": 7}}', "[" * 9999]
)
def test_a_kept_shape_that_is_none_is_read_anew(world: World, text: str) -> None:
    model = Model(id="a", source=world.offer("a.gguf", made.llama()), sha256=SHA)
    first = world.shapes().of(model, host=None)
    (kept,) = world.cache.iterdir()
    kept.write_text(text)
    assert world.shapes().of(model, host=None) == first
    assert json.loads(kept.read_text())["format"] == shapes.FORMAT


@pytest.mark.parametrize("value", [-(5 * 10**12), "abc", None, 1.5, True])
def test_a_kept_shape_that_was_changed_is_read_anew(world: World, value: object) -> None:
    model = Model(id="a", source=world.offer("a.gguf", made.llama()), sha256=SHA)
    first = world.shapes().of(model, host=None)
    (kept,) = world.cache.iterdir()
    document = json.loads(kept.read_text())
    document["found"]["layers"][0]["weight_bytes"] = value
    kept.write_text(json.dumps(document))
    assert world.shapes().of(model, host=None) == first


def test_a_cache_that_cannot_be_written_costs_only_time(world: World) -> None:
    model = Model(id="a", source=world.offer("a.gguf", made.llama()), sha256=SHA)
    world.cache.rmdir()
    assert world.shapes().of(model, host=None) == world.shapes().of(model, host=None)


def test_a_size_that_the_inventory_states_is_held_to(world: World) -> None:
    files = (ModelFile(name="a.gguf", sha256=SHA, size=5),)
    world.offer("a/a.gguf", made.llama())
    model = Model(id="a", source=f"{world.server.url}/a", files=files)
    with pytest.raises(LabctlError, match="bytes, and the inventory says 5"):
        world.shapes().of(model, host=None)


def _split(world: World, count: int) -> Model:
    for number in range(count):
        name = f"/srv/models/big/big-{number + 1:05d}-of-{count:05d}.gguf"
        world.put(name, made.qwen3moe(), split=(number, count))
    names = [f"big-{number + 1:05d}-of-{count:05d}.gguf" for number in range(count)]
    return Model(
        id="big",
        source="file:///srv/models/big",
        path="/srv/models/big",
        files=tuple(ModelFile(name=name, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in names),
    )


def test_a_split_model_is_the_sum_of_its_parts(world: World, tmp_path: Path) -> None:
    found = world.shapes().of(_split(world, 3), host="box")
    whole = expected(made.qwen3moe(), tmp_path)
    assert found.layers == whole.layers
    assert found.weight_bytes == whole.weight_bytes == made.qwen3moe().weight_bytes


def test_a_split_model_with_a_part_missing_is_refused(world: World) -> None:
    model = _split(world, 3)
    fewer = model.model_copy(update={"files": model.files[:2]})
    with pytest.raises(LabctlError, match="split into 3 files, and 2 are named"):
        world.shapes().of(fewer, host="box")


def test_a_projector_is_no_part_of_the_model_and_has_a_size_of_its_own(world: World, tmp_path: Path) -> None:
    world.put("/srv/models/v/model.gguf", made.gemma3())
    projector = made.Made(
        "clip",
        {"vision.block_count": 2},
        {"v.blk.0.attn_q.weight": (1024, 1024), "mm.0.weight": (1024, 4096)},
    )
    world.put("/srv/models/v/mmproj.gguf", projector)
    files = (ModelFile(name="mmproj.gguf", sha256=SHA), ModelFile(name="model.gguf", sha256="cd" * 32))
    model = Model(
        id="v",
        source="file:///srv/models/v",
        path="/srv/models/v",
        files=files,
        kind="vision",
        mmproj="mmproj.gguf",
    )
    assert world.shapes().of(model, host="box") == expected(made.gemma3(), tmp_path)
    for _ in range(2):  # the second time from what was kept
        assert world.shapes().projector_bytes(model, host="box") == projector.weight_bytes
    (world.hosts.root / "srv/models/v/mmproj.gguf").unlink()
    assert world.shapes().projector_bytes(model, host="box") == projector.weight_bytes
    plain = Model(id="a", source="/srv/models/v/model.gguf")
    assert world.shapes().projector_bytes(plain, host="box") == 0


def test_a_projector_taken_for_a_model_says_so(world: World) -> None:
    world.put(
        "/srv/models/p.gguf", made.Made("clip", {"block_count": 2}, {"v.blk.0.attn_q.weight": (64, 64)})
    )
    with pytest.raises(LabctlError, match="is it a projector or a vocabulary"):
        world.shapes().of(Model(id="p", source="/srv/models/p.gguf"), host="box")


# --- over SSH ---


def test_long_pieces_come_in_several_commands(world: World) -> None:
    path = world.hosts.root / "long"
    path.write_bytes(bytes(range(256)) * (20 * 1024))
    source = HostRanges(world.hosts, "box", {}, "/long")
    assert source.read(7, 4 * 1024**2) == path.read_bytes()[7 : 7 + 4 * 1024**2]
    assert source.read(path.stat().st_size - 5, 100) == path.read_bytes()[-5:]
    for _, argv in world.hosts.commands:
        counts = [int(word.removeprefix("count=")) for word in argv if word.startswith("count=")]
        assert counts and counts[0] <= MOST_AT_ONCE


@pytest.mark.parametrize("name", ["with space.gguf", "$(touch x).gguf", "-rf.gguf", "a;b.gguf", "é.gguf"])
def test_odd_names_are_words_of_their_own(world: World, name: str) -> None:
    (world.hosts.root / name).write_bytes(b"GGUF")
    source = HostRanges(world.hosts, "box", {}, f"/{name}")
    assert (source.size, source.read(0, 4)) == (4, b"GGUF")


def test_a_folder_is_no_file(world: World) -> None:
    (world.hosts.root / "folder").mkdir()
    with pytest.raises(LabctlError, match="box:/folder: is no file there"):
        _ = HostRanges(world.hosts, "box", {}, "/folder").size


# --- safetensors ---


def _safetensors(path: Path, tensors: Mapping[str, int]) -> Path:
    entries, at = {}, 0
    for name, size in tensors.items():
        entries[name] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + at)
    return path


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
PARTS = [
    {"model.embed_tokens.weight": 65_536_000, "model.layers.0.self_attn.q_proj.weight": 2_097_152},
    {
        "model.layers.1.self_attn.q_proj.weight": 2_097_152,
        "model.norm.weight": 2048,
        "lm_head.weight": 65_536_000,
    },
]


def _folder(world: World) -> Path:
    folder = world.hosts.root / "srv/models/hf"
    for number, tensors in enumerate(PARTS, 1):
        _safetensors(folder / f"model-{number:05d}-of-00002.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weights = {
        name: f"model-{n:05d}-of-00002.safetensors" for n, part in enumerate(PARTS, 1) for name in part
    }
    index = {"metadata": {"total_size": 1}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_folder_of_safetensors_on_a_host_is_read_by_its_index(world: World) -> None:
    _folder(world)
    found = world.shapes().of(Model(id="hf", source="/srv/models/hf"), host="box")
    assert found.weight_bytes == sum(size for part in PARTS for size in part.values())
    assert [layer.weight_bytes for layer in found.layers] == [2_097_152, 2_097_152]
    assert (found.input_bytes, found.output_bytes, found.tied) == (65_536_000, 65_538_048, False)
    assert (found.layers[0].cache.k_width, found.trained_context) == (256, 8192)


def test_safetensors_of_a_hub_are_read_by_their_addresses(world: World) -> None:
    folder = _folder(world)
    names = ["config.json", *(path.name for path in sorted(folder.glob("*.safetensors")))]
    world.server.files.update({f"/hub/o/m/resolve/main/{name}": folder / name for name in names})
    model = Model(
        id="hf",
        hub=HuggingFace(repo="o/m", revision="main", endpoint=f"{world.server.url}/hub"),
        files=tuple(ModelFile(name=name, sha256=SHA) for name in names),
    )
    assert world.shapes().of(model, host=None).layers[1].weight_bytes == 2_097_152


def test_safetensors_without_their_configuration_say_what_to_add(world: World) -> None:
    model = Model(
        id="hf", source="file:///srv/models/hf", files=(ModelFile(name="model.safetensors", sha256=SHA),)
    )
    with pytest.raises(LabctlError, match=r"config.json is not among its files .*ModelFile") as refused:
        world.shapes().of(model, host="box")
    assert 'name="config.json"' in str(refused.value)


@pytest.mark.parametrize("name", ["../../etc/shadow", "/etc/shadow", "", "..", "-x", 7, ["a"], {"a": 1}])
def test_an_index_that_leads_elsewhere_is_refused(world: World, name: object) -> None:
    folder = _folder(world)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(LabctlError, match="names files that cannot be"):
        world.shapes().of(Model(id="hf", source="/srv/models/hf"), host="box")


BROKEN = {
    "nothing": (b"", "it is no safetensors file"),
    "an endless header": (struct.pack("<Q", 2**60) + b"{}", "would have 1152921504606846976 bytes"),
    "no JSON": (struct.pack("<Q", 4) + b"{{{{", "what should be JSON is none"),
    "a list": (struct.pack("<Q", 2) + b"[]", "a JSON object is none"),
    "deep JSON": (struct.pack("<Q", 200_000) + b"[" * 200_000, "what should be JSON is none"),
    "a tensor without a place": (struct.pack("<Q", 8) + b'{"a":{}}', "has no place"),
    "a tensor that is cut off": (
        struct.pack("<Q", 28) + b'{"a":{"data_offsets":[0,9]}}',
        "it is cut off: the tensor a",
    ),
    "a tensor that ends before it begins": (
        struct.pack("<Q", 28) + b'{"a":{"data_offsets":[5,0]}}' + bytes(9),
        "has no place",
    ),
}


@pytest.mark.parametrize("data, words", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_sound_safetensors_file_is_refused_in_words(world: World, data: bytes, words: str) -> None:
    folder = _folder(world)
    (folder / "model-00001-of-00002.safetensors").write_bytes(data)
    with pytest.raises(LabctlError) as refused:
        world.shapes().of(Model(id="hf", source="/srv/models/hf"), host="box")
    assert words in str(refused.value)
