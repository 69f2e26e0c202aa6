"""How long a client must wait for a first answer: a host that sleeps wakes, a model that is unloaded loads.

What the inventory states counts. What it does not state is predicted from sizes and the disk's rate, doubled,
since a disk is rarely alone; what cannot be predicted gets a constant that is rather too long: a client that
waits too long costs patience, one that gives up too early never gets an answer at all. Times of waking and
constants are those by which llama-swap's own timeouts are set (see ``swapping``), so that no client gives up
before the llama-swap in front of it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from labctl.inventory.endpoints import Served
from labctl.inventory.hosts import Host
from labctl.inventory.models import Model
from labctl.inventory.swapping import ANSWER_S, LEAST_LOAD_S, UNKNOWN_LOAD_S, WAKE_S

# Before loading, llama-swap stops what is in the way; it gives that 10 s unless told otherwise.
UNLOAD_S = 10
# After loading: a long prompt on a slow card before its first token.
PROMPT_S = 60


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds until the first byte, and why: ``load_because`` tells where ``load_s`` comes from."""

    wake_s: int
    load_s: int
    load_because: str

    @property
    def first_byte_s(self) -> int:
        """Return how long a client should wait for the first byte of an answer."""
        return self.wake_s + UNLOAD_S + self.load_s + PROMPT_S

    @property
    def whole_s(self) -> int:
        """Return how long a client should wait for the last byte: 6000 tokens at 10 in a second, and that."""
        return self.first_byte_s + ANSWER_S

    def __str__(self) -> str:
        """Return the sum in words."""
        wake = f"{self.wake_s} s to wake, " if self.wake_s else ""
        load = f"{self.load_s} s to load ({self.load_because})"
        return (
            f"{self.first_byte_s} s: {wake}{load}, {UNLOAD_S + PROMPT_S} s to make room and read the prompt"
        )


def size_of(model: Model) -> int | None:
    """Return the bytes of all files of a model, None where the inventory does not say them all."""
    sizes = [placed.size for placed in model.layout()]
    return None if None in sizes else sum(size or 0 for size in sizes)


def wake_s(host: Host) -> int:
    """Return the seconds that waking a host may take; 0 for one that is always on or that nothing wakes."""
    return 0 if "always-on" in host.roles else WAKE_S[host.wake.kind]


def load(served: Served) -> tuple[int, str]:
    """Return the seconds that loading a model may take, and where the number comes from."""
    for owner, field in ((served.engine, "load_timeout"), (served.behind, "health_check_timeout")):
        stated = getattr(owner, field, None)
        if stated is not None:
            return ceil(stated.total_seconds()), f"`{field}`"
    size, rate = size_of(served.model), served.host.disk_mb_s
    if size is None or rate is None:
        lacking = "its size" if size is None else "`disk_mb_s` of its host"
        return UNKNOWN_LOAD_S, f"a safe guess, since {lacking} is not stated"
    twice = 2 * ceil(size / (rate * 1_000_000))
    return max(LEAST_LOAD_S, twice), f"{size / 1e9:.1f} GB at {rate} MB/s, doubled"


def cold_start(served: Served) -> ColdStart:
    """Return how long the first answer of a model may take when its host sleeps and nothing is loaded."""
    seconds, because = load(served)
    return ColdStart(wake_s(served.host), seconds, because)
