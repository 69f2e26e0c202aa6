"""How shared memory is divided: the system keeps its part, whatever the machine."""

from __future__ import annotations

import pytest

from labctl.domain.unified import PAGES_PER_GIB, divide, reserve_gib


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(512, 32), (128, 8), (96, 6), (64, 4), (32, 4), (16, 4), (8, 2), (4, 1), (2, 1), (1, 1)],
)
def test_a_sixteenth_stays_for_the_system_and_at_least_4_gib_of_a_machine_that_has_them(
    total: int, reserve: int
) -> None:
    assert reserve_gib(total) == reserve


def test_the_limit_is_in_pages_of_4_kib() -> None:
    assert divide(128, None).pages == 120 * 262144
    assert PAGES_PER_GIB * 4096 == 1 << 30


def test_every_machine_leaves_graphics_something() -> None:
    for total in range(1, 2049):
        division = divide(total, None)
        assert 1 <= division.graphics_gib <= max(1, total - reserve_gib(total))


def test_what_kernel_and_firmware_take_for_themselves_changes_nothing() -> None:
    for seen in (128 * 1024, 125 * 1024, 120 * 1024):
        assert divide(128, seen) == divide(128, None)


def test_memory_that_the_firmware_set_aside_is_not_promised_twice_and_said() -> None:
    division = divide(128, 31 * 1024 + 200)
    assert division.graphics_gib == 28
    assert "the kernel has 32 of 128 GiB" in division.warnings[0]
    assert "UMA frame buffer" in division.warnings[0]
