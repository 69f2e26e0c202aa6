"""The documentation says what the program does: its commands, codes and links, checked against itself."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from labctl import __version__
from labctl.cli.main import cli
from labctl.domain.problem import ExitCode

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
DECISIONS = sorted((DOCS / "adr").glob("[0-9]*.md"))


def _commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands(child, (*path, name))


COMMANDS = dict(_commands(cli))


def test_the_reference_is_what_the_commands_say_now() -> None:
    generator = runpy.run_path(str(DOCS / "generate_reference.py"))
    written = (DOCS / "reference.md").read_text()
    assert written == generator["reference"](), "run: .venv/bin/python docs/generate_reference.py"


def test_every_command_and_option_is_in_the_reference() -> None:
    # Not by way of the generator, which could leave something out.
    sections = dict(
        re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (DOCS / "reference.md").read_text(), re.M | re.S)
    )
    missing = []
    for path, command in COMMANDS.items():
        title = " ".join(("labctl", *path))
        if title not in sections:
            missing.append(title)
            continue
        for parameter in command.params:
            for option in (
                parameter.opts if isinstance(parameter, click.Option) and not parameter.hidden else []
            ):
                if f"{option}" not in sections[title]:
                    missing.append(f"{title} {option}")
    assert missing == []


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("labctl", *path)))
def test_a_command_and_all_its_options_have_help(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help
    assert [
        p.name for p in command.params if isinstance(p, click.Option) and not p.hidden and not p.help
    ] == []


def _code_lines(page: Path) -> Iterator[str]:
    """Yield what a page tells its reader to type: lines of code blocks, and code in the text."""
    text = page.read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def _typed(page: Path) -> Iterator[list[str]]:
    for line in _code_lines(page):
        for part in re.split(r"&&|\|\||;|\|", line.split(" #")[0]):
            words = part.replace("\u2026", "").split()
            if words and words[0] == "labctl":
                yield words[1:]


HAND_WRITTEN = [page for page in PAGES if page.name not in ("reference.md", "CHANGELOG.md")]


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_names_exist_with_their_options(page: Path) -> None:
    wrong = []
    for words in _typed(page):
        path: tuple[str, ...] = ()
        while words and (*path, words[0]) in COMMANDS:
            path, words = (*path, words[0]), words[1:]
        command = COMMANDS[path]
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        bad = [word for word in words if word.startswith("-") and word.split("=")[0] not in known]
        if isinstance(command, click.Group) and words and not words[0].startswith("-") and words[0].islower():
            bad.append(words[0])
        if bad:
            wrong.append(f"labctl {' '.join((*path, *words))}: {bad}")
    assert wrong == []


def test_the_commands_of_the_readme_that_start_with_lab_exist() -> None:
    done = subprocess.run([str(ROOT / "lab"), "--help"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"\./lab (\w+)", done.stdout))
    named = {verb for page in HAND_WRITTEN for verb in re.findall(r"\./lab (\w+)", page.read_text())}
    assert {"demo", "test"} <= named <= known


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "./lab test" in (ROOT / ".ci" / "run").read_text()


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (DOCS / "guide.md").read_text(), re.M)
    assert {int(code) for code, _ in rows} == {int(code) for code in ExitCode}


def _failure_codes() -> set[str]:
    """Return the short codes that the source gives to failures of hosts."""
    place = {"Failure": 0, "Why": 1}  # where the code stands among the arguments
    codes = set()
    for path in (ROOT / "src" / "labctl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place):
                continue
            index = place[node.func.id]
            for value in [
                *node.args[index : index + 1],
                *(k.value for k in node.keywords if k.arg == "code"),
            ]:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    codes.add(value.value)
    return codes


def test_every_failure_code_has_its_line_in_the_guide() -> None:
    text = (DOCS / "guide.md").read_text().partition("## Troubleshooting by message")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M))
    codes = _failure_codes()
    assert codes >= {"timeout", "host-key", "op-failed"}
    assert codes == rows


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_complete_and_listed(decision: Path) -> None:
    headings = re.findall(r"^## (.+)$", decision.read_text(), re.M)
    assert headings == ["Status", "Context", "Decision", "Consequences"]
    assert decision.name in (DOCS / "adr" / "README.md").read_text()


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert broken == []


def test_help_of_the_whole_program_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labctl.cli.main", "--help"], capture_output=True, text=True, check=True
    )
    assert [name for (name, *_rest) in (path for path in COMMANDS if path) if name not in done.stdout] == []


def test_every_test_that_a_page_names_exists() -> None:
    named = {match for page in PAGES for match in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text())}
    assert named
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not (ROOT / file).is_file() or not re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M)
    ]
    assert missing == []


def test_every_refusal_that_the_gateways_page_names_is_one_that_it_gives() -> None:
    page = (DOCS / "gateway.md").read_text()
    table = page[page.index("| status | codes |") : page.index("## Limits")]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", table))
    sources = "".join(path.read_text() for path in (ROOT / "src" / "labctl" / "gateway").rglob("*.py"))
    assert len(named) > 30
    assert [code for code in sorted(named) if f'"{code}"' not in sources] == []
