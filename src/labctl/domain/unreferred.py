"""Decide which files below the models' folders may go.

The rule: a file may go when no model of the inventory refers to it and labctl itself put it there, which a
stamp that still holds proves. Anything else stays, with the reason: what somebody copied there by hand is
theirs. What a cut download left has no stamp, but a name that only labctl gives; it may go when no model has
that sha256 any more. In doubt a file stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_PARTIAL = re.compile(r"\.labctl-get\.([0-9a-f]{32})(?:\.parts)?")


@dataclass(frozen=True, slots=True)
class Found:
    """A file below a models' folder; ``vouched``: labctl's stamp of it holds. ``identity`` tells it apart."""

    path: str
    size: int
    identity: str
    vouched: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a file may go, and why or why not."""

    file: Found
    goes: bool
    because: str


def judge(found: Iterable[Found], paths: Collection[str], sha256s: Collection[str]) -> tuple[Verdict, ...]:
    """Return a verdict for each file that no model refers to; those that one does are not mentioned.

    Args:
        found: what is below the models' folders.
        paths: where the inventory's files of models lie.
        sha256s: what they are.
    """
    known = set(paths)
    begun = {sha256[:32] for sha256 in sha256s}
    verdicts = []
    for file in found:
        if file.path in known:
            continue
        partial = _PARTIAL.fullmatch(file.path.rpartition("/")[2])
        if partial is not None:
            if partial[1] not in begun:
                verdicts.append(Verdict(file, True, "begun download of a model that is no more"))
        elif file.vouched:
            verdicts.append(Verdict(file, True, "no model refers to it"))
        else:
            verdicts.append(Verdict(file, False, "labctl did not put it there"))
    return tuple(verdicts)
