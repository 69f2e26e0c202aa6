"""What the parts of the gateway say to each other.

``mono`` is the event loop's clock, ``wall`` seconds since 1970. All of it is called in the event loop, and
nothing of it blocks.

The life of a request, in the order of calls:

    proxy                                   desk
    a head is complete      ── head() ──►   Answer: said at once, the body is not read (the connection closes
                                            unless there was none)
                            ◄───────────    Reading: how the body is to be read
    its body was refused    ── unread() ►   there is no start() then
    body read as asked      ── start() ─►   sooner or later: exchange.answer(), or exchange.forward(target);
                                            before that it may begin_stream() and say()
    upstream failed, client
    has no byte of it       ── failed() ►   exchange.forward(another), or exchange.answer()
    it is over              ── ended() ──►  once for each exchange that was started, whatever happened

A client that goes away ends its exchange at once: what goes on upstream is cut, and ``ended`` is called; the
desk then cancels whatever waits. After ``ended`` an exchange takes no call (they do nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import msgspec

from labctl.domain.gateway.table import Key, Upstream
from labctl.domain.sleep.lifecycle import Mode


class Reading(Enum):
    """How a request's body is read before ``start``."""

    NONE = "none"  # there is none, or nobody wants it: it is read and thrown away within limits
    WHOLE = "whole"  # to its end; ``Ask.model`` and ``Ask.stream`` are what its JSON says
    FORM = "form"  # multipart: until its field `model`, then it is passed on as it comes
    FLOW = "flow"  # not at all: it is passed on as it comes


@dataclass(slots=True)
class Ask:
    """What a client asks. ``path`` is decoded as it stands in the request line, without its query.

    ``headers`` are as they were sent, names in their own spelling, hop-by-hop ones included; ``named`` has
    the first of each by its name in lower case. ``body`` is what was read; ``rest`` says that more of it
    comes and is passed on as it comes. ``model`` and ``stream`` are what the body (for FORM: its field)
    says; ``model`` is empty where there is none. ``known`` is the desk's: what it found by the head.
    ``lines`` is the proxy's: the headers that go upstream, where they are known already.
    """

    id: str
    method: str
    target: str
    path: str
    query: str
    version: str
    headers: Sequence[tuple[bytes, bytes]]
    named: Mapping[bytes, bytes]
    client: str
    began: float
    upgrade: bool = False
    body: bytes = b""
    rest: bool = False
    model: str = ""
    stream: bool = False
    known: Any = None
    lines: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of our own.

    ``headers`` come besides Content-Type and Content-Length. ``close``: hang up then.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. ``path`` is the whole target there, query included; ``key`` its credential.

    ``body`` replaces the body that was read (another name of the model). ``again`` are the statuses that
    count as a failure, because somebody else can be asked. The client's own Authorization is never passed on.
    """

    upstream: Upstream
    path: str
    key: str = ""
    body: bytes | None = None
    again: frozenset[int] = frozenset()
    first_byte_s: float = 600.0
    whole_s: float = 7200.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an upstream did not serve, while its client had no byte of it.

    ``kind``: "connect" (refused, no route, no answer in time), "reset" (it hung up before an answer),
    "status" (one of ``Target.again``), "late" (no first byte in time), "bad" (what it said is no HTTP).
    ``sent``: part of the request's body was passed on as it came and cannot be sent again.
    """

    kind: str
    text: str
    status: int = 0
    sent: bool = False


@dataclass(slots=True)
class End:
    """How an exchange ended.

    ``how``: "served" (upstream's answer, whole), "answered" (by us), "left" (the client went away), "cut"
    (upstream died under way; the client saw that its answer is not whole), "late" (its time was up).
    ``status`` is what the client saw, 0 for nothing. Of a stream that we had begun it saw 200; then it is the
    upstream's or the refusal's, and 200 where neither came.
    Times are mono; ``sent_at`` is when the request went upstream, ``first_at`` when the first byte of the
    answer's body came, 0 for never. ``tail`` is the beginning of the answer's body (1 KiB) and its last 4 KiB
    at least, for what it says of its use; all of it, where it is short.
    ``bytes_in``, ``bytes_out``: of bodies.
    """

    how: str
    status: int
    sent_at: float
    first_at: float
    ended_at: float
    bytes_in: int
    bytes_out: int
    tail: bytes = b""


class Exchange(Protocol):
    """One request and its answer; the proxy's. ``life`` is the desk's, to keep its own state in."""

    ask: Ask
    life: Any

    @property
    def begun(self) -> bool:
        """Return whether the client has got a byte of the answer."""
        ...

    def answer(self, answer: Answer) -> None:
        """Answer by ourselves; in a stream that has begun this is an error event, and the stream's end."""
        ...

    def begin_stream(self) -> None:
        """Begin an answer of status 200 that is an event stream, before anybody upstream was asked."""
        ...

    def say(self, text: bytes) -> None:
        """Send whole events or comments of the stream that has begun."""
        ...

    def forward(self, target: Target) -> None:
        """Send the request to an upstream, and its answer to the client."""
        ...


class Desk(Protocol):
    """The life of requests; see the module's text."""

    def head(self, ask: Ask) -> Reading | Answer:
        """Return how to read the body, or what to say at once."""
        ...

    def unread(self, ask: Ask, answer: Answer) -> None:
        """Write down that a body was refused: it is too large, too slow, or not what its head says."""
        ...

    def start(self, exchange: Exchange) -> None:
        """Serve it."""
        ...

    def failed(self, exchange: Exchange, failure: Failure) -> None:
        """Serve it elsewhere, or say why not."""
        ...

    def ended(self, exchange: Exchange, end: End) -> None:
        """Let go of everything that it held."""
        ...


# --- access -----------------------------------------------------------------------------------------------


class Access(Protocol):
    """Who may ask for what, and how much of it."""

    def who(self, ask: Ask) -> Key | Answer:
        """Return whose key it shows (Authorization: Bearer, x-api-key), or the refusal: 401."""
        ...

    def enter(self, key: Key, model: str, now: float) -> Answer | None:
        """Count a request in, or refuse it: 403 for the model, 429 with Retry-After for too many."""
        ...

    def leave(self, key: Key) -> None:
        """Count a request out that was let in."""
        ...

    def may_wake(self, key: Key, host: str, now: float) -> Answer | None:
        """Count a wake of a host, or refuse it: 429, or 403 where the key wakes nobody.

        Called once for each wake, by whoever wants it first. It writes the wake (or the refusal) to the log
        that is kept; nobody else has to.
        """
        ...


# --- books ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostNow:
    """A host as the store had it when we last looked. ``since`` (wall) and ``because`` are of its mode.

    ``comes_s`` is how long a wake usually takes from its first packet until it serves, ``left_s`` how much of
    that is left of the wake that is under way. ``refused`` says why it must not be woken: it is paused,
    quarantined, or nothing wakes it; empty: it may.
    """

    name: str
    mode: Mode
    since: float
    because: str
    comes_s: float
    left_s: float = 0.0
    refused: str = ""
    leases: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """What is known of all hosts, and since when (mono); ``trouble`` is why the store cannot be used now."""

    hosts: Mapping[str, HostNow]
    at: float
    trouble: str = ""
    paused: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """No lease: the mode that the store has, or (None) why the store could not be asked."""

    mode: Mode | None
    because: str = ""


class Waiter(Protocol):
    """Somebody who waits for a host to serve; all of a host share one wish."""

    async def changed(self, within_s: float) -> HostNow:
        """Return the host as soon as something of it changed, or after ``within_s``."""
        ...

    def leave(self) -> None:
        """Wait no more; the wish ends with its last waiter. Harmless when done twice."""
        ...


class Books(Protocol):
    """The store, as the event loop sees it."""

    @property
    def world(self) -> World:
        """Return what was last seen; never waits."""
        ...

    def enter(self, host: str) -> bool:
        """Count a request in under a lease that we surely hold; False: ask ``lease``. Never waits."""
        ...

    async def lease(self, host: str) -> Refused | None:
        """Take a lease and count a request in under it; None is success. Cancelled, nothing is counted."""
        ...

    def leave(self, host: str) -> None:
        """Count a request out; after the last of a host its lease is given back a little later."""
        ...

    def want(self, host: str, by: str, why: str, *, until: float) -> Waiter:
        """Wish that a host be awake, until a wall time at the latest, and wait for it."""
        ...

    def note(self, host: str, kind: str, text: str) -> None:
        """Write a line to the log that is kept (who woke what); dropped when the store cannot be used."""
        ...


# --- what is counted --------------------------------------------------------------------------------------


class Record(msgspec.Struct, omit_defaults=True, gc=False):
    """All that is kept of a request: names, numbers, and never a word of what was asked or answered.

    A struct, since one is made for each request and written as JSON: both are C then, and what is at its
    default is left out of the line. ``at`` is wall.

    ``how`` is that of ``End``, or "refused". Seconds: ``queued_s`` for a slot, ``woke_s`` for a host.
    ``code`` is the problem's type for what we refused. Tokens are what the answer's ``usage`` says, -1
    where it says nothing.
    """

    id: str
    at: float
    key: str
    client: str
    method: str
    path: str
    model: str = ""
    upstream: str = ""
    host: str = ""
    status: int = 0
    how: str = ""
    code: str = ""
    tries: int = 0
    queued_s: float = 0.0
    woke_s: float = 0.0
    first_s: float = -1.0
    seconds: float = 0.0
    prompt_tokens: int = -1
    answer_tokens: int = -1
    cached_tokens: int = -1
    bytes_in: int = 0
    bytes_out: int = 0
    stream: bool = False


class Meters(Protocol):
    """Counts and logs."""

    def took(self, record: Record, tail: bytes) -> None:
        """Count a request that is over and write its line; ``tail`` is searched for its usage."""
        ...

    def wake(self, host: str, key: str, seconds: float, *, came: bool) -> None:
        """Count a wake that somebody waited for."""
        ...

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> bytes:
        """Return everything in Prometheus' text format.

        ``gauges`` are more of them: by name without ``labctl_gateway_``, each value by its labels as they
        are written (``host="gpu-box"``), "" for none.
        """
        ...


class Pages(Protocol):
    """What the gateway answers by itself, without any host."""

    def page(self, ask: Ask) -> Reading | None:
        """Return how the body of a request to one of our own paths is read, or None for any other path."""
        ...

    def answer(self, ask: Ask, key: Key | None) -> Answer:
        """Answer it; ``key`` is None where it showed none. Bodies of our own are small."""
        ...

    def open_to_all(self, ask: Ask) -> bool:
        """Return whether a page needs no key."""
        ...
