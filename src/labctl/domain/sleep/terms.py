"""The values that all of sleep and wake is said in.

Two clocks, never mixed: ``wall`` is seconds since 1970 (what is stored, schedules, what people read) and
``mono`` is seconds of this process's monotonic clock (how long something lasts; means nothing after a
restart). ``Policy`` is what the inventory wants, ``Known`` what the store holds, ``Seen`` what was observed
in this process, and an ``Action`` is what should happen next, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from ..budget import Rack as WattRack
from ..telemetry import Telemetry
from .lifecycle import Claims, Mode


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks, in seconds; ``jumped`` says that the two did not advance alike lately.

    ``steady_s`` is for how long they have: since the last jump, or since this process began, whichever was
    later. Only so much of a time between two wall times is sure to have passed.
    """

    wall: float
    mono: float
    jumped: bool = False
    steady_s: float = inf

    def sure_s(self, then: float) -> float:
        """Return how many seconds have passed since a wall time at the very least, whatever clocks did.

        A time that lies ahead was read before the clock went back, so all of ``steady_s`` has passed since.
        """
        return self.steady_s if then > self.wall else min(self.wall - then, self.steady_s)


class How(StrEnum):
    """How a host sleeps, the lightest first; ``UNLOAD`` leaves it on and frees its cards only."""

    SUSPEND = "suspend"  # to memory (mem_sleep says how: deep or s2idle)
    HIBERNATE = "hibernate"
    POWER_OFF = "power-off"
    UNLOAD = "unload"


# --- what the inventory wants -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Some time of some days of the week: minutes of the day in the rack's zone; days 0 is Monday.

    ``end`` may be smaller than ``start``: then the window runs past midnight.
    """

    days: frozenset[int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """What the inventory wants of one host's sleep; times in seconds.

    ``wakeable``: some back-end can wake it. ``sleeps``: idle sleep is wanted. ``quiet_s``: how long every
    signal must have been quiet; ``min_up_s``: how long it stays up after it became ready (anti-flap);
    ``awake``: windows in which it is kept awake (and woken for); ``only_in``: windows in which alone idle
    sleep may begin (empty: always). ``boot_s``: how long a wake may take as long as nothing was learnt.
    ``can_cut``: a back-end can cut its power and give it again, and the inventory allows that.
    ``priority``: who keeps watts when they are short; higher wins. ``relay``: the host that has to be awake
    to send its packets; empty: none. ``may_reload``: nvidia_uvm may be reloaded to mend it.
    """

    name: str
    wakeable: bool
    sleeps: bool = False
    how: How = How.SUSPEND
    quiet_s: float = 1800.0
    min_up_s: float = 600.0
    awake: tuple[Window, ...] = ()
    only_in: tuple[Window, ...] = ()
    depends_on: tuple[str, ...] = ()
    boot_s: float = 180.0
    can_cut: bool = False
    may_reboot: bool = True
    has_meter: bool = False
    priority: int = 0
    relay: str = ""
    may_reload: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """The rack as sleep and wake see it; ``zone`` is an IANA name, ``watts`` what the power budget counts."""

    hosts: Mapping[str, HostPolicy]
    watts: WattRack
    zone: str = "Etc/UTC"
    tick_s: float = 10.0


# --- what the store holds ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hold:
    """A promise that a host stays awake, until a wall time."""

    id: int
    host: str
    why: str
    by: str
    until: float


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody wants a host awake (or, with ``sleep``, asleep as soon as nothing is against it)."""

    id: int
    host: str
    by: str
    why: str
    at: float
    until: float
    sleep: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A suspend order that was committed: the host's nonce, and when it is dead at the latest (wall).

    The host itself enforces ``lasts_s`` by its own monotonic clock, counted from its own nonce.
    """

    nonce: str
    how: How
    at: float
    lasts_s: float
    rtc_at: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A wake under way: when it began and when a round was sent last (wall), and how many rounds.

    ``asleep``: it was ASLEEP before, so it had been seen dark after an order: what does not come back then
    hangs, and nobody can have worked on it since. ``failed``: why the last round could not be sent; empty: it
    was.
    """

    began: float
    sent: int = 0
    last: float = 0.0
    why: str = ""
    asleep: bool = False
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a wake proof depends on; a change of any of it makes the proof stale."""

    kernel: str
    driver: str
    nic: str  # MAC, kernel driver and firmware of the card that wakes it
    how: How
    mem_sleep: str  # "deep", "s2idle", or empty where it does not apply

    def changed(self, now: Fingerprint) -> tuple[str, ...]:
        """Return what differs, as "kernel 6.1.0-25 -> 6.1.0-26"."""
        return tuple(
            f"{name.replace('_', ' ')} {getattr(self, name)} -> {getattr(now, name)}"
            for name in ("kernel", "driver", "nic", "how", "mem_sleep")
            if getattr(self, name) != getattr(now, name)
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """Passed cycles of sleep-test: for what, when (wall), how many, seconds to dark and to ready."""

    fingerprint: Fingerprint
    at: float
    cycles: int
    dark_s: float
    ready_s: float


@dataclass(frozen=True, slots=True)
class Repair:
    """Where a host is on the ladder: the steps taken since it passed the gate, and what the gate said."""

    taken: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class KnownHost:
    """The store's row of a host and all that belongs to it.

    ``version`` rises with each change of the row; a move names the version that it was decided on.
    ``boot_id`` and ``resumes`` are what the host said when it was last READY. ``came_up_s``: how long its
    last wakes took, the newest last, and ``woke_at`` when those ended (wall).
    """

    name: str
    mode: Mode = Mode.UNKNOWN
    since: float = 0.0
    because: str = ""
    version: int = 0
    boot_id: str = ""
    resumes: int = -1
    claims: Claims = field(default_factory=Claims)
    holds: tuple[Hold, ...] = ()
    wishes: tuple[Wish, ...] = ()
    paused: str = ""  # why, and by whom; empty: it is not
    quarantined: str = ""  # what the gate found last; empty: it is not
    order: Order | None = None
    attempt: Attempt | None = None
    proof: Proof | None = None
    repair: Repair = field(default_factory=Repair)
    came_up_s: tuple[float, ...] = ()
    woke_at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """One consistent look at the store; ``paused`` is the pause of the whole rack."""

    hosts: Mapping[str, KnownHost]
    paused: str = ""


# --- what was observed ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """One signal on a host: busy, quiet, or (None) not readable, which counts as busy."""

    signal: str
    busy: bool | None
    because: str


class Said(StrEnum):
    """What a host says of the last suspend order that it got."""

    GOING = "going"  # it will be, or was, obeyed
    REFUSED = "refused"  # it was not, and never will be
    FAILED = "failed"  # systemctl suspend failed, or it never went dark; the order is dead


@dataclass(frozen=True, slots=True)
class OrderWord:
    """The host's own word on an order."""

    nonce: str
    said: Said
    because: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A line of ``labctl-agent report --watch``: what a host said of itself, and when we got it (mono).

    ``resumes`` counts completed sleeps since its boot; ``up_s`` is since boot or resume, by the host's clock.
    """

    at: float
    boot_id: str
    resumes: int
    up_s: float
    readings: tuple[Reading, ...]
    order: OrderWord | None = None
    fingerprint: Fingerprint | None = None
    wol_armed: bool | None = None
    watch: str = ""  # random, one for each start of the watch
    mem_sleeps: tuple[str, ...] = ()  # its kernel's ways to sleep to memory; empty: it does not tell
    caps_w: Mapping[str, int] | None = None  # by card that stepped down; None: it does not tell
    caps_n: int = 0  # the number of its last change of those
    telemetry: Telemetry | None = None  # what it draws and does; decides nothing


class Sign(StrEnum):
    """One independent way to see whether a host is off."""

    ON = "on"
    DARK = "dark"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class SeenHost:
    """What this process saw of a host lately; ``at`` (mono) is when the newest of it was seen.

    ``talking``: the channel is open and its last line is fresh. ``silent_because``: why not, as a person
    reads it. ``signs``: by name of the look ("ssh", "ping", "arp", "power"), each from this tick.
    ``quiet_since`` (mono): since when every reading has been quiet, without a gap; None when one is not.
    ``old_agent``: it speaks, but does not know what we ask: it is never put to sleep. ``dark_since`` (mono):
    since when each tick saw two or more dark signs and none of life; None when the last did not. ``caps_w``:
    by card name, the caps in force as it told them last while it talked; one that is missing counts as
    declared. ``unloaded``: its cards were freed since ``quiet_since``. ``watched`` (mono): since when this
    process has listened to it; before that, it was not silent.
    """

    name: str
    at: float
    talking: bool = False
    report: Report | None = None
    silent_because: str = ""
    signs: Mapping[str, Sign] = field(default_factory=dict)
    quiet_since: float | None = None
    old_agent: bool = False
    dark_since: float | None = None
    caps_w: Mapping[str, int] = field(default_factory=dict)
    unloaded: bool = False
    watched: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """All of this tick's observations."""

    hosts: Mapping[str, SeenHost]
