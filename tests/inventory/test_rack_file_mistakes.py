"""What a person is told about a rack file that is wrong: place, host, field, reason, and what to write."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from mistakes import ENDINGS, FIELDS, Case, one
from rack_texts import HEAD, TAIL, problems, rack_text, write

from labctl.domain.problem import LabctlError
from labctl.inventory import Host, load_rack
from labctl.inventory.loader import read_text


@pytest.mark.parametrize("case", FIELDS, ids=lambda case: case.name)
def test_a_wrong_field_is_told_with_its_line_host_and_reason(case: Case, tmp_path: Path) -> None:
    found = problems(write(tmp_path, rack_text(case.body)))
    assert len(found) == 1, found
    assert (found[0].line, found[0].host) == (case.line, case.host), found
    assert case.reason in found[0].reason
    assert found[0].field.startswith(case.field)
    assert case.hint in found[0].hint
    assert found[0].file.endswith("rack.py")
    assert "\n" not in str(found[0])


@pytest.mark.parametrize("case", ENDINGS, ids=lambda case: case.name)
def test_a_file_that_does_not_run_to_its_end_is_told_with_its_line(case: Case, tmp_path: Path) -> None:
    found = problems(write(tmp_path, HEAD + case.body))
    assert case.reason in found[0].reason, found
    assert found[0].line == case.line
    assert case.hint in found[0].hint
    assert str(tmp_path) in found[0].file
    assert found[0].reason.isprintable()


def test_the_value_of_an_unknown_field_is_never_shown(tmp_path: Path) -> None:
    found = problems(write(tmp_path, rack_text(one('password="hunter2"'))))
    assert found
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "key",
    [
        'GatewayKey(name="a", secret="hunter-2")',
        'GatewayKey(name="a", sha256="hunter-2")',
        'GatewayKey(name="a", secret=Secret(env="hunter-2"))',
        'GatewayKey(name="a", key="hunter-2")',
        '"hunter-2"',
    ],
)
def test_a_secret_that_stands_where_its_reference_belongs_is_never_shown(key: str, tmp_path: Path) -> None:
    imports = "from labctl.inventory import Gateway, GatewayKey, Secret\n"
    body = f"{imports}rack = Rack(name='r', hosts=[], gateway=Gateway(host='a', keys=[{key}]))"
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert found.line == 6
    assert "hunter" not in str(found)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    body = """\
a = Host(name="a", address="10.0.0.1", base_w="1")
b = Host(name="b", address="10.0.0.2",
         gpus=[Gpu(model="RTX 3090", slot="s", cap_w=1.5)])
c = Host(name="c", address="10.0.0.3", open_ports=[0])
rack = Rack(name="r", hosts=[a, b, c], zone="x")
Hots()
"""
    found = problems(write(tmp_path, rack_text(body)))
    assert [(p.line, p.host, p.field) for p in found] == [
        (5, "a", "base_w"),
        (7, "b", "gpus[0].cap_w"),
        (8, "c", "open_ports[0]"),
        (9, "", "zone"),
        (10, "", ""),
    ]


def test_parts_that_could_be_read_are_checked_against_each_other_all_the_same(tmp_path: Path) -> None:
    body = """\
a = Host(name="a", address="10.0.0.1", base_w="1")
b = Host(name="b", address="10.0.0.2", depends_on=["a"])
c = Host(name="c", address="10.0.0.2", depends_on=["nobody"])
rack = Rack(name="r", hosts=[a, b, c])
"""
    found = problems(write(tmp_path, rack_text(body)))
    told = [(p.line, p.host, p.field) for p in found]
    # That b needs a is no mistake, although a could not be read.
    assert told == [(5, "a", "base_w"), (7, "c", "address"), (7, "c", "depends_on[0]")]


def test_a_mistake_in_a_loop_is_told_once_with_the_hosts_that_have_it(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[
    Host(name=f"n{i}", address=f"10.0.0.{i}", base_w="1") for i in range(1, 4)])
"""
    found = problems(write(tmp_path, rack_text(body)))
    assert [(p.line, p.host, p.field) for p in found] == [(6, "n1", "base_w")]
    assert found[0].reason.endswith("(also n2, n3)")


def test_a_mistake_through_a_function_names_the_caller_too(tmp_path: Path) -> None:
    body = """\
def box(name, watts):
    return Host(name=name, address=name + ".lan", base_w=watts)

rack = Rack(name="r", hosts=[box("a", 5), box("b", "6")])
"""
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert (found.line, found.host) == (6, "b")
    assert found.reason.endswith("rack.py:8)")


def test_code_that_fails_because_of_an_earlier_mistake_does_not_hide_it(tmp_path: Path) -> None:
    body = 'a = Host(name="a", adress="10.0.0.1")\nb = a.address + "x"\nrack = 1'
    found = problems(write(tmp_path, rack_text(body)))
    assert [(p.line, p.field) for p in found[:2]] == [(5, "address"), (5, "adress")]
    assert "another mistake" in found[-1].hint


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (b"\xff\xfe", 1, "not UTF-8"),
        (b"x = 1\n# caf\xe9\n", 2, "not UTF-8"),
        (b"x = 1\n\0\n", 2, "zero byte"),
        (b"", 1, "defines no `rack`"),
        (b"(" * 5000, 1, "Python cannot read"),
        (b"x = " + b"-" * 20000 + b"1", None, ""),
        (b"#" * (2 * 1024 * 1024 + 1), None, "KiB long"),
        ("\ufeffx = 1".encode(), 1, "Python cannot read"),
    ],
)
def test_a_file_that_is_hardly_python_is_told(text: bytes, line: int, reason: str, tmp_path: Path) -> None:
    found = problems(write(tmp_path, text))
    assert reason in found[0].reason
    assert found[0].line == line or line is None


def test_a_file_that_is_not_there_says_how_to_start_one(tmp_path: Path) -> None:
    (found,) = problems(tmp_path / "rack.py")
    assert found.reason == "there is no such file"
    assert "labctl init" in found.hint


def test_a_folder_a_pipe_and_an_unreadable_path_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "pipe" / "x", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (Path("a\0b"), "cannot be read"),
    ):
        (found,) = problems(path)
        assert reason in found.reason


def test_ctrl_c_while_loading_passes_through(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_rack(write(tmp_path, "raise KeyboardInterrupt"))


def test_loading_leaves_the_surroundings_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    recipe = "from labctl.inventory import Host\nBAD = Host(name='x', adress='y')\n"
    write(tmp_path / "recipes", recipe, "boxes.py")
    path = write(tmp_path, rack_text("from recipes.boxes import BAD\nrack = Rack(name='r', hosts=[BAD])"))
    before = (sys.stdout, sys.stdin, list(sys.path), set(sys.modules))
    (found, missing) = problems(path)
    assert found.file.endswith("recipes/boxes.py")
    assert (found.line, missing.line) == (2, 2)
    assert (sys.stdout, sys.stdin, list(sys.path), set(sys.modules)) == before
    # Otherwise the stand-in of the first load would be taken for a host by the second.
    write(tmp_path / "recipes", recipe.replace("adress", "address"), "boxes.py")
    assert load_rack(path).rack.host("x").address == "y"
    assert not (tmp_path / "recipes" / "__pycache__").exists()


def test_without_a_load_a_constructor_raises_at_once() -> None:
    with pytest.raises(ValueError, match="adress"):
        Host(name="a", adress="x")  # type: ignore[call-arg]


def test_a_copy_that_bypasses_validation_is_found_out(tmp_path: Path) -> None:
    body = """\
a = Host(name="a", address="10.0.0.1").model_copy(update={"base_w": "many"})
rack = Rack(name="r", hosts=[a])
"""
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert "base_w" in found.field


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('caps = ["slot0", "slot1"]', "'slot0' is no host of the rack"),
        ('ntp = ("a.example", "b.example")', "it is no list of hosts"),
        ("nothing = ()", "it is no list of hosts"),
        ("pair = (1, {})", "it is no list of hosts"),
        ('odd = [("a", {}), ("b", 5, 6)]', "not all of its items are host names"),
    ],
)
def test_a_list_that_pyinfra_would_take_for_a_group_is_told(line: str, reason: str, tmp_path: Path) -> None:
    body = line + '\nrack = Rack(name="r", hosts=[Host(name="a", address="10.0.0.1")])'
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert reason in found.reason
    assert found.line == 5
    assert found.hint == f"rename it to `_{line.split()[0]}`"


def test_a_rack_that_plain_pyinfra_would_not_see_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + 'rack = Rack(name="r", hosts=[Host(name="a", address="x")])')
    (found,) = problems(path)
    assert "globals().update(rack.groups())" in found.hint
    assert found.line == 5


@pytest.mark.parametrize("name", ["gpu", "hosts", "all", "rack"])
def test_a_host_may_not_be_called_like_a_group(name: str, tmp_path: Path) -> None:
    body = f'rack = Rack(name="r", hosts=[\n    Host(name="{name}", address="10.0.0.1")])'
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert found.reason == "is also the name of a group"
    assert found.line == 6


def test_mistakes_in_group_data_are_told_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "group_data").mkdir()
    write(tmp_path / "group_data", "x = 1\ny = z\n", "gpu.py")
    write(tmp_path / "group_data", b"\xff", "storage.py")
    found = problems(write(tmp_path, rack_text('rack = Rack(name="r", hosts=[])' + TAIL)))
    assert [(Path(p.file).name, p.line) for p in found] == [("gpu.py", 2), ("storage.py", 1)]


def test_reading_a_sane_file_returns_its_text(tmp_path: Path) -> None:
    assert read_text(write(tmp_path, "ä\n")) == "ä\n"
    with pytest.raises(LabctlError):
        read_text(tmp_path)
