"""Ask hosts what is there, and nothing else: each answers once, or is told as unreachable with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labctl.domain.failures import Failure
from labctl.domain.unreferred import Found
from labctl.inventory import LoadedRack
from labctl.ports import Talker
from labctl.weights.crew import Crew
from labctl.weights.places import File, folders


@dataclass(frozen=True, slots=True)
class There:
    """What is at the place of one file. ``vouched``: the sha256 that its stamp vouches for.

    ``part``: bytes of a begun download. ``free`` and ``total`` are bytes of the file system ``device``.
    """

    path: str
    kind: str
    size: int
    vouched: str | None
    part: int
    device: int = 0
    free: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What one host said: each file by its path, and what else lies in the models' folders."""

    host: str
    files: Mapping[str, There]
    others: tuple[Found, ...]


def order(files: Sequence[File], rack_folders: Sequence[tuple[str, bool]] = ()) -> dict[str, Any]:
    """Return the order to look at these files and below these folders."""
    return {
        "do": "look",
        "files": [{"path": file.path, "sha256": file.placed.sha256} for file in files],
        "folders": [{"path": path, "deep": deep} for path, deep in rack_folders],
    }


def read(host: str, said: Mapping[str, Any]) -> Survey:
    """Read a host's answer."""
    files = {one["path"]: There(**one) for one in said["files"]}
    others = tuple(
        Found(one["path"], one["size"], one["identity"], vouched=one["vouched"]) for one in said["others"]
    )
    return Survey(host, files, others)


def ask(
    loaded: LoadedRack,
    hosts: Sequence[str],
    files: Sequence[File],
    talker: Talker,
    on_answer: Callable[[str], None] = lambda host: None,
) -> dict[str, Survey | Failure]:
    """Ask hosts what they have of the files, and what else lies there; all at once."""
    answers: dict[str, Survey | Failure] = {}
    wanted = order(files, folders(loaded.rack))
    with Crew(talker, {host: loaded.host_data[host] for host in hosts}) as crew:
        while len(answers) < len(hosts):
            heard = crew.hear()
            assert heard is not None
            if heard.event == "here":
                crew.tell(heard.host, wanted)
            elif heard.event == "looked" and heard.said is not None:
                answers[heard.host] = read(heard.host, heard.said)
                on_answer(heard.host)
            elif heard.failure is not None and heard.host not in answers:
                answers[heard.host] = heard.failure
                on_answer(heard.host)
    return {host: answers[host] for host in hosts}
