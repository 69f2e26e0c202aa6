"""Show models' files: where they are, how they travel, what was wrong with them, what was removed.

In a terminal each host has a bar for the file that it is getting, with rate and time to go; in a pipe each
outcome is one plain line. Whatever a host said is shown safely.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labctl.cli import printer
from labctl.domain.failures import Failure
from labctl.domain.outcome import Outcome, counted
from labctl.domain.problem import ExitCode, Problem
from labctl.domain.unreferred import Verdict
from labctl.weights.collect import Collected
from labctl.weights.news import Ended, Moved, News, Noted, Result
from labctl.weights.places import File
from labctl.weights.survey import Survey, There
from labctl.weights.verify import Result as Verified

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

FORMAT = 1
Answers = Mapping[str, Survey | Failure]


def bytes_text(count: int) -> str:
    """Return a number of bytes as people say it."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def state_of(file: File, there: There) -> str:
    """Return in one word, or a percentage, what a host has of a file."""
    if there.kind == "file":
        if there.vouched is None:
            return "unverified"
        pinned = file.placed.sha256 in (None, there.vouched)
        return "verified" if pinned else "another file"
    if there.part:
        size = file.placed.size
        return f"{100 * there.part // size}%" if size else f"{bytes_text(there.part)} begun"
    return "absent" if there.kind == "absent" else "no file"


class Counting:
    """Counts answers for a person who watches; silent in a pipe, and when there is nothing to count."""

    def __init__(self, words: str, total: int) -> None:
        self._words, self._total = words, total
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Counting:
        if self._total and printer.interactive():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

            self._progress = _progress(TextColumn(self._words), BarColumn(bar_width=20), MofNCompleteColumn())
            self._task = self._progress.add_task("", total=self._total)
            self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def one(self, host: str) -> None:
        """Count one more."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)


def _progress(*columns: Any) -> Progress:
    from rich.progress import Progress

    return Progress(
        *columns,
        console=printer.console(),
        transient=True,
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class Transfers:
    """Shows files while they grow or are read; ``quiet`` shows nothing."""

    def __init__(self, files: Sequence[File], *, quiet: bool) -> None:
        self._called = {file.path: file.called for file in files}
        self._quiet = quiet
        self._tasks: dict[str, tuple[str, TaskID]] = {}
        self._bars: Progress | None = None
        if not quiet and printer.interactive():
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._bars = _progress(
                TextColumn("{task.fields[host]}", markup=False),
                BarColumn(bar_width=20),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
            )

    def __enter__(self) -> Transfers:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        if self._bars is None or not self._bars.live.is_started:
            yield
            return
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()

    def on_news(self, news: News) -> None:
        """Take note of what happened, and say what is worth saying."""
        if self._quiet:
            return
        match news:
            case Moved():
                self._move(news)
            case Ended():
                self._end(news)
            case Noted():
                with self._standing_still():
                    printer.show_problems([Problem(news.text, host=news.host)], severity="warning")

    def _move(self, moved: Moved) -> None:
        if self._bars is None:
            return
        called = self._called.get(moved.file, moved.file)
        words = f"{called} from {moved.supplier}" if moved.supplier else called
        file, task = self._tasks.get(moved.host, ("", None))
        if task is None or file != moved.file:
            if task is not None:
                self._bars.remove_task(task)
            task = self._bars.add_task(words, host=moved.host, total=moved.size, completed=moved.there)
            self._tasks[moved.host] = (moved.file, task)
        self._bars.update(task, completed=moved.there, total=moved.size, description=printer.safe(words))

    def _end(self, ended: Ended) -> None:
        if self._bars is not None and ended.host in self._tasks:
            self._bars.remove_task(self._tasks.pop(ended.host)[1])
        called = self._called.get(ended.file, ended.file)
        with self._standing_still():
            if ended.has:
                word = printer.style("has", "green")
                printer.out(f"{ended.host}: {word}  {called} ({bytes_text(ended.size)})")
            else:
                word = printer.style("failed", "red")
                printer.out(f"{ended.host}: {word}  {called}: {printer.safe(ended.reason)}")


def show_files(files: Sequence[File], answers: Answers) -> None:
    """Print a line for each file: who wants it, and what each host has of it."""
    rows = []
    for file in files:
        states: dict[str, list[str]] = {}
        size = file.placed.size
        for host, answer in answers.items():
            if isinstance(answer, Failure):
                continue
            there = answer.files[file.path]
            state = state_of(file, there)
            size = size or (there.size if state == "verified" else None)
            if state != "absent" or host in file.hosts:
                states.setdefault(state, []).append(host)
        told = "; ".join(f"{state}: {', '.join(hosts)}" for state, hosts in sorted(states.items()))
        shown = bytes_text(size) if size else "?"
        rows.append((file.model.id, file.placed.name, shown, ", ".join(file.hosts) or "nobody", told))
    if rows:
        printer.table(("model", "file", "size", "wanted by", "on hosts"), rows)
    else:
        printer.out("The rack has no models.")


def show_others(verdicts: Mapping[str, Sequence[Verdict]]) -> None:
    """Print the files below the models' folders that no model refers to."""
    rows = [
        (host, one.file.path, bytes_text(one.file.size), "may go" if one.goes else "stays", one.because)
        for host, its in verdicts.items()
        for one in its
    ]
    if rows:
        printer.out()
        printer.table(("host", "file that no model refers to", "size", "gc", "because"), rows)


def say_unreachable(answers: Mapping[str, object]) -> None:
    """Warn of each host that gave no answer."""
    for host, answer in answers.items():
        if isinstance(answer, Failure):
            printer.show_problems([Problem(answer.reason, answer.hint, host=host)], severity="warning")


def conclude(outcome: Outcome, words: str) -> None:
    """Print the last line."""
    tone = "green" if outcome.code is ExitCode.OK else "bold red"
    printer.out(printer.style(printer.safe(words), tone))


def show_pull(result: Result, outcome: Outcome, seconds: float) -> None:
    """Print how a pull ended: what each host lacks, and what was brought in which time."""
    for host in result.hosts:
        if result.status(host) not in ("ok", "interrupted"):
            why = "; ".join(dict.fromkeys(result.reasons(host)))
            printer.out(f"{host}: {printer.style(result.status(host), 'red')}  {printer.safe(why)}")
    copies = [copy for its in result.board.files.values() for copy in its.values()]
    left = sum(copy.there for copy in copies if copy.state in ("wants", "gets"))
    if result.interrupted and left:
        printer.out(f"{bytes_text(left)} that came in are kept; run it again to go on.")
    conclude(outcome, f"Result: {counted(result.came, 'file')} brought in {seconds:.1f} s: {outcome.because}")


def show_verify(result: Verified, outcome: Outcome) -> None:
    """Print what is wrong, by host, file and part."""
    for one in result.checked:
        if one.verdict != "ok":
            tone = "yellow" if one.verdict == "unpinned" else "red"
            word = printer.style(one.verdict, tone)
            printer.out(f"{one.host}: {word}  {one.file.called}: {printer.safe(one.reason)}")
    say_unreachable(result.lost)
    right = sum(one.verdict == "ok" for one in result.checked)
    conclude(outcome, f"Result: {right} of {counted(len(result.checked), 'file')} right: {outcome.because}")


def show_gc(done: Mapping[str, Collected | Failure], outcome: Outcome, *, dry_run: bool) -> None:
    """Print what was removed, and what stayed although it should have gone."""
    count = total = 0
    for host, one in done.items():
        if isinstance(one, Failure):
            printer.show_problems([Problem(one.reason, one.hint, host=host)], severity="warning")
            continue
        count, total = count + len(one.removed), total + sum(one.removed.values())
        for path, why in one.kept.items():
            printer.show_problems([Problem(f"{path} stays: {why}", host=host)], severity="warning")
    verb = "would be removed" if dry_run else "removed"
    conclude(outcome, f"Result: {counted(count, 'file')} {verb}, {bytes_text(total)}: {outcome.because}")


# --- documents ---


def _document(command: str, rack: str, outcome: Outcome, **more: object) -> dict[str, object]:
    return {
        "format": FORMAT,
        "command": f"models {command}",
        "rack": rack,
        "exit_code": int(outcome.code),
        "because": outcome.because,
        **more,
    }


def _failed(failure: Failure) -> dict[str, object]:
    return {"code": failure.code, "reason": failure.reason, "hint": failure.hint}


def _others(its: Sequence[Verdict]) -> list[dict[str, object]]:
    return [
        {"path": one.file.path, "size": one.file.size, "goes": one.goes, "because": one.because}
        for one in its
    ]


def ls_document(
    rack: str,
    files: Sequence[File],
    answers: Answers,
    verdicts: Mapping[str, Sequence[Verdict]],
    outcome: Outcome,
) -> dict[str, object]:
    """Return the document of ``labctl models ls --json``."""
    listed = [
        {
            "model": file.model.id,
            "file": file.placed.name,
            "path": file.path,
            "sha256": file.placed.sha256,
            "size": file.placed.size,
            "wanted_by": list(file.hosts),
            "on": {
                host: {
                    "state": state_of(file, answer.files[file.path]),
                    "size": answer.files[file.path].size,
                    "begun": answer.files[file.path].part,
                }
                for host, answer in answers.items()
                if isinstance(answer, Survey)
            },
        }
        for file in files
    ]
    hosts = {
        host: _failed(answer) if isinstance(answer, Failure) else {"others": _others(verdicts[host])}
        for host, answer in answers.items()
    }
    return _document("ls", rack, outcome, files=listed, hosts=hosts)


def pull_document(
    rack: str, files: Sequence[File], result: Result, outcome: Outcome, seconds: float
) -> dict[str, object]:
    """Return the document of ``labctl models pull --json``."""
    called = {file.path: file for file in files}
    hosts = [
        {
            "host": host,
            "status": result.status(host),
            "reasons": list(dict.fromkeys(result.reasons(host))),
            "sent_bytes": result.sent.get(host, 0),
            "files": [
                {
                    "model": called[path].model.id,
                    "path": path,
                    "state": copies[host].state,
                    "bytes": copies[host].there,
                    "reason": copies[host].reason if copies[host].state == "failed" else "",
                }
                for path, copies in result.board.files.items()
                if host in copies
            ],
        }
        for host in result.hosts
    ]
    more = {"interrupted": result.interrupted, "seconds": round(seconds, 3), "brought": result.came}
    return _document("pull", rack, outcome, hosts=hosts, **more)


def verify_document(rack: str, result: Verified, outcome: Outcome) -> dict[str, object]:
    """Return the document of ``labctl models verify --json``."""
    checked = [
        {
            "host": one.host,
            "model": one.file.model.id,
            "path": one.file.path,
            "verdict": one.verdict,
            "reason": one.reason,
            "wrong_parts": list(one.flipped),
            "parts": one.parts,
        }
        for one in result.checked
    ]
    lost = {host: _failed(failure) for host, failure in result.lost.items()}
    return _document("verify", rack, outcome, checked=checked, lost=lost, interrupted=result.interrupted)


def gc_document(
    rack: str,
    done: Mapping[str, Collected | Failure],
    verdicts: Mapping[str, Sequence[Verdict]],
    outcome: Outcome,
    *,
    dry_run: bool,
) -> dict[str, object]:
    """Return the document of ``labctl models gc --json``."""
    hosts = {
        host: _failed(one)
        if isinstance(one, Failure)
        else {"removed": dict(one.removed), "kept": dict(one.kept)}
        for host, one in done.items()
    }
    found = {host: _others(its) for host, its in verdicts.items()}
    return _document("gc", rack, outcome, dry_run=dry_run, hosts=hosts, unreferred=found)
