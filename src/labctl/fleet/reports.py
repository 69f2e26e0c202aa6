"""What hosts say of themselves: the agent's ``report``, from many at once.

A host that is off, asleep or unknown is an answer like any other (``Unreachable``), never an error: whoever
asks decides what it means. Nothing here wakes a host. What a host prints is believed only as far as it is a
JSON object; its content is a stranger's text and belongs through ``printer.safe`` before a person sees it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from labctl.agent.access import AGENT_PATH
from labctl.domain.failures import Failure
from labctl.fleet import sessions
from labctl.fleet.sessions import Answer, Question
from labctl.inventory import LoadedRack
from labctl.ports import Remote, Said

DEADLINE_S = 20.0
_REPORT = Question((AGENT_PATH, "report"))
_NO_PROGRAM = (126, 127)
_SUDO_FOUND_NONE = f"sudo: {AGENT_PATH}: command not found"
BAD_USAGE = 2
_QUOTED = 200  # characters of what a host said instead of an answer


@dataclass(frozen=True, slots=True)
class Report:
    """The agent's report of a host: its sections, as it printed them."""

    host: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A host that gave no report, and why; where ``failure.unreachable`` is False, it was reached."""

    host: str
    failure: Failure


def ask(
    loaded: LoadedRack,
    hosts: Iterable[str],
    deadline_s: float,
    remote: Remote,
    on_answer: Callable[[Answer], None] | None = None,
    *,
    root: bool = False,
) -> dict[str, Report | Unreachable]:
    """Ask those hosts of the rack for a report, at once, each within ``deadline_s`` seconds.

    As ``root`` the agent also sees what only root may read: the keys by which engines answer.
    """
    chosen = {name: loaded.host_data[name] for name in hosts}
    question = replace(_REPORT, root=root)
    answers = sessions.ask(chosen, question, remote, deadline_s=deadline_s, on_answer=on_answer)
    return {name: _report(answer) for name, answer in answers.items()}


def _report(answer: Answer) -> Report | Unreachable:
    document = document_of(answer)
    if isinstance(document, Failure):
        return Unreachable(answer.host, document)
    return Report(answer.host, document)


def document_of(answer: Answer) -> dict[str, Any] | Failure:
    """Return the JSON object that the agent answered with, or why there is none."""
    if answer.failure is not None:
        return answer.failure
    said = answer.said
    assert said is not None
    # A log-in shell that greets whoever comes puts its own lines in front.
    for text in (said.stdout, said.stdout.rstrip().rpartition(b"\n")[2]):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document
    return _silence(answer.host, said)


def _silence(host: str, said: Said) -> Failure:
    """Return why a command of the agent printed no answer."""
    mend = f"labctl apply --limit {host}"
    if said.status in _NO_PROGRAM or (said.status == 1 and _SUDO_FOUND_NONE in said.stderr):
        return Failure("no-agent", "labctl's agent is not installed there", mend)
    if said.status == BAD_USAGE and said.stderr.startswith("labctl-agent:"):
        return Failure("no-agent", "labctl's agent there is older than this labctl", mend)
    printed = " ".join((said.stderr.strip() or said.stdout.decode("utf-8", "replace").strip()).split())
    ended = f"it ended with exit status {said.status}" if said.status >= 0 else "a signal ended it"
    reason = f"labctl's agent gave no answer there: {printed[:_QUOTED] or ended}"
    return Failure("op-failed", reason, f"{mend} installs it anew")
