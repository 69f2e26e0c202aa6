"""Look at several things, none of which may harm or delay the others.

Drivers hang, libraries crash, and a thread stuck in a driver cannot be ended from within: a process can at
least be left behind. One forked process looks at everything in turn and says each answer as it has it, since
every process costs. Once it is silent for too long, or dies, what it had not yet come to is looked at by a
process for each; the silent one may still answer until the deadline. What fails, dies or is late is null in
the result and a named finding beside it; the result itself always comes, in time.

A section may find more to look at than anybody knew: a driver its cards. Those are sections like the others.

A child keeps none of our files (an SSH session lives until the last holder of its pipe is gone, a lock until
the last holder of its file) and carries an alarm, so that it ends also when nobody is left to kill it. One
that waits in the kernel uninterruptibly cannot be killed at all; nobody waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

Section = Callable[[], Any]
Findings = dict[str, dict[str, str]]
HANG = "hang"
_ENDS_WITHIN_S = 0.1  # for each child; one that takes longer sits in the kernel
_SILENT_FOR = 0.25  # of the deadline: then the others need not wait any longer


class More(NamedTuple):
    """What a section answers that found further sections; their names begin with its own and a slash."""

    value: Any
    sections: Mapping[str, Section]


class Finding(Exception):
    """Something that a person should know: what is wrong and, if known, what to do.

    ``code`` is a short name of the kind that programs can go by; it is empty for what has no name.
    """

    def __init__(self, what: str, hint: str = "", code: str = "") -> None:
        super().__init__(what)
        self.hint = hint
        self.code = code

    def as_json(self) -> dict[str, str]:
        """Return the finding as the report shows it."""
        shown = {"what": str(self), "hint": self.hint, "code": self.code}
        return {name: text for name, text in shown.items() if text or name == "what"}


def gather(sections: Mapping[str, Section], deadline_s: float) -> tuple[dict[str, Any], Findings]:
    """Return the value of each section, null where there is none, and a finding for each that has none."""
    return _Looking(sections, deadline_s).result()


class _Child:
    """A process that looks at everything, or at one thing; ``at`` is what it is looking at now."""

    def __init__(self, sections: Mapping[str, Section], only: str | None, deadline_s: float) -> None:
        self.at = only
        self._rest = b""
        self.pipe, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _look(sections, only, writer, deadline_s)
        os.close(writer)

    def lines(self) -> list[Any] | None:
        """Return what the child said since, or None when it has ended."""
        data = os.read(self.pipe, 1 << 18)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self, *, spoken: bool) -> int:
        """Let go of the child; of one that has ``spoken`` its last return the signal that ended it, or 0."""
        os.close(self.pipe)
        status = self._reaped() if spoken else None
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reaped()
            return 0
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def _reaped(self) -> int | None:
        until = time.monotonic() + _ENDS_WITHIN_S
        while time.monotonic() < until:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return status
            time.sleep(0.0005)
        return None


class _Looking:
    """One round of looking: a child for everything, and more of them for what is left when one is stuck."""

    def __init__(self, sections: Mapping[str, Section], deadline_s: float) -> None:
        self.sections = sections
        self.deadline_s = deadline_s
        self.names = list(sections)
        self.answers: dict[str, Any] = {}
        self.selector = selectors.DefaultSelector()

    def result(self) -> tuple[dict[str, Any], Findings]:
        """Look until everything is answered or the time is over."""
        heard = time.monotonic()
        until = heard + self.deadline_s
        self._start(None)
        while self.selector.get_map() and self._left():
            patient_until = min(until, heard + self.deadline_s * _SILENT_FOR)
            ready = self.selector.select(max(0.0, patient_until - time.monotonic()))
            if not ready and time.monotonic() >= until:
                break
            for key, _ in ready:
                self._hear(key.data)
            if not ready:
                self._spread()
            heard = time.monotonic()
        for child in self._children():
            self._drop(child, spoken=False)
        self.selector.close()
        return self._judged()

    def _left(self) -> list[str]:
        return [name for name in self.names if name not in self.answers]

    def _children(self) -> list[_Child]:
        return [key.data for key in self.selector.get_map().values()]

    def _start(self, only: str | None) -> None:
        child = _Child(self.sections, only, self.deadline_s)
        self.selector.register(child.pipe, selectors.EVENT_READ, child)

    def _drop(self, child: _Child, *, spoken: bool) -> int:
        self.selector.unregister(child.pipe)
        return child.end(spoken=spoken)

    def _hear(self, child: _Child) -> None:
        lines = child.lines()
        if lines is None:
            self._bury(child)
        for line in lines or ():
            if "at" in line:
                child.at = line["at"]
            elif "more" in line:
                at = self.names.index(line["of"]) + 1
                self.names[at:at] = [name for name in line["more"] if name not in self.names]
            else:
                self.answers.setdefault(line["name"], line)

    def _bury(self, child: _Child) -> None:
        """Blame a child that ended for what it was at, and have others do the rest of its work."""
        died = self._drop(child, spoken=True)
        if child.at is not None and child.at not in self.answers:
            what = f"the process that looked was ended by signal {died}" if died else "gave no answer"
            self.answers[child.at] = {"finding": Finding(what).as_json()}
        self._spread()

    def _spread(self) -> None:
        """Look at each thing that nobody is at in a process of its own."""
        busy = {child.at for child in self._children()}
        for name in self._left():
            if name not in busy:
                self._start(name)

    def _judged(self) -> tuple[dict[str, Any], Findings]:
        values: dict[str, Any] = {}
        findings: Findings = {}
        for name in self.names:
            answer = self.answers.get(name) or {"finding": _late(self.deadline_s).as_json()}
            values[name] = answer.get("value")
            if "finding" in answer:
                findings[name] = answer["finding"]
        return values, findings


def _late(deadline_s: float) -> Finding:
    return Finding(
        f"did not answer within {deadline_s:g} s",
        "a driver may hang: look at dmesg, then reboot the host",
        HANG,
    )


def _look(sections: Mapping[str, Section], only: str | None, writer: int, deadline_s: float) -> NoReturn:
    """Look at everything in turn, or at one thing, say what is there, and end, whatever happens."""
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, deadline_s + 1)
        with os.fdopen(_keep_only(writer), "wb") as pipe:
            for line in _lines(sections, only):
                pipe.write(line + b"\n")
                pipe.flush()
        status = 0
    finally:
        os._exit(status)


def _keep_only(writer: int) -> int:
    """Close every file but the pipe, whose number is returned, and three that lead nowhere."""
    pipe = fcntl.fcntl(writer, fcntl.F_DUPFD, 3)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    with os.scandir("/proc/self/fd") as listing:
        numbers = [int(entry.name) for entry in listing]
    for number in numbers:
        if number > 2 and number != pipe:
            with contextlib.suppress(OSError):  # the listing itself was one of them
                os.close(number)
    sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
    return pipe


def _lines(sections: Mapping[str, Section], only: str | None) -> Iterator[bytes]:
    """Yield what the parent should know, the answers and what is looked at next."""
    if only is not None and only not in sections:
        yield from _answers(only, _found_again(sections[only.partition("/")[0]], only))
        return
    for name in sections if only is None else [only]:
        yield from _answers(name, sections[name])


def _found_again(finder: Section, name: str) -> Section:
    """Return a section that another one finds: this process has to begin where that one does."""

    def section() -> Any:
        found = finder()
        if not isinstance(found, More) or name not in found.sections:
            raise Finding("is there no longer")
        return found.sections[name]()

    return section


def _answers(name: str, section: Section) -> Iterator[bytes]:
    yield json.dumps({"at": name}).encode()
    try:
        found = section()
        more = found if isinstance(found, More) else More(found, {})
        answer = json.dumps({"name": name, "value": more.value}).encode()
    except Exception as error:
        yield json.dumps({"name": name, "finding": _finding(error).as_json()}).encode()
        return
    if more.sections:
        yield json.dumps({"more": list(more.sections), "of": name}).encode()
    yield answer
    for inner, further in more.sections.items():
        yield from _answers(inner, further)


def _finding(error: Exception) -> Finding:
    if isinstance(error, Finding):
        return error
    return Finding(f"{type(error).__name__}: {error}", "this may be a bug in labctl-agent", "bug")
