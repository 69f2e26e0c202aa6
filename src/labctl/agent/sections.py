"""Look at several things at once, none of which may harm or delay the others.

Each section runs in a forked process of its own. Drivers hang, libraries crash, and a thread stuck in a
driver cannot be ended from within: a process can at least be left behind. A section that fails, dies or is
late is null in the result and a named finding beside it; the report itself always comes, in time.

A child keeps none of our standard files (an SSH session lives until the last holder of its pipe is gone) and
carries an alarm, so that it ends also when nobody is left to kill it. One that waits in the kernel
uninterruptibly cannot be killed at all; nobody waits for it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

Section = Callable[[], Any]
Findings = dict[str, dict[str, str]]
_ENDS_WITHIN_S = 0.1  # for each child; one that takes longer sits in the kernel


class Finding(Exception):
    """Something that a person should know: what is wrong and, if known, what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint

    def as_json(self) -> dict[str, str]:
        """Return the finding as the report shows it."""
        shown = {"what": str(self)}
        if self.hint:
            shown["hint"] = self.hint
        return shown


def gather(sections: Mapping[str, Section], deadline_s: float) -> tuple[dict[str, Any], Findings]:
    """Return the value of each section, null where there is none, and a finding for each null."""
    until = time.monotonic() + deadline_s
    children = {name: _start(section, deadline_s) for name, section in sections.items()}
    texts = _read({name: reader for name, (_, reader) in children.items()}, until)
    values: dict[str, Any] = {}
    findings: Findings = {}
    for name, (pid, _) in children.items():
        late = texts[name] is None
        if late:
            os.kill(pid, signal.SIGKILL)
        died = _reap(pid)
        values[name], finding = _judge(texts[name], died, deadline_s)
        if finding is not None:
            findings[name] = finding.as_json()
    return values, findings


def _judge(text: bytes | None, died: int, deadline_s: float) -> tuple[Any, Finding | None]:
    """Return a section's value, or the finding that stands for it."""
    if text is None:
        return None, Finding(
            f"did not answer within {deadline_s:g} s",
            "a driver may hang: look at dmesg, then reboot the host",
        )
    try:
        answer = json.loads(text)
    except ValueError:
        return None, Finding(
            f"the process that looked was ended by signal {died}" if died else "gave no answer"
        )
    if "finding" in answer:
        return None, Finding(answer["finding"]["what"], answer["finding"].get("hint", ""))
    return answer["value"], None


def _start(section: Section, deadline_s: float) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(section, writer, deadline_s)
    os.close(writer)
    return pid, reader


def _child(section: Section, writer: int, deadline_s: float) -> NoReturn:
    """Run the section and end, whatever it does."""
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, deadline_s + 1)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(_answer(section))
        status = 0
    finally:
        os._exit(status)


def _answer(section: Section) -> bytes:
    try:
        return json.dumps({"value": section()}).encode()
    except Finding as finding:
        return json.dumps({"finding": finding.as_json()}).encode()
    except Exception as bug:
        what = f"{type(bug).__name__}: {bug}"
        return json.dumps({"finding": {"what": what, "hint": "this may be a bug in labctl-agent"}}).encode()


def _read(readers: dict[str, int], until: float) -> dict[str, bytes | None]:
    """Return all that each pipe gave until its end, or nothing where the end did not come in time."""
    texts: dict[str, bytes | None] = dict.fromkeys(readers)
    parts: dict[str, bytes] = dict.fromkeys(readers, b"")
    with selectors.DefaultSelector() as selector:
        for name, reader in readers.items():
            selector.register(reader, selectors.EVENT_READ, name)
        while selector.get_map() and (left_s := until - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                data = os.read(key.fd, 1 << 16)
                parts[key.data] += data
                if not data:
                    texts[key.data] = parts[key.data]
                    selector.unregister(key.fd)
    for reader in readers.values():
        os.close(reader)
    return texts


def _reap(pid: int) -> int:
    """Collect a child that has answered or was killed, and return the signal that ended it or 0."""
    until = time.monotonic() + _ENDS_WITHIN_S
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        time.sleep(0.001)
    return 0
