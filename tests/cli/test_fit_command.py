"""``labctl fit``, and what plan and apply refuse, as a person sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fit_desk import Shelf, rack_text, swapped

from conftest import Desk  # isort: skip

MATRIX = (
    '            LlamaSwap(name="swap", port=9000, binary="/usr/bin/llama-swap", models=[\n'
    f"{swapped('a', 'b', 'c')}"
    "              ],\n"
    "              matrix=SwapMatrix(sets={\n"
    '                "small": "a & c",\n'
    '                "big": "a & b",\n'
    "              })),\n"
)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "shelf")
    for name, gib in (("a", 13.0), ("b", 11.0), ("c", 4.0)):
        made.add(name, gib)
    yield made
    made.close()


@pytest.fixture
def over(desk: Desk, shelf: Shelf) -> Desk:
    """Return a desk whose matrix has a set that is too large."""
    desk.rack.write_text(rack_text(shelf, MATRIX))
    return desk


def test_an_over_committed_matrix_is_refused_with_its_set_file_line_and_cure(over: Desk) -> None:
    for command in ("plan", "apply"):
        done = over.run(command, *(["--yes"] if command == "apply" else []))
        assert (done.code, done.out) == (2, "")
        first, hint = done.err.splitlines()
        assert first.startswith("error: inventory/rack.py:13: host rig: services[0].matrix.sets.big: ")
        assert 'llama-swap matrix set "big": a + b need 2' in first
        assert first.endswith("GiB of GPU slot0 (23.5 usable)")
        assert hint.startswith('  hint: not b at the same time; labctl apply --force "WORDS"')
    assert over.notes("do", "job") == []


def test_what_fits_goes_its_way_and_a_header_is_read_once(desk: Desk, shelf: Shelf) -> None:
    desk.rack.write_text(rack_text(shelf, MATRIX.replace('"big": "a & b"', '"big": "b & c"')))
    assert desk.run("plan").code == 0
    assert set(shelf.asked) == {"/a.gguf", "/b.gguf", "/c.gguf"}
    shelf.asked.clear()
    assert desk.run("plan").code == 0
    assert shelf.asked == []


def test_a_rack_of_which_no_memory_is_known_reads_no_header(desk: Desk, shelf: Shelf) -> None:
    desk.rack.write_text(rack_text(shelf, MATRIX, fields=""))
    done = desk.run("apply", "--yes")
    assert (done.code, shelf.asked) == (0, [])
    shown = desk.run("fit")
    assert (shown.code, shown.out.splitlines()[0], shelf.asked) == (1, "rig: not checked", [])
    assert "note: nothing is known of its memory (no Gpu, no memory_gib), so nothing was checked" in shown.out


def test_a_rack_that_serves_nothing_has_nothing_to_fit(desk: Desk) -> None:
    done = desk.run("fit")
    assert (done.code, done.out) == (0, "no host serves a model of which labctl knows anything\n")


def test_a_header_that_cannot_be_read_is_a_warning_to_plan_and_a_refusal_to_apply(
    over: Desk, shelf: Shelf
) -> None:
    over.rack.write_text(rack_text(shelf, MATRIX.replace('"big": "a & b"', '"big": "b & c"')))
    (shelf.folder / "c.gguf").unlink()
    over.entry = over.entry.replace(', "paramiko"', "").replace("80 *", "120 *")  # it asks the host at last
    planned = over.run("plan", "--limit", "rig")
    assert planned.code == 0
    said = planned.err.splitlines()[0]
    assert said.startswith("warning: inventory/rack.py:9: host rig: services[0].models[2].engine: ")
    assert "whether c fits is not known" in said
    assert "404" in said
    refused = over.run("apply", "--yes")
    assert refused.code == 2
    assert "error: inventory/rack.py:9: host rig" in refused.err
    assert "labctl apply --force" in refused.err


def test_force_needs_words(over: Desk) -> None:
    for words in ("", "yes", "1234567890 !!"):
        done = over.run("apply", "--yes", "--force", words)
        assert done.code == 2
        assert "does not say why" in done.err
    assert over.notes("do", "job") == []


def test_forced_words_go_to_the_worker_for_the_host_they_are_about(over: Desk) -> None:
    done = over.run("apply", "--yes", "--force", "card two is lent out")
    assert done.code == 0
    assert "warning: inventory/rack.py:13: host rig" in done.err
    (job,) = over.notes("do", "job")
    ((host, record),) = job["forced"].items()
    kept = json.loads(record)
    assert host == "rig"
    assert kept["words"] == "card two is lent out"
    assert '"big"' in kept["what"][0]
    assert kept["when"].startswith("20")
    assert "@" in kept["who"]


def test_with_nothing_to_force_that_is_said(desk: Desk, shelf: Shelf) -> None:
    desk.rack.write_text(rack_text(shelf, MATRIX.replace('"big": "a & b"', '"big": "b & c"')))
    done = desk.run("apply", "--yes", "--force", "just in case it is needed")
    assert done.code == 0
    assert "note: everything fits, so there is nothing to force" in done.err
    (job,) = desk.notes("do", "job")
    assert job["forced"] == {}


def test_fit_shows_what_each_model_takes_and_ends_with_1_where_a_set_is_over(over: Desk) -> None:
    done = over.run("fit")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == "rig: does not fit"
    assert lines[1].split() == [
        "MODEL", "SERVICE", "ON", "WEIGHTS", "CACHE", "COMPUTE", "OTHER", "TOTAL", "USABLE",
    ]  # fmt: skip
    assert lines[2].split()[:4] == ["a", "e-a", "slot0", "13.08"]
    assert lines[2].split()[-1] == "23.50"
    assert any(line.startswith("a: at most ") and "tok/s" in line for line in lines)
    assert any(line.startswith('llama-swap matrix set "big"') and " over " in line for line in lines)
    assert "hint: not b at the same time" in lines
    assert "note: memory_gib is not stated, so what models need of main memory was not checked" in lines


def test_fit_of_one_model_shows_only_what_is_about_it(over: Desk) -> None:
    done = over.run("fit", "c", "--json")
    document = json.loads(done.out)
    assert (done.code, document["ok"]) == (0, True)
    (host,) = document["hosts"]
    assert [one["model"] for one in host["models"]] == ["c"]
    assert [one["models"] for one in host["sets"]] == [["a", "c"]]
    assert host["models"][0]["devices"][0]["usable_bytes"] == int(23.5 * 1024**3)


def test_a_folder_that_is_called_as_a_model_is_no_rack(over: Desk) -> None:
    (over.folder / "c").mkdir()
    assert over.run("fit", "c").out.startswith("rig: ")


def test_another_context_and_more_users_take_more(over: Desk) -> None:
    def cache(*args: str) -> int:
        document = json.loads(over.run("fit", "c", "--json", *args).out)
        return int(document["hosts"][0]["models"][0]["devices"][0]["cache_bytes"])

    assert cache("--ctx", "8192") == 2 * cache()
    assert cache("--ctx", "8192", "--users", "3") == 6 * cache()
    assert over.run("fit", "c", "--ctx", "1000000").code == 1


@pytest.mark.parametrize(
    ("cards", "code", "text"),
    [
        ("RTX 3060", 1, "what-if: does not fit"),
        ("2x RTX 3060", 0, "what-if: fits"),
        ("RTX 3090 + RTX 3060", 0, "what-if: fits"),
        ("Strix Halo 64 GiB", 0, "what-if: fits"),
        ("RTX 9999", 2, "labctl knows no such card"),
        ("Strix Halo", 2, "how much memory has the machine?"),
        ("Strix Halo 0 GiB", 2, "no machine has 0 GiB"),
        ("Strix Halo 99999 GiB", 2, "no machine has 99999 GiB"),
        ("0x RTX 3090", 2, "no card at all"),
        ("", 2, "--what-if names no card"),
        ("100x RTX 3090", 2, "more than 64 cards"),
    ],
)
def test_what_if_there_were_other_cards(over: Desk, cards: str, code: int, text: str) -> None:
    done = over.run("fit", "a", "--what-if", cards)
    assert (done.code, text in done.out + done.err) == (code, True), done


def test_a_file_that_is_in_no_rack_is_looked_at_where_it_lies(desk: Desk, shelf: Shelf) -> None:
    path = str(shelf.folder / "b.gguf")
    done = desk.run("fit", path, "--what-if", "RTX 3090")
    assert (done.code, done.out.splitlines()[0]) == (0, "what-if: fits")
    assert desk.run("fit", f"{shelf.url}/b.gguf", "--what-if", "RTX 3060").code == 1
    assert desk.run("fit", f"{shelf.url}/a.gguf", "--what-if", "RTX 3090", "--json").code == 0
    long = shelf.folder / f"{'b' * 200}.gguf"
    long.hardlink_to(path)
    assert desk.run("fit", str(long), "--what-if", "RTX 3090").code == 0
    missing = desk.run("fit", "./nothing.gguf", "--what-if", "RTX 3090")
    assert (missing.code, "there is no file ./nothing.gguf" in missing.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nothing"], "there is no model called 'nothing'"),
        (["a", "--host", "nas"], "there is no host called 'nas'"),
        (["a", "b"], "one model at a time, not a and b"),
        (["--what-if", "RTX 3090"], "--what-if of which model?"),
        (["http://[.gguf", "--what-if", "RTX 3090"], "must be an https://, http://"),
        (["http://me:word@127.0.0.1/a.gguf", "--what-if", "RTX 3090"], "must not contain a password"),
        (
            ["https://127.0.0.1/a?key=secret", "--what-if", "RTX 3090"],
            "https://127.0.0.1/a is no GGUF file by",
        ),
        (["~nobody-of-that-name/a.gguf", "--what-if", "RTX 3090"], "there is no file ~nobody-of-that-name"),
        (["./" + "a" * 300 + ".gguf", "--what-if", "RTX 3090"], "there is no file ./aaa"),
        (["x.gguf"], "x.gguf is a file, so on which cards?"),
        (["a", "--what-if", "RTX 3090", "--host", "rig"], "--what-if goes without --host"),
        (["a", "--ctx", "0"], "--ctx"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_2(over: Desk, args: list[str], text: str) -> None:
    done = over.run("fit", *args)
    assert (done.code, text in done.err) == (2, True), done


def test_models_and_hosts_are_completed(over: Desk) -> None:
    def words(line: str, place: int) -> list[str]:
        done = over.run(_LABCTL_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(place))
        return [found.partition(",")[2] for found in done.out.splitlines()]

    assert words("labctl fit ", 2) == ["a", "b", "c"]
    assert words("labctl fit a --host ", 4) == ["rig"]
