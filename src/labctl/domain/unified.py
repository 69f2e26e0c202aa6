"""How memory that processor and graphics share is divided, and when a host is about to freeze.

Graphics take pages of the machine's own memory. By default AMD's driver stops at half of it; the limit is
raised so far that the system keeps a part for itself: one sixteenth, at least 4 GiB, and of a small machine
never more than a quarter. 128 GiB leave 8 to the system, 64 leave 4, 8 leave 2. The limit is stated in pages
of 4 KiB, 262144 for each GiB.

The firmware may set aside memory for graphics as if it were a card's; the kernel does not see that part, and
it is lost to everything else. Then the limit follows what the kernel has, and a person is told to make the
part small, since the driver takes what it needs anyway.

Where memory is shared, running out of it does not end a program: the whole host stalls. So a watchman ends
the largest program while there is still memory to do it in, and never the ones by which a person gets in.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGES_PER_GIB = 262144
LEAST_RESERVE_GIB = 4
_SET_ASIDE_GIB = 8  # more than what firmware and kernel take for themselves


@dataclass(frozen=True, slots=True)
class Division:
    """How many GiB graphics may take; ``warnings`` are for a person."""

    graphics_gib: int
    warnings: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """The same in pages of 4 KiB."""
        return self.graphics_gib * PAGES_PER_GIB


def reserve_gib(total_gib: int) -> int:
    """Return how many of ``total_gib`` stay for the system."""
    return max(1, min(max(LEAST_RESERVE_GIB, -(-total_gib // 16)), total_gib // 4))


def divide(declared_gib: int, seen_mib: int | None) -> Division:
    """Return how much of a machine's memory its graphics may take.

    Args:
        declared_gib: what the inventory says is built in.
        seen_mib: what the kernel has; None where that is not known or another machine's (a container).
    """
    if seen_mib is None or seen_mib >= (declared_gib - _SET_ASIDE_GIB) * 1024:
        return Division(max(1, declared_gib - reserve_gib(declared_gib)))
    seen_gib = -(-seen_mib // 1024)
    words = (
        f"the kernel has {seen_gib} of {declared_gib} GiB: unless unified_memory_gib is wrong, the firmware "
        "set the rest aside for graphics; set its UMA frame buffer to 512 MB there, since the driver takes "
        "what it needs anyway"
    )
    return Division(max(1, seen_gib - reserve_gib(seen_gib)), (words,))
