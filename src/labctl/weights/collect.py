"""Remove what no model of the inventory refers to, and nothing else.

What may go is decided here, from what hosts say lies in the models' folders; each host looks once more right
before it removes anything, and leaves what changed meanwhile or what a process has open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.domain import unreferred
from labctl.domain.failures import Failure
from labctl.domain.unreferred import Verdict
from labctl.inventory import LoadedRack, Rack
from labctl.ports import Talker
from labctl.weights import places, survey
from labctl.weights.crew import Crew


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of files of one host: bytes by path that were removed, and why others stayed."""

    host: str
    removed: Mapping[str, int]
    kept: Mapping[str, str]


def judge(rack: Rack, found: survey.Survey) -> tuple[Verdict, ...]:
    """Return which files of a host may go, and which stay and why."""
    files = places.files(rack)
    sha256s = {file.placed.sha256 for file in files if file.placed.sha256 is not None}
    return unreferred.judge(found.others, {file.path for file in files}, sha256s)


def collect(
    loaded: LoadedRack, doomed: Mapping[str, Sequence[Verdict]], talker: Talker, *, really: bool
) -> dict[str, Collected | Failure]:
    """Remove those files, or unless ``really`` ask what would be; a lost host is told by its failure."""
    roots = [path for path, _ in places.folders(loaded.rack)]
    done: dict[str, Collected | Failure] = {}
    with Crew(talker, {host: loaded.host_data[host] for host in doomed}) as crew:
        while len(done) < len(doomed):
            heard = crew.hear()
            assert heard is not None
            said = heard.said or {}
            if heard.event == "here":
                files = [{"path": one.file.path, "identity": one.file.identity} for one in doomed[heard.host]]
                order = {"do": "collect", "doomed": files, "roots": roots, "really": really}
                crew.tell(heard.host, order)
            elif heard.event == "collected":
                removed = {str(one["path"]): int(one["bytes"]) for one in said["removed"]}
                kept = {str(one["path"]): str(one["why"]) for one in said["kept"]}
                done[heard.host] = Collected(heard.host, removed, kept)
            elif heard.failure is not None and heard.host not in done:
                done[heard.host] = heard.failure
    return done
