"""Write docs/reference.md from the commands themselves, so that it can't say anything else than ``--help``.

It also draws the diagram of modes in docs/sleep.md from the table that the controller goes by. Tests compare
both with what this program would write; run it after a command or the table has changed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from labctl.cli.main import COMMANDS, cli
from labctl.domain.sleep.lifecycle import ADMITS, NEXT, Mode

TARGET = Path(__file__).resolve().parent / "reference.md"
SLEEP = TARGET.with_name("sleep.md")
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```\n", re.MULTILINE | re.DOTALL)
_HEAD = """\
# Every command and option

Written by `docs/generate_reference.py` from the commands' own help; do not edit. How they play together is in
[guide.md](guide.md), what the exit codes mean too.
"""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _rows(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):  # the usage line shows the arguments
            yield record


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs; one that click leaves as it is (marked by a backspace) becomes a code block."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.lstrip().startswith("\b"):
            body = paragraph.lstrip().removeprefix("\b").strip("\n")
            yield f"```\n{body}\n```"
        else:
            yield re.sub(r"\s*\n\s*", " ", paragraph)


def _section(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(
        command, info_name=path.rpartition(" ")[2], parent=parent, **command.context_settings
    )
    usage = re.sub(r"\s*\n\s*", " ", command.get_usage(context).removeprefix("Usage: "))
    yield f"## {path}\n\n```\n{usage}\n```\n"
    text = "\n\n".join(inspect.cleandoc(part) for part in (command.help, command.epilog) if part)
    yield from (f"{paragraph}\n" for paragraph in _paragraphs(text.split("\f")[0]))
    rows = [f"| `{_cell(name)}` | {_cell(text)} |\n" for name, text in _rows(command, context)]
    if rows:
        yield "| | |\n| --- | --- |\n" + "".join(rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (child := command.get_command(context, name)) and not child.hidden:
                yield from _section(child, f"{path} {name}", context)


def reference() -> str:
    """Return the whole page."""
    assert list(COMMANDS) == cli.list_commands(click.Context(cli))
    return "\n".join([_HEAD, *_section(cli, "labctl", None)])


def diagram() -> str:
    """Return the modes and what leads from one to another, as a diagram in Mermaid's words."""
    arrows: dict[tuple[Mode, Mode], list[str]] = {}
    for (mode, event), after in NEXT.items():
        arrows.setdefault((mode, after), []).append(event)
    lines = [f"    {mode} --> {after}: {', '.join(events)}" for (mode, after), events in arrows.items()]
    serving = [f"    class {mode} serving" for mode in Mode if mode in ADMITS]
    head = ["stateDiagram-v2", "    classDef serving font-weight:bold", f"    [*] --> {Mode.UNKNOWN}"]
    return "\n".join(["```mermaid", *head, *lines, *serving, "```", ""])


def with_diagram(page: str) -> str:
    """Return a page with the diagram as it is now."""
    return _DIAGRAM.sub(lambda _: diagram(), page)


if __name__ == "__main__":
    SLEEP.write_text(with_diagram(SLEEP.read_text(encoding="utf-8")), encoding="utf-8")
    TARGET.write_text(reference(), encoding="utf-8")
