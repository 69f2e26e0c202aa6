"""The store against a model of it that fits in a head: dictionaries, and the rules of the lifecycle."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from lives import ATTEMPT, NOW, ORDER

from labctl.adapters.store import open_store
from labctl.domain.sleep.lifecycle import Claims, Event, Mode, after, may_drain, may_lease, may_order
from labctl.domain.sleep.terms import Hold, Wish
from labctl.ports.store import Leadership, Lease, StaleError

HOSTS = ("box", "nas")
GATEWAYS = ("one", "two")
hosts = st.sampled_from(HOSTS)
gateways = st.sampled_from(GATEWAYS)


@dataclass
class Row:
    mode: Mode = Mode.UNKNOWN
    version: int = 0
    paused: bool = False
    ordered: bool = False
    attempt: bool = False


@dataclass
class Model:
    now: float = NOW
    rows: dict[str, Row] = field(default_factory=lambda: {host: Row() for host in HOSTS})
    beats: dict[str, int] = field(default_factory=dict)
    leases: set[Lease] = field(default_factory=set)
    holds: set[Hold] = field(default_factory=set)
    wishes: set[Wish] = field(default_factory=set)
    paused: bool = False
    leading: Leadership | None = None
    term: int = 0

    def claims(self, host: str) -> Claims:
        return Claims(
            leases=sum(lease.host == host for lease in self.leases),
            holds=sum(hold.host == host and hold.until > self.now for hold in self.holds),
            wishes=sum(
                wish.host == host and wish.until > self.now and not wish.sleep for wish in self.wishes
            ),
            paused=self.paused or self.rows[host].paused,
        )

    def to(self, host: str, mode: Mode) -> None:
        row = self.rows[host]
        self.rows[host] = replace(
            row,
            mode=mode,
            version=row.version + 1,
            ordered=mode is Mode.SUSPENDING,
            attempt=row.attempt and mode is Mode.WAKING,
        )

    def needed(self, host: str) -> None:
        if self.rows[host].mode is Mode.DRAINING:
            self.to(host, Mode.READY)


class StoreMachine(RuleBasedStateMachine):
    leases: Bundle[Lease] = Bundle("leases")
    holds: Bundle[Hold] = Bundle("holds")
    wishes: Bundle[Wish] = Bundle("wishes")
    leaderships: Bundle[Leadership] = Bundle("leaderships")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="labctl-machine-")
        self.path = Path(self.folder) / "store.db"
        open_store(self.path, create=True).close()
        self.stores = [open_store(self.path, create=False) for _ in range(2)]
        self.turn = 0
        self.model = Model()

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    @property
    def store(self):  # type: ignore[no-untyped-def]
        """Return this store or that: which process asks makes no difference."""
        self.turn += 1
        return self.stores[self.turn % 2]

    @initialize(target=leaderships)
    def begin(self) -> Leadership:
        self.store.enlist(HOSTS, now=NOW)
        return self._lead("first", None)

    def _lead(self, holder: str, over: Leadership | None) -> Leadership:
        got = self.store.lead(holder, over=over, now=self.model.now)
        if self.model.leading is None or self.model.leading == over:
            self.model.term += 1
            assert (got.holder, got.term) == (holder, self.model.term)
            self.model.leading = got
        else:
            assert got is None
        return got or self.model.leading

    def _refused(self, stale: bool, act) -> bool:  # type: ignore[no-untyped-def]
        try:
            act()
        except StaleError:
            assert stale
            return True
        assert not stale
        return False

    # -- the controller

    @rule(host=hosts, event=st.sampled_from(Event), late=st.booleans(), by=leaderships)
    def move(self, host: str, event: Event, late: bool, by: Leadership) -> None:
        row = self.model.rows[host]
        mode = after(row.mode, event)
        stale = mode is None or event is Event.ORDERED or self._late(by, late)
        if event is Event.WENT_QUIET:
            stale = stale or not may_drain(row.mode, self.model.claims(host))
        version = row.version - late
        act = lambda: self.store.move(host, event, "", version=version, term=by.term, now=self.model.now)  # noqa: E731
        if not self._refused(stale, act):
            assert mode is not None
            self.model.to(host, mode)

    @rule(host=hosts, late=st.booleans(), by=leaderships)
    def order(self, host: str, late: bool, by: Leadership) -> None:
        row = self.model.rows[host]
        verdict = may_order(row.mode, self.model.claims(host))
        said = []
        if not self._refused(
            self._late(by, late) or row.mode is not Mode.DRAINING,
            lambda: said.append(
                self.store.order(
                    host, ORDER, "", version=row.version - late, term=by.term, now=self.model.now
                )
            ),
        ):
            assert said == [verdict]
            self.model.to(host, Mode.SUSPENDING if verdict else Mode.READY)

    @rule(host=hosts, by=leaderships)
    def note_attempt(self, host: str, by: Leadership) -> None:
        row = self.model.rows[host]
        act = lambda: self.store.note_attempt(  # noqa: E731
            host, ATTEMPT, version=row.version, term=by.term, now=self.model.now
        )
        if not self._refused(self._late(by, False) or row.mode is not Mode.WAKING, act):
            self.model.rows[host] = replace(row, attempt=True, version=row.version + (not row.attempt))

    def _late(self, by: Leadership, late: bool) -> bool:
        leading = self.model.leading
        return late or leading is None or leading.term != by.term

    @rule(target=leaderships, over=leaderships, holder=st.sampled_from(["first", "second"]))
    def lead(self, over: Leadership, holder: str) -> Leadership:
        return self._lead(holder, over) or over

    @rule(target=leaderships, of=leaderships)
    def keep_leading(self, of: Leadership) -> Leadership:
        kept: list[Leadership] = []
        if self._refused(
            self._late(of, False), lambda: kept.append(self.store.keep_leading(of, now=self.model.now))
        ):
            return of
        self.model.leading = kept[0]
        return kept[0]

    @rule(of=leaderships)
    def abdicate(self, of: Leadership) -> None:
        self.store.abdicate(of, now=self.model.now)
        if not self._late(of, False):
            self.model.leading = None

    # -- gateways

    @rule(name=gateways)
    def register(self, name: str) -> None:
        self.store.register(name, "gateway", now=self.model.now)
        self.model.leases = {lease for lease in self.model.leases if lease.instance != name}
        self.model.beats[name] = 0

    @rule(name=gateways)
    def beat(self, name: str) -> None:
        if not self._refused(name not in self.model.beats, lambda: self.store.beat(name, now=self.model.now)):
            self.model.beats[name] += 1

    @rule(name=gateways, behind=st.booleans())
    def bury(self, name: str, behind: bool) -> None:
        beat = self.model.beats.get(name, 0) - behind
        buried = self.store.bury(name, beat, now=self.model.now)
        assert buried == (name not in self.model.beats or not behind)
        if buried:
            self.model.beats.pop(name, None)
            self.model.leases = {lease for lease in self.model.leases if lease.instance != name}

    @rule(target=leases, name=gateways, host=hosts)
    def take_lease(self, name: str, host: str) -> Lease:
        taken: list[Lease | Mode] = []
        nothing = Lease(0, host, name)
        if self._refused(
            name not in self.model.beats,
            lambda: taken.append(self.store.take_lease(name, host, now=self.model.now)),
        ):
            return nothing
        mode = self.model.rows[host].mode
        if not may_lease(mode):
            assert taken == [mode]
            return nothing
        assert isinstance(taken[0], Lease)
        self.model.leases.add(taken[0])
        self.model.needed(host)
        return taken[0]

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        self.store.release(lease, now=self.model.now)
        self.model.leases.discard(lease)

    # -- people

    @rule(target=holds, host=hosts, lasts=st.sampled_from([1.0, 100.0]))
    def hold(self, host: str, lasts: float) -> Hold:
        hold = self.store.hold(host, "why", "ann", until=self.model.now + lasts, now=self.model.now)
        self.model.holds.add(hold)
        self.model.needed(host)
        return hold

    @rule(hold=holds, host=hosts, every=st.booleans())
    def release_hold(self, hold: Hold, host: str, every: bool) -> None:
        number = None if every else hold.id
        ended = {
            one
            for one in self.model.holds
            if one.host == host and one.until > self.model.now and (every or one.id == hold.id)
        }
        assert self.store.release_hold(host, hold=number, by="ann", now=self.model.now) == len(ended)
        self.model.holds -= ended

    @rule(target=wishes, host=hosts, sleep=st.booleans(), lasts=st.sampled_from([1.0, 100.0]))
    def wish(self, host: str, sleep: bool, lasts: float) -> Wish:
        now = self.model.now
        wish = self.store.wish(Wish(0, host, "ann", "why", now, now + lasts, sleep=sleep), now=now)
        self.model.wishes.add(wish)
        if not sleep:
            self.model.needed(host)
        return wish

    @rule(wish=consumes(wishes))
    def end_wish(self, wish: Wish) -> None:
        self.store.end_wish(wish.id, now=self.model.now)
        self.model.wishes.discard(wish)

    @rule(host=hosts, paused=st.booleans())
    def pause(self, host: str, paused: bool) -> None:
        if paused:
            self.store.pause(host, "why", "ann", now=self.model.now)
            self.model.needed(host)
        else:
            self.store.resume(host, "ann", now=self.model.now)
        row = self.model.rows[host]
        self.model.rows[host] = replace(row, paused=paused, version=row.version + (row.paused != paused))

    @rule(paused=st.booleans())
    def pause_all(self, paused: bool) -> None:
        if paused:
            self.store.pause(None, "why", "ann", now=self.model.now)
            for host in HOSTS:
                self.model.needed(host)
        else:
            self.store.resume(None, "ann", now=self.model.now)
        self.model.paused = paused

    @rule()
    def time_passes(self) -> None:
        self.model.now += 10.0

    @rule(which=st.sampled_from([0, 1]))
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = open_store(self.path, create=False)

    # -- what must hold

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        known = self.store.known(now=self.model.now)
        for name, host in known.hosts.items():
            row = self.model.rows[name]
            seen = Row(
                host.mode, host.version, bool(host.paused), host.order is not None, host.attempt is not None
            )
            assert seen == row
            assert host.claims == self.model.claims(name)
            assert not (host.mode is Mode.SUSPENDING and host.claims.leases)
        assert bool(known.paused) == self.model.paused
        assert self.store.leading() == self.model.leading
        assert {one.name: one.beat for one in self.store.instances()} == self.model.beats


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
