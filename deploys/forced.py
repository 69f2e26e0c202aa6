"""What was forced: a note on the host for as long as more is loaded there than fits.

``labctl apply --force WORDS`` lets through what does not fit. The words stay on the host, where
``labctl status`` shows them, until an apply finds that all fits. Plain pyinfra plans no fit, so it leaves the
note as it is.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Rack
from labctl.ops import files
from labctl.ops.facts import CONTENT, Look, Paths
from labctl.render import forced as note


@deploy("Forced")
def forced() -> None:
    """Keep or remove the note on a host whose models do not fit."""
    rack: Rack = host.data.rack
    record: str | None = host.data.get("forced")
    if record is None or not (record or rack.models):
        return
    if not record:
        files.absent_own(name="note: all fits again", path=note.PATH)
        return
    (before,) = host.get_fact(Paths, looks=[Look(note.PATH, CONTENT)])
    files.directory(name="note: folder", path=str(Path(note.PATH).parent))
    files.put(
        name="note: forced although it does not fit",
        dest=note.PATH,
        content=note.document(record, before.content),
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    forced()
