"""What may be removed below the models' folders."""

from __future__ import annotations

import pytest

from labctl.domain.unreferred import Found, judge

BEGUN = (True, "begun download of a model that is no more")
KNOWN, SHA, OTHER = "/srv/models/m/m.gguf", "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("path", "vouched", "verdict"),
    [
        (KNOWN, True, None),
        (KNOWN, False, None),
        ("/srv/models/old/old.gguf", True, (True, "no model refers to it")),
        ("/srv/models/old/old.gguf", False, (False, "labctl did not put it there")),
        ("/srv/models/m/notes.txt", False, (False, "labctl did not put it there")),
        (f"/srv/models/m/.labctl-get.{SHA[:32]}", False, (False, None)),
        (f"/srv/models/m/.labctl-get.{SHA[:32]}.parts", False, (False, None)),
        (f"/srv/models/x/.labctl-get.{OTHER[:32]}", False, BEGUN),
        (f"/srv/models/x/.labctl-get.{OTHER[:32]}.parts", False, BEGUN),
        (f"/srv/models/x/.labctl-get.{OTHER}", False, (False, "labctl did not put it there")),
        (f"/srv/models/x/.labctl-get.{OTHER[:32]}.bak", False, (False, "labctl did not put it there")),
    ],
)  # fmt: skip
def test_only_what_labctl_brought_and_nothing_refers_to_goes(
    path: str, vouched: bool, verdict: tuple[bool, str | None] | None
) -> None:
    found = judge([Found(path, 7, "id", vouched=vouched)], {KNOWN}, {SHA})
    said = [(one.goes, one.because) for one in found]
    assert said == ([] if verdict is None or verdict[1] is None else [verdict])


def test_with_no_models_at_all_only_vouched_files_go() -> None:
    files = [Found("/srv/models/a", 1, "i", vouched=True), Found("/srv/models/b", 1, "i", vouched=False)]
    assert [one.goes for one in judge(files, (), ())] == [True, False]
