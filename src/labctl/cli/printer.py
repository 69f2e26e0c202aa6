"""The one printer: nothing else in labctl writes to the terminal.

Results go to stdout, everything about them (warnings, errors, questions) to stderr. Colours and boxes are for
people: in a pipe, with NO_COLOR or on a dumb terminal the same words come out plain, so that a script may
depend on them. Text that came from a host is shown through ``safe``, since an escape sequence in a log line
could otherwise rewrite what the person sees. Rich is imported only when it will draw.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from labctl import wiring
from labctl.domain.problem import Problem

if TYPE_CHECKING:
    from rich.console import Console

_TONES = {
    "ok": "green",
    "failed": "bold red",
    "unreachable": "red",
    "interrupted": "yellow",
    "not-run": "yellow",
    "changed": "green",
    "would-change": "yellow",
    "refused": "bold red",
    "missing": "bold red",
    "over": "bold red",
    "wrong": "bold red",
    "fits": "green",
}
_NARROWEST = 16  # characters; a sentence in less is a column of syllables
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def interactive() -> bool:
    """Return whether a person watches stdout, on a terminal that can redraw."""
    return sys.stdout.isatty() and not wiring.dumb_terminal()


def can_ask() -> bool:
    """Return whether a question would reach a person and an answer would come back."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def colour(stream: IO[str] | None = None) -> bool:
    """Return whether to use colours on ``stream`` (stdout when not given)."""
    return (stream or sys.stdout).isatty() and not wiring.colour_refused()


def safe(text: str) -> str:
    """Return text from elsewhere without control characters and escape sequences; tabs and newlines stay.

    What is no text at all, such as a file's name in another encoding, is shown as question marks.
    """
    shown = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return shown.encode("utf-8", "replace").decode("utf-8")


def style(text: str, how: str) -> str:
    """Return the text in a colour, a weight (``bold``, ``dim``) or both, where stdout has colours."""
    if not colour():
        return text
    words = how.split()
    named = [word for word in words if word not in ("bold", "dim")]
    # None, not False: click writes "not dim" as the code that also ends bold.
    bold, dim = ("bold" in words) or None, ("dim" in words) or None
    return click.style(text, fg=named[0] if named else None, bold=bold, dim=dim)


def out(text: str = "") -> None:
    """Print a result."""
    click.echo(text, color=colour())


def err(text: str) -> None:
    """Print something about the result: a warning, an error, what happens now."""
    sys.stdout.flush()
    click.echo(text, err=True, color=colour(sys.stderr))


def emit_json(document: object) -> None:
    """Print one JSON document, the whole of what a ``--json`` command says on stdout."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # A file's name in another encoding becomes \udcXX, which is JSON's own word for such a byte.
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def emit_json_line(document: object) -> None:
    """Print one JSON document in one line, of several that a ``--json`` command says as things happen."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def show_problems(problems: Iterable[Problem], *, severity: str = "error") -> None:
    """Print each problem on stderr: where and what in one line, what to do in the next."""
    paint = {"error": "red", "warning": "yellow"}.get(severity)
    plain = not colour(sys.stderr)
    for problem in problems:
        place = problem.file + (f":{problem.line}" if problem.file and problem.line else "")
        parts = [place, f"host {problem.host}" if problem.host else "", problem.field, problem.reason]
        what = safe(": ".join(part for part in parts if part))
        err(f"{severity if plain else click.style(severity, fg=paint, bold=True)}: {what}")
        if problem.hint:
            err(f"  {'hint' if plain else click.style('hint', fg='cyan')}: {safe(problem.hint)}")


def confirm(question: str) -> bool:
    """Ask for a yes; anything but a clear one, the end of input and Ctrl-C included, means no.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed instead of an answer.
    """
    try:
        while True:
            sys.stdout.flush()
            click.echo(f"{question} [y/N]: ", nl=False, err=True)
            answer = _line_of_input()
            if answer is None:
                err("")
            word = (answer or "").strip().lower()
            if word in ("", "n", "no", "y", "yes"):
                return word.startswith("y")
            err("please answer y or n")
    except KeyboardInterrupt:
        err("")
        raise


def _line_of_input() -> str | None:
    """Wait for a line, and return None at the end of input.

    Python's own ``input`` can lose a Ctrl-C that comes just before it begins to read, and would then wait on.
    A descriptor that each signal makes readable can't be missed.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        typed = sys.stdin.fileno()
        while typed not in select.select([typed, reader], [], [])[0]:
            # A signal that breaks the question has raised by now; another one (a new window size) has not.
            os.read(reader, 64)
        line = os.read(typed, 4096)
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
    return line.decode(errors="replace") if line else None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: aligned words in a pipe, wrapped to the terminal's width in a terminal.

    A row stays a row, whatever is in it: what a host says must not look like another host's row.
    """
    cells = [[" ".join(safe(str(cell)).splitlines()) for cell in row] for row in rows]
    if interactive():
        _rich_table(columns, cells)
        return
    widths = [max([len(head), *(len(row[i]) for row in cells)]) for i, head in enumerate(columns)]
    for row in ([head.upper() for head in columns], *cells):
        out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    screen = console()
    widths = [max([len(head), *(len(row[i]) for row in cells)]) for i, head in enumerate(columns)]
    # Only the last column holds sentences, which may be folded; folded words and numbers can't be read.
    if sum(widths[:-1]) + 2 * len(widths[1:]) + min(widths[-1], _NARROWEST) > screen.width:
        for row in cells:
            rest = (f"{head} {cell}" for head, cell in zip(columns[1:], row[1:], strict=True) if cell)
            out(f"{row[0]}: {', '.join(rest)}")
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for index, head in enumerate(columns):
        numeric = bool(cells) and all(re.fullmatch(r"[\d.]*", row[index]) for row in cells)
        drawn.add_column(head, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in cells:
        drawn.add_row(*(Text(cell, style=_TONES.get(cell, "")) for cell in row))
    screen.print(drawn)


def console() -> Console:
    """Return a rich console on stdout, for drawings that move; only this printer and live displays use it."""
    from rich.console import Console

    return Console(no_color=not colour(), highlight=False, emoji=False, markup=False)


def open_missing() -> None:
    """Open /dev/null for each standard stream that came closed (``labctl plan >&-``).

    Otherwise the next file that is opened would take its number, and get what is meant for the terminal.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It has to stay open as long as the process lives.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def close_quietly() -> None:
    """Stop writing to where nothing can be written any more, also from the flush at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(devnull, stream.fileno())
