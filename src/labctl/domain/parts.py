"""Into which parts a large file is cut while it travels.

The size of a part follows from the size of the file alone, so that hosts which never spoke with each
other cut the same file alike. A part is 1/32 of the file, as a power of two from 1 to 64 MiB: a host hands on
what it has after one part, so smaller parts get a chain of hosts going sooner, and larger ones cost fewer
requests.
"""

from __future__ import annotations

MIB = 1 << 20
SMALLEST = 1 * MIB
LARGEST = 64 * MIB
_PIECES = 32


def part_size(size: int) -> int:
    """Return the size in bytes of each part (but the last) of a file of ``size`` bytes."""
    part = SMALLEST
    while part < LARGEST and part * _PIECES < size:
        part *= 2
    return part


def count(size: int) -> int:
    """Return how many parts a file of ``size`` bytes has; an empty one has none."""
    return -(-size // part_size(size))


def bounds(size: int, index: int) -> tuple[int, int]:
    """Return where a part begins, and its length; raise ``IndexError`` if there is no such part."""
    if not 0 <= index < count(size):
        raise IndexError(index)
    part = part_size(size)
    return index * part, min(part, size - index * part)


def whole(size: int, there: int) -> int:
    """Return how many whole parts the first ``there`` bytes of the file hold."""
    if there >= size:
        return count(size)
    return there // part_size(size)


def reserve(total: int) -> int:
    """Return how many bytes of a file system of ``total`` bytes stay free: 1 GiB, or 5 % of a small one."""
    return min(1024 * MIB, total // 20)
