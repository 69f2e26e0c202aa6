"""Read files on hosts anew and compare: with their sha256, and with what other hosts have.

All hosts read at once, each one file after the other. Where a byte flipped, its part is named: by the digests
that were kept when the file came, or by those of a host where the same file is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labctl.domain import parts
from labctl.domain.failures import Failure
from labctl.inventory import LoadedRack
from labctl.ports import Talker
from labctl.weights.crew import Crew
from labctl.weights.news import Moved, News
from labctl.weights.places import File


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file turned out to be: ``ok``, ``wrong``, ``absent``, ``unpinned`` or ``unreadable``.

    ``flipped``: which of its ``parts`` parts are not as they were, where that can be known.
    """

    host: str
    file: File
    verdict: str
    reason: str = ""
    flipped: tuple[int, ...] = ()
    parts: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was checked, and the hosts that were lost before they were done."""

    checked: tuple[Checked, ...]
    lost: Mapping[str, Failure]
    interrupted: bool = False


def verify(
    loaded: LoadedRack,
    files: Sequence[File],
    hosts: Sequence[str],
    talker: Talker,
    on_news: Callable[[News], None],
) -> Result:
    """Read every file on every one of ``hosts`` that wants it; Ctrl-C ends it early."""
    wanted = {host: [file for file in files if host in file.hosts] for host in hosts}
    wanted = {host: its for host, its in wanted.items() if its}
    answers: dict[str, dict[str, Mapping[str, Any]]] = {host: {} for host in wanted}
    lost: dict[str, Failure] = {}
    interrupted = False
    with Crew(talker, {host: loaded.host_data[host] for host in wanted}) as crew:
        try:
            while any(len(answers[host]) < len(its) for host, its in wanted.items() if host not in lost):
                heard = crew.hear()
                assert heard is not None
                said = heard.said or {}
                if heard.failure is not None:
                    lost[heard.host] = heard.failure
                elif heard.event == "here":
                    crew.tell(heard.host, _order(wanted[heard.host]))
                elif heard.event == "verified":
                    answers[heard.host][str(said["path"])] = said
                elif heard.event == "progress" and said["file"]:
                    on_news(Moved(heard.host, str(said["file"]), int(said["there"]), said.get("size")))
        except KeyboardInterrupt:
            interrupted = True
    checked = [
        _judge(host, file, answers[host][file.path], _right(file, answers))
        for host, its in wanted.items()
        for file in its
        if file.path in answers[host]
    ]
    unfinished = {host: lost[host] for host in lost if len(answers[host]) < len(wanted[host])}
    return Result(tuple(checked), unfinished, interrupted)


def _order(files: Sequence[File]) -> dict[str, Any]:
    return {"do": "verify", "files": [{"path": f.path, "sha256": f.placed.sha256} for f in files]}


def _right(file: File, answers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[str, ...]:
    """Return the digests of the parts of the file where it is right on some host."""
    for its in answers.values():
        said = its.get(file.path, {})
        if said.get("kind") == "file" and said.get("sha256") == file.placed.sha256:
            return tuple(said["digests"])
    return ()


def _judge(host: str, file: File, said: Mapping[str, Any], right: Sequence[str]) -> Checked:
    if said["kind"] == "absent":
        return Checked(host, file, "absent", f"there is no {file.path}")
    if said["kind"] != "file":
        why = str(said.get("why") or {"changing": "it changed meanwhile"}.get(said["kind"], "it is no file"))
        return Checked(host, file, "unreadable", f"{file.path}: {why}")
    size = int(said["size"])
    if file.placed.sha256 is None:
        return Checked(host, file, "unpinned", f"its sha256 is {said['sha256']}", parts=parts.count(size))
    if said["sha256"] == file.placed.sha256:
        return Checked(host, file, "ok", parts=parts.count(size))
    digests = list(said["digests"])
    flipped = tuple(said["flipped"])
    if not flipped and len(right) == len(digests):
        flipped = tuple(index for index, digest in enumerate(digests) if digest != right[index])
    return Checked(host, file, "wrong", _where(file, size, flipped), flipped, parts.count(size))


def _where(file: File, size: int, flipped: Sequence[int]) -> str:
    """Return which parts are wrong, by their numbers and bytes."""
    if not flipped:
        return f"{file.path} has another sha256; which part is wrong cannot be known"
    spans = []
    for index in flipped[:3]:
        start, length = parts.bounds(size, index)
        spans.append(f"part {index} (bytes {start} to {start + length - 1})")
    more = f" and {len(flipped) - 3} more" if len(flipped) > 3 else ""
    return f"{file.path} is wrong in {', '.join(spans)}{more}"
