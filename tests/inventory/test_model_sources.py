"""Where models come from: a hub by its address alone, or a mirror that has a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

BODY = """\
from labctl.inventory import HuggingFace
rack = Rack(name="r", hosts=[], mirror="MIRROR", models=[
    Model(id="m", file="m.gguf", sha256="a" * 64,
          hub=HuggingFace(repo="o/r", revision="main"ENDPOINT))])
"""


@pytest.mark.parametrize("endpoint", ["", "https://hub.lan", "http://hub.lan:8080/mirror/"])
@pytest.mark.parametrize("mirror", ["http://nas:8000", "https://nas/models/", "file:///srv/mirror"])
def test_a_hub_and_a_mirror_need_no_path(endpoint: str, mirror: str, tmp_path: Path) -> None:
    named = f', endpoint="{endpoint}"' if endpoint else ""
    (model,) = loaded(tmp_path, BODY.replace("ENDPOINT", named).replace("MIRROR", mirror)).rack.models
    start = endpoint.rstrip("/") or "https://huggingface.co"
    assert model.layout()[0].url == f"{start}/o/r/resolve/main/m.gguf"


@pytest.mark.parametrize("endpoint", ["hub.lan", "ftp://hub.lan/", "https://me:pw@hub.lan/", "file:///"])
def test_what_is_no_address_of_a_hub_is_refused(endpoint: str, tmp_path: Path) -> None:
    body = BODY.replace("ENDPOINT", f', endpoint="{endpoint}"').replace("MIRROR", "http://nas/")
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert found.field == "models[0].hub.endpoint"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("https://hub.lan/..", ""),
        ("https://hub.lan/m.gguf", "/"),
        ("https://hub.lan/m.gguf", "/srv/models/m/"),
        ("https://hub.lan/m.gguf", "/srv/models//m.gguf"),
        ("https://hub.lan/m.gguf", "/srv/models/./m.gguf"),
    ],
)
def test_a_file_lies_at_one_plain_path(source: str, path: str, tmp_path: Path) -> None:
    told = f', path="{path}"' if path else ""
    model = f'Model(id="m", source="{source}", sha256="{"a" * 64}"{told})'
    body = f'rack = Rack(name="r", hosts=[], models=[{model}])'
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert "no plain path" in found.reason


def test_an_address_with_spaces_is_refused_with_its_right_spelling(tmp_path: Path) -> None:
    body = (
        'rack = Rack(name="r", hosts=[], models=[Model(id="m", source="https://hub.lan/a b%20ü", path="/m")])'
    )
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert found.hint == "https://hub.lan/a%20b%20%C3%BC"
