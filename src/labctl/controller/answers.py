"""What the controller answers when it is asked: values that a socket, a command or a test can show.

Wall times are seconds since 1970. Every answer says why: ``because`` is a clause such as "quiet for 12 min,
sleeps after 30 min", never a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Hold, Reading, Wish
from labctl.domain.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a host since this process began.

    ``moves`` are its moves from mode to mode by their event (``domain.sleep.lifecycle.Event``). ``wakes`` has
    one number for each of ``bounds`` (seconds), of wakes that took up to it and longer than the one before,
    and one for all that took longer; ``wakes_s`` is how long they took together.
    """

    moves: Mapping[str, int] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()
    wakes: tuple[int, ...] = (0,)
    wakes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host as the controller has it.

    ``because`` is why it is in that mode, ``next`` what is being waited for (empty: nothing). ``talking``:
    its agent reports. ``proof``: empty when it is valid for what the host runs now, else what is wrong.
    ``doing``: what is being done to it right now. ``usual_s``: how long a wake usually takes, None if it was
    never seen to. ``telemetry``: what it drew and did in its last report, None while it does not
    report.
    """

    host: str
    mode: Mode
    since: float
    because: str
    next: str = ""
    talking: bool = False
    paused: str = ""
    quarantined: str = ""
    holds: tuple[Hold, ...] = ()
    wishes: tuple[Wish, ...] = ()
    leases: int = 0
    proof: str = ""
    doing: str = ""
    usual_s: float | None = None
    telemetry: Telemetry | None = None
    counts: Counts = Counts()


@dataclass(frozen=True, slots=True)
class RackStatus:
    """The whole rack.

    ``leader`` names the process that acts, and ``leading`` says whether it is this one. ``store`` is empty,
    or what is wrong with the store: then nothing is put to sleep and modes are as they were last read.
    ``ticked_s`` is how long ago the last tick ended; None before the first.
    """

    at: float
    leader: str
    leading: bool
    store: str
    paused: str
    ticked_s: float | None
    hosts: tuple[HostStatus, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One thing that keeps a host awake: its kind, in words, until when (wall; None: not known).

    ``remedy`` is what a person may do about it; empty: only time helps.
    """

    kind: str
    because: str
    until: float | None
    remedy: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a host is as it is, and what keeps it awake.

    ``verdict`` is one sentence on whether it may sleep now. ``readings`` are the signals of its last report,
    ``report_age_s`` how old that is (None: none was heard). ``signs`` are what was seen from outside, as
    "ping: dark". ``against`` names every single thing that keeps it awake. ``recent`` are the last lines
    of its log, oldest first, as (wall time, text). ``lines`` says all of it once more, as a person would, and
    what happens next. ``blocks`` are what ``against`` says, with what changes it. ``refused`` is when it last
    turned back on its way to sleep, and why. ``next_look_s``: in how many seconds it is looked at again;
    None: it was not looked at yet.
    """

    status: HostStatus
    verdict: str
    may_sleep: bool
    readings: tuple[Reading, ...] = ()
    report_age_s: float | None = None
    signs: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    recent: tuple[tuple[float, str], ...] = ()
    lines: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    refused: tuple[float, str] | None = None
    next_look_s: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A host's mode or reason, as it became.

    ``ok`` is None while what was asked for is under way, then whether it came true; always None from
    ``watch``. ``usual_s`` as in ``HostStatus``.
    """

    host: str
    mode: Mode
    because: str
    usual_s: float | None = None
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """Something that was asked for one host; ``Service.follow`` tells what becomes of it.

    ``wish`` is the id of its wish in the store.
    """

    host: str
    wish: int
    wants: Literal["awake", "asleep"]


@dataclass(frozen=True, slots=True)
class TestStep:
    """How far a sleep test is: the cycle (from 1; 0 before the first) of so many, and what happens in words.

    ``ok`` is None on the way, then whether the host proved that it sleeps and wakes. The last step says in
    ``text`` how it will sleep from now on.
    """

    host: str
    cycle: int
    of: int
    text: str
    ok: bool | None = None
