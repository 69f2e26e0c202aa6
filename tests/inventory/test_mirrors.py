"""From where a file may come, and where a token may go."""

from __future__ import annotations

import pytest

from labctl.inventory import HuggingFace, Model, ModelFile, Rack, mirrors

SHA = "ab" * 32
URL = "https://models.example.org/x.gguf"


def _rack(mirror: str | None) -> Rack:
    return Rack(name="r", hosts=(), mirror=mirror)


@pytest.mark.parametrize(
    ("mirror", "url", "expected"),
    [
        (None, URL, (URL,)),
        ("http://nas/models", URL, ("http://nas/models/x.gguf", URL)),
        ("http://nas/models/", URL, ("http://nas/models/x.gguf", URL)),
        ("file:///mnt/usb", URL, ("file:///mnt/usb/x.gguf", URL)),
        (
            "https://models.example.org/m",
            "https://models.example.org/m/x.gguf",
            ("https://models.example.org/m/x.gguf",),
        ),
        ("http://nas/models", "", ()),
    ],
)
def test_the_mirror_comes_first_and_no_address_twice(
    mirror: str | None, url: str, expected: tuple[str, ...]
) -> None:
    assert mirrors.addresses(_rack(mirror), url, name="x.gguf") == expected


def test_a_models_files_lie_below_its_id_in_a_mirror() -> None:
    model = Model(
        id="qwen:8b",
        hub=HuggingFace(repo="Qwen/Q", revision="main"),
        files=(ModelFile(name="a/x-1.gguf", sha256=SHA), ModelFile(name="y.json", sha256=SHA)),
    )
    rack = _rack("http://nas/m")
    assert [mirrors.of_model(rack, model, placed) for placed in model.layout()] == [
        ("http://nas/m/qwen:8b/a/x-1.gguf", "https://huggingface.co/Qwen/Q/resolve/main/a/x-1.gguf"),
        ("http://nas/m/qwen:8b/y.json", "https://huggingface.co/Qwen/Q/resolve/main/y.json"),
    ]


@pytest.mark.parametrize(
    ("url", "may"),
    [
        (URL, True),
        ("http://127.0.0.1:8000/x", True),
        ("http://localhost/x", True),
        ("http://hub.lan/x", False),
        ("http://localhost.evil.example/x", False),
        ("file:///x", False),
    ],
)
def test_a_token_goes_only_where_nobody_can_read_it(url: str, may: bool) -> None:
    assert mirrors.takes_token(url) is may
