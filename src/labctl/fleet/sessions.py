"""The same question to many hosts at once: one session each, all in parallel, one answer each.

A thread for each host, since almost all of the time is waiting. A host that cannot be reached costs its own
deadline and nobody else's. Every host gets exactly one answer: what the command said, or why there is none.

Ctrl-C closes the sessions and marks the rest ``interrupted``, so that what is known by then can be shown; a
command that a host began goes on there to its end.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.domain.failures import Failure, HostError
from labctl.domain.problem import LabctlError
from labctl.inventory import known_hosts
from labctl.ports import Remote, Said

AT_ONCE = 64
INTERRUPTED = "interrupted"
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to run on a host: words that no shell reads meaning into, and what it gets by stdin."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    root: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host said, or in ``failure`` why it said nothing; never both."""

    host: str
    said: Said | None = None
    failure: Failure | None = None


def ask(
    hosts: Mapping[str, Mapping[str, Any]],
    question: Question | Callable[[str], Question],
    remote: Remote,
    *,
    deadline_s: float,
    on_answer: Callable[[Answer], None] | None = None,
) -> dict[str, Answer]:
    """Ask every host, each within ``deadline_s`` seconds, and return the answers in the hosts' order.

    Args:
        hosts: connection data by name, as ``LoadedRack.host_data`` holds them.
        question: the same for all, or what makes one for a host's name.
        remote: carries them out; stopped on Ctrl-C.
        deadline_s: seconds for each host, connection included.
        on_answer: told of each answer as it comes, in the caller's thread.
    """
    news: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
    slots = threading.BoundedSemaphore(AT_ONCE)

    def one(host: str, data: Mapping[str, Any]) -> None:
        try:
            asked = question if isinstance(question, Question) else question(host)
            with slots:
                said = remote.run(
                    host, data, asked.argv, root=asked.root, stdin=asked.stdin, deadline_s=deadline_s
                )
            news.put(Answer(host, said))
        except HostError as error:
            news.put(Answer(host, failure=error.failure))
        except BaseException as bug:
            news.put(bug)

    answers: dict[str, Answer] = {}
    try:
        for host, data in hosts.items():
            threading.Thread(target=one, args=(host, data), daemon=True, name=f"ask {host}").start()
        while len(answers) < len(hosts):
            answer = _next(news)
            answers[answer.host] = answer
            if on_answer is not None:
                on_answer(answer)
    except KeyboardInterrupt:
        remote.stop()
        answers.update(_last_words(news, len(hosts) - len(answers)))
    return {host: answers.get(host) or Answer(host, failure=_UNHEARD) for host in hosts}


_UNHEARD = Failure(INTERRUPTED, "its answer was not awaited; whether it did anything is unknown")


def _next(news: queue.SimpleQueue[Answer | BaseException], timeout_s: float | None = None) -> Answer:
    """Return the next answer; raise what a thread died of."""
    found = news.get(timeout=timeout_s)
    if isinstance(found, BaseException):
        raise found
    return found


def _last_words(news: queue.SimpleQueue[Answer | BaseException], missing: int) -> dict[str, Answer]:
    """Return what the stopped threads still have to say, within a moment."""
    found: dict[str, Answer] = {}
    try:
        while len(found) < missing:
            answer = _next(news, _LAST_WORDS_S)
            found[answer.host] = answer
    except queue.Empty:
        return found
    return found


def require_enrolled(hosts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``LabctlError`` naming every host without a pinned key, before any of them is contacted."""
    missing = []
    for name, data in hosts.items():
        pinned = known_hosts.load(Path(data["ssh_known_hosts_file"]))
        if not known_hosts.lookup(pinned, str(data["ssh_hostname"]), int(data["ssh_port"])):
            missing.append(name)
    if missing:
        whose = "this host has" if len(missing) == 1 else "these hosts have"
        raise LabctlError(
            f"{whose} no pinned host key: {', '.join(missing)}",
            hint=f"compare and pin: labctl enroll {' '.join(missing)}",
        )
