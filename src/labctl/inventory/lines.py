"""Where the parts of a loaded rack stand in its file.

A loaded rack is values alone. Who has something to say of a part of it later on (too many watts, too little
memory) finds the line by running the file once more as the loader does.
"""

from __future__ import annotations

from labctl.inventory.loader import LoadedRack, read_text
from labctl.inventory.rack import Rack
from labctl.inventory.report import Report, in_short
from labctl.inventory.running import run
from labctl.inventory.spec import collecting


class Lines:
    """The lines of one rack file; making it runs the file once."""

    def __init__(self, loaded: LoadedRack) -> None:
        self._short = in_short(loaded.path)
        with collecting() as ledger:
            text = read_text(loaded.path)
            rack = run(text, loaded.path).namespace.get("rack")
        self._report = Report(loaded.path, text, ledger)
        # A file that says something else the second time has no lines to be trusted.
        self._rack = rack if isinstance(rack, Rack) and rack == loaded.rack else None

    def of(self, path: tuple[str | int, ...]) -> tuple[str, int | None]:
        """Return the file and line of a part of the rack, as exactly as they are known."""
        return self._report.line_in(self._rack, path) if self._rack is not None else (self._short, None)
