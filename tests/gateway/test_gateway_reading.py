"""The table as the gateway reads it: exactly what was written, or the place where it is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Table
from labctl.domain.problem import LabctlError
from labctl.gateway.reading import read_table
from labctl.render.gateway_table import document

TABLE = Table("r", "127.0.0.1", 8000, (), (), (), (), WattRack(()))


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(document(TABLE))
    assert read_table(tmp_path / "t.json") == TABLE


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ('"port": 8000', '"port": "8000"', r"Expected `int`, got `str` - at `\$.port`"),
        ('"rack": "r",', "", "missing required field `rack`"),
        ('"waiting": "comments"', '"waiting": "sometimes"', "Invalid enum value"),
        ("{", "", "is malformed"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(tmp_path: Path, was: str, now: str, words: str) -> None:
    text = document(TABLE)
    if now == "":
        text = "\n".join(line for line in text.splitlines() if was not in line)
    (tmp_path / "t.json").write_text(text.replace(was, now))
    with pytest.raises(LabctlError) as caught:
        read_table(tmp_path / "t.json")
    shown = str(caught.value)
    assert str(tmp_path / "t.json") in shown
    assert "labctl apply --only gateway" in shown


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LabctlError, match="cannot be read: No such file"):
        read_table(tmp_path / "t.json")
