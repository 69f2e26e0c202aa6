"""How a file is cut into parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain import parts

SIZES = st.integers(0, 2**42)


@pytest.mark.parametrize(
    ("size", "part", "count"),
    [
        (0, parts.MIB, 0),
        (1, parts.MIB, 1),
        (parts.MIB, parts.MIB, 1),
        (parts.MIB + 1, parts.MIB, 2),
        (32 * parts.MIB, parts.MIB, 32),
        (32 * parts.MIB + 1, 2 * parts.MIB, 17),
        (60 * parts.MIB, 2 * parts.MIB, 30),
        (2 << 30, 64 * parts.MIB, 32),
        (100 * 10**9, 64 * parts.MIB, 1491),
    ],
)
def test_parts_grow_with_the_file_up_to_64_mib(size: int, part: int, count: int) -> None:
    assert parts.part_size(size) == part
    assert parts.count(size) == count


@given(SIZES)
def test_parts_cover_the_file_once(size: int) -> None:
    last = parts.count(size) - 1
    assert parts.SMALLEST <= parts.part_size(size) <= parts.LARGEST
    if last >= 0:
        start, length = parts.bounds(size, last)
        assert start + length == size and 0 < length <= parts.part_size(size)
        assert parts.bounds(size, 0)[0] == 0
    for outside in (-1, last + 1):
        with pytest.raises(IndexError):
            parts.bounds(size, outside)


@given(SIZES, st.integers(0, 2**42))
def test_whole_parts_are_never_more_than_there_is(size: int, there: int) -> None:
    whole = parts.whole(size, there)
    assert whole * parts.part_size(size) <= there or there >= size
    assert whole <= parts.count(size)


@pytest.mark.parametrize(("total", "spare"), [(20 << 20, 1 << 20), (20 << 30, 1 << 30), (2 << 40, 1 << 30)])
def test_a_twentieth_of_a_disk_stays_free_and_at_most_one_gib(total: int, spare: int) -> None:
    assert parts.reserve(total) == spare
