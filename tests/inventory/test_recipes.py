"""Recipes: services in files of their own, found by labctl and by pyinfra, and whose mistakes are told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rack_texts import problems, write

from labctl.inventory import LlamaServer, LlamaSwap, load_rack
from labctl.inventory.services import each_engine

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
CODER = """\
from labctl.inventory import LlamaServer, Model, Swapped

MODELS = [Model(id="coder", source="/srv/coder.gguf")]

def coder(**options):
    return LlamaServer(
        name="coder", model="coder", port=8081,
        **options)
"""
RACK = """\
from labctl.inventory import Gpu, Host, Rack
from recipes import coder

rack = Rack(name="r", models=coder.MODELS, hosts=[
    Host(name="rig", address="10.0.0.1", services=[coder.coder(OPTIONS)]),
])
globals().update(rack.groups())
"""


def rack_with(folder: Path, options: str = "", recipe: str = CODER, below: str = "") -> Path:
    """Write a rack file that uses a recipe, the recipe beside it or in ``below``; return the rack file."""
    recipes = folder / below / "recipes"
    recipes.mkdir(parents=True)
    write(recipes, recipe, "coder.py")
    return write(folder, RACK.replace("OPTIONS", options))


def documented(folder: Path) -> Path:
    """Write the files that the page shows, each by the name in its first line; return the rack file."""
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert [name for name, _ in blocks] == ["recipes/coder.py", "recipes/retrieval.py", "rack.py"]
    (folder / "recipes").mkdir()
    for name, text in blocks:
        write(folder, text, name)
    return folder / "rack.py"


def test_the_recipes_of_the_documentation_load(tmp_path: Path) -> None:
    rack = load_rack(documented(tmp_path)).rack
    (swap,) = rack.host("rig").services
    assert isinstance(swap, LlamaSwap)
    engines = [engine for _, engine in each_engine(swap)]
    assert [engine.name for engine in engines] == ["coder", "embeddings", "reranker"]
    assert isinstance(engines[0], LlamaServer)
    assert rack.model(engines[0].model).draft == "qwen2.5-coder-0.5b"
    assert [rack.model(name).kind for name in swap.groups[0].members] == ["embedding", "rerank"]


@pytest.mark.parametrize("where", ["", "inventory"])
def test_a_recipe_is_found_beside_the_rack_file_and_one_folder_up(where: str, tmp_path: Path) -> None:
    (tmp_path / where).mkdir(exist_ok=True)
    rack_file = rack_with(tmp_path / where, below=".." if where else "")
    assert load_rack(rack_file).rack.host("rig").services[0].name == "coder"


def test_two_racks_may_have_recipes_of_one_name(tmp_path: Path) -> None:
    for name, port in (("one", "8081"), ("two", "9091")):
        (tmp_path / name).mkdir()
        rack_with(tmp_path / name, recipe=CODER.replace("8081", port))
    ports = [
        load_rack(tmp_path / name / "rack.py").rack.host("rig").services[0].port for name in ("one", "two")
    ]
    assert ports == [8081, 9091]


def test_a_wrong_field_in_a_recipe_is_told_with_both_lines(tmp_path: Path) -> None:
    (found,) = problems(rack_with(tmp_path, recipe=CODER.replace("**options", "ctx=4096")))
    assert found.file.endswith("recipes/coder.py")
    assert (found.line, found.host, found.field) == (8, "rig", "services[0].ctx")
    assert found.reason.endswith("rack.py:5)")
    assert "(called from " in found.reason
    assert "ctx_size" in found.hint


def test_a_wrong_value_that_the_rack_file_gave_is_told_with_both_lines(tmp_path: Path) -> None:
    (found,) = problems(rack_with(tmp_path, 'ctx_size="4k"'))
    assert found.file.endswith("recipes/coder.py")
    assert (found.line, found.field) == (6, "services[0].ctx_size")
    assert found.reason.endswith("rack.py:5)")


def test_a_wrong_field_inside_llama_swap_in_a_recipe_is_told(tmp_path: Path) -> None:
    recipe = """\
from labctl.inventory import LlamaServer, LlamaSwap, Model, Swapped
MODELS = [Model(id="coder", source="/srv/coder.gguf")]
def coder():
    return LlamaSwap(name="swap", port=8080, models=[
        Swapped(
            engine=LlamaServer(name="coder", model="coder",
                               flash_atn="on"))])
"""
    (found,) = problems(rack_with(tmp_path, recipe=recipe))
    assert (found.line, found.host) == (7, "rig")
    assert found.field == "services[0].models[0].engine.flash_atn"
    assert "did you mean flash_attn?" in found.hint
    assert found.reason.endswith("rack.py:5)")


def test_a_mistake_on_the_top_level_of_a_recipe_names_the_import(tmp_path: Path) -> None:
    recipe = CODER.replace('id="coder"', 'id="coder", quantization="Q4"')
    (found,) = problems(rack_with(tmp_path, recipe=recipe))
    assert found.file.endswith("recipes/coder.py")
    assert found.line == 3
    assert re.search(r"\(imported from .*rack\.py:2\)$", found.reason)


def test_a_disagreement_about_a_service_of_a_recipe_is_told_with_both_lines(tmp_path: Path) -> None:
    (found,) = problems(rack_with(tmp_path, 'gpus=("left",)'))
    assert found.file.endswith("recipes/coder.py")
    assert (found.line, found.host, found.field) == (6, "rig", "services[0].gpus[0]")
    assert re.search(r"no card of this host called 'left' \(called from .*rack\.py:5\)$", found.reason)


def test_a_disagreement_about_a_value_of_a_recipe_names_the_import(tmp_path: Path) -> None:
    recipe = CODER.replace("]\n", ', Model(id="other", source="/srv/coder.gguf")]\n', 1)
    (found,) = problems(rack_with(tmp_path, recipe=recipe))
    assert found.file.endswith("recipes/coder.py")
    assert (found.line, found.field) == (3, "models[1].path")
    assert re.search(r"\(imported from .*rack\.py:2\)$", found.reason)


def test_a_recipe_that_calls_a_recipe_is_told_from_the_innermost_with_the_rack_s_line(tmp_path: Path) -> None:
    rack_file = rack_with(tmp_path, recipe=CODER + "\n\ndef small():\n    return coder(parallel=0)\n")
    rack_file.write_text(rack_file.read_text().replace("coder.coder()", "coder.small()"))
    (found,) = problems(rack_file)
    assert (found.line, found.field) == (6, "services[0].parallel")
    assert found.reason.endswith("rack.py:5)")


@pytest.mark.parametrize(
    ("recipe", "line", "reason"),
    [
        ("def coder(:\n", 1, "Python cannot read this line"),
        ("import nowhere_to_be_found\n", 1, "there is no module 'nowhere_to_be_found'"),
        ("x = 1\nprint('hi')\n" + CODER, 2, "prints to standard output"),
        ("x = 1\ny = 1 / 0\n", 2, "ZeroDivisionError"),
    ],
)
def test_a_recipe_that_does_not_run_is_told_with_its_line(
    recipe: str, line: int, reason: str, tmp_path: Path
) -> None:
    found = problems(rack_with(tmp_path, recipe=recipe))
    assert reason in found[0].reason
    assert found[0].file.endswith("recipes/coder.py")
    assert found[0].line == line


def test_a_recipe_that_is_not_there_is_told_with_the_places_that_were_looked_at(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, RACK))
    assert (found.line, found.reason) == (2, "there is no module 'recipes'")
    assert "beside the rack file" in found.hint


def told_by_pyinfra(rack_file: str, folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("pyinfra")), "--json", rack_file, "debug-inventory"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(
    ("rack_in", "recipes_in", "environment"),
    [
        ("", "", {}),
        ("inventory", "..", {}),
        ("inventory", "", {"PYTHONPATH": "inventory"}),
    ],
)
def test_plain_pyinfra_finds_recipes_as_the_documentation_says(
    rack_in: str,
    recipes_in: str,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / rack_in).mkdir(exist_ok=True)
    rack_file = rack_with(tmp_path / rack_in, "ctx_size=4096", below=recipes_in)
    monkeypatch.chdir(tmp_path)
    (told,) = told_by_pyinfra(str(rack_file.relative_to(tmp_path)), tmp_path, environment)
    assert told["data"]["spec"] == load_rack(rack_file).rack.host("rig").to_json()
