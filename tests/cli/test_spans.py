"""Lengths of time, as they are shown and as they are typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.cli import spans


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"), (0.004, "0.0 s"), (3.14, "3.1 s"), (42.4, "42 s"), (119, "119 s"), (120, "2 min"),
        (3600, "60 min"), (7800, "2 h 10 min"), (7200, "2 h"), (86400 * 3, "3 days"),
    ],
)  # fmt: skip
def test_a_span_is_shown_as_people_say_it(seconds: float, words: str) -> None:
    assert spans.shown(seconds) == words


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("10min", 600),
        ("1h30m", 5400),
        ("1d12h", 129600),
        (" 5m ", 300),
    ],
)
def test_a_span_means_what_is_typed(typed: str, seconds: float) -> None:
    assert spans.read(typed) == seconds


@given(st.text(max_size=12))
def test_anything_else_means_nothing(typed: str) -> None:
    found = spans.read(typed)
    assert found is None or found >= 0
