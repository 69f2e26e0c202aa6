"""Show how hosts wake or fall asleep, as it happens.

In a terminal each host has one moving line: its mode, for how long, the reason, and how long it usually
takes. In a pipe each change is one plain line, with ``--json`` one object. The last word on each host is
printed below, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labctl.cli import printer, spans
from labctl.cli.asking import number, text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_TONES = {"ready": "green", "asleep": "blue", "failed": "bold red", "unknown": "yellow"}


class View:
    """Tells of changes; ``on_news`` takes each as the controller says it."""

    def __init__(self, hosts: Sequence[str], monotonic: Callable[[], float], *, as_json: bool) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._as_json = as_json
        self._width = max((len(host) for host in hosts), default=0)
        self._said: set[tuple[str, str, str]] = set()
        self._moving = _Moving(hosts) if hosts and not as_json and printer.interactive() else None

    def __enter__(self) -> View:
        if self._moving:
            self._moving.progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._moving:
            self._moving.progress.stop()

    def took_s(self) -> float:
        """Return for how many seconds this has been going on."""
        return self._monotonic() - self._began

    def on_news(self, news: Mapping[str, Any]) -> None:
        """Show a change of a host."""
        if self._as_json:
            printer.emit_json_line(news)
            return
        host, mode, because = text(news.get("host")), text(news.get("mode")), text(news.get("because"))
        if self._moving:
            self._moving.move(host, mode, because, number(news.get("usual_s")))
        elif (host, mode, because) not in self._said:
            # What is said in turns (a round, waiting, a round) is said once.
            first = not any(known == host for known, _, _ in self._said)
            usual = _usual(number(news.get("usual_s"))) if first else ""
            self._said.add((host, mode, because))
            printer.out(f"{host.ljust(self._width)}  {mode.ljust(10)}  {because}{usual}".rstrip())


class _Moving:
    """One moving line for each host; exists only in a terminal."""

    def __init__(self, hosts: Sequence[str]) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.progress: Progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[host]}", markup=False),
            TextColumn("{task.fields[mode]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=printer.console(),
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        width = max(len(host) for host in hosts)
        self._tasks: dict[str, TaskID] = {
            host: self.progress.add_task("", host=host.ljust(width), mode="", total=None) for host in hosts
        }

    def move(self, host: str, mode: str, because: str, usual_s: float | None) -> None:
        if host in self._tasks:
            said = f"{because}{_usual(usual_s)}"
            self.progress.update(self._tasks[host], description=said, mode=mode.ljust(10))


def _usual(usual_s: float | None) -> str:
    return "" if usual_s is None else f" (usually {spans.shown(usual_s)})"


def show_end(host: str, end: Mapping[str, Any], took_s: float | None) -> None:
    """Print the last word on a host: whether it came to what was wanted, and why not."""
    mode, because, ok = text(end.get("mode")), text(end.get("because")), end.get("ok")
    after = "" if took_s is None or ok is None else f" after {spans.shown(took_s)}"
    tone = _TONES.get(mode, "") if ok is True else ("red" if ok is False else "yellow")
    shown = printer.style(mode or "unknown", tone) if tone else mode
    printer.out(f"{host}: {shown}{after}{': ' if because else ''}{because}")
