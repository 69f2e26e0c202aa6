"""Models of Ollama, with a stand-in for its client that keeps what it is told in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ops_hosts import Here

from labctl.ops import ollama
from labctl.ops.ollama import Served

CLIENT = """\
#!/bin/sh
case $1 in
  list) [ -d {store} ] ;;
  show) [ -e "{store}/$2" ] ;;
  create) cp "$4" "{store}/$2" && echo "create $2 at $OLLAMA_HOST" >>{store}.log ;;
esac
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(ollama, "STAMPS", str(tmp_path / "stamps"))
    (tmp_path / "store").mkdir()
    program = tmp_path / "ollama"
    program.write_text(CLIENT.format(store=tmp_path / "store"))
    program.chmod(0o755)
    return {"program": str(program), "address": "127.0.0.1:11434"}


def test_a_model_is_made_known_once_and_again_when_its_weights_change(
    here: Here, server: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "tiny"
    file.write_text("FROM /srv/tiny.gguf\n")
    for mark in ("one", "two"):
        here.must(ollama.models, **server, served=(Served("tiny", str(file), mark),))
    assert (tmp_path / "store.log").read_text() == "create tiny at 127.0.0.1:11434\n" * 2
    (tmp_path / "store/tiny").unlink()
    here.must(ollama.models, **server, served=(Served("tiny", str(file), "two"),))


def test_a_model_that_ollama_does_not_take_is_named(
    here: Here, server: dict[str, Any], tmp_path: Path
) -> None:
    served = (Served("tiny", str(tmp_path / "absent"), "one"),)
    last = here.apply(ollama.models, **server, served=served)[-1]
    assert "Ollama could not take tiny from" in last.stderr
    assert list((tmp_path / "stamps").iterdir()) == []
