"""docs/sleep.md draws the table that the controller goes by, and names every mode and signal."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from labctl.domain.sleep.lifecycle import NEXT, Mode
from labctl.inventory.idle import Signals

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "sleep.md").read_text()


def test_the_diagram_is_the_table() -> None:
    generator = runpy.run_path(str(DOCS / "generate_reference.py"))
    assert generator["with_diagram"](PAGE) == PAGE, "run: .venv/bin/python docs/generate_reference.py"
    drawn = {
        (mode, event, after)
        for mode, after, events in re.findall(r"^    (\w+) --> (\w+): (.+)$", PAGE, re.M)
        for event in events.split(", ")
    }
    assert drawn == {(mode, event, after) for (mode, event), after in NEXT.items()}


def test_every_mode_is_explained() -> None:
    modes = PAGE.partition("## Modes")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", modes, re.M)) == set(Mode)


def test_every_signal_is_explained() -> None:
    named = PAGE.partition("| signal |")[2].partition("\n\n")[0]
    rows = {
        name for row in re.findall(r"^\| (`.+?`) \|", named, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    switches = {name for name, field in Signals.model_fields.items() if field.annotation is bool}
    assert rows == switches
