"""Watching hosts: one conversation with each that talks, a look at each that does not."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from lying_rack import Machine, World, doors_of, report_of

from labctl.adapters.clock import SystemClock
from labctl.controller.doors import Doors
from labctl.controller.observe import Watches
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.terms import SeenHost, Sign

TICK_S = 1.0
PATIENCE_S = 10.0
DARK = {"ssh": Sign.DARK, "ping": Sign.DARK, "arp": Sign.DARK}
ON = {"ssh": Sign.ON, "ping": Sign.ON}


class Channel:
    """A conversation whose lines the test says."""

    peer = "192.0.2.1"

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[bytes | HostError | None] = queue.SimpleQueue()
        self.heard: list[dict[str, Any]] = []
        self.closed = threading.Event()

    def send(self, data: bytes) -> None:
        self.heard.append(json.loads(data))

    def finish(self) -> None: ...

    def lines(self) -> Iterator[bytes]:
        while (said := self.said.get()) is not None:
            if isinstance(said, HostError):
                raise said
            yield said

    def close(self) -> None:
        self.closed.set()
        self.said.put(HostError(Failure("connection-lost", "the connection ended")))


class Lan:
    """A host that the test opens, closes and speaks for; also its talker and the looks at it."""

    def __init__(self) -> None:
        self.signs: Mapping[str, Sign] = ON
        self.refuses: HostError | None = None
        self.channels: list[Channel] = []
        self.looks = self.calls = 0

    def talk(self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool) -> Channel:
        assert list(argv[1:]) == ["report", "--watch"] and not root
        self.calls += 1
        if self.refuses is not None:
            raise self.refuses
        self.channels.append(Channel())
        return self.channels[-1]

    def stop(self) -> None: ...

    def signs_of(self, host: str, *, deadline_s: float) -> Mapping[str, Sign]:
        self.looks += 1
        return self.signs


class Looks:
    def __init__(self, lan: Lan) -> None:
        self.signs = lan.signs_of


class Watched:
    """One host under watch."""

    def __init__(self, lan: Lan, tick_s: float) -> None:
        self.lan, self.news, self.told = lan, threading.Event(), 0
        machine = Machine("gpu1")
        self.machine = machine
        world = doors_of(World({"gpu1": machine}), None)  # type: ignore[arg-type]
        doors = Doors(
            **{
                **{name: getattr(world, name) for name in world.__slots__},
                "talker": lan,
                "looks": Looks(lan),
                "clock": SystemClock(),
            }
        )
        self.watches = Watches(doors, tick_s, self.hears)

    def hears(self, host: str) -> None:
        self.told += 1
        self.news.set()

    def seen(self) -> SeenHost:
        return self.watches.host("gpu1")

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true, looking again with each piece of news."""
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, self.seen()
            self.news.wait(0.05)
            self.news.clear()

    def says(self, **changes: Any) -> None:
        """Have the host say a line on its newest channel."""
        report = report_of(self.machine, 0.0)
        line = {
            "format": 1,
            "watch": "w1",
            "n": 1,
            "boot_id": report.boot_id,
            "resumes": report.resumes,
            "up_s": 60.0,
            "readings": [{"signal": "load", "busy": False, "because": "it rests"}],
            "order": None,
            "fingerprint": None,
            "wol_armed": True,
            **changes,
        }
        self.until(lambda: bool(self.lan.channels))
        self.lan.channels[-1].said.put(json.dumps(line).encode())


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def start(tick_s: float = TICK_S, **settings: Any) -> Watched:
        lan = Lan()
        for name, value in settings.items():
            setattr(lan, name, value)
        made.append(Watched(lan, tick_s))
        made[-1].watches.start()
        return made[-1]

    yield start
    for one in made:
        one.watches.stop()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("watch")]


Watching = Callable[..., Watched]


def test_a_host_that_reports_talks_and_is_asked_a_little_more_often_than_a_tick(watched: Watching) -> None:
    one = watched(tick_s=30.0)
    one.says()
    one.until(lambda: one.seen().talking)
    assert one.lan.channels[0].heard == [{"every_s": 24.0}]
    assert one.lan.looks == 1 and one.seen().quiet_since is not None


def test_a_host_that_is_dark_is_looked_at_and_never_dialled(watched: Watching) -> None:
    one = watched(signs=DARK)
    one.until(lambda: one.lan.looks >= 3)
    seen = one.seen()
    assert one.lan.calls == 0
    assert not seen.talking and seen.signs == DARK and seen.dark_since is not None


def test_a_host_that_answers_again_is_talked_with(watched: Watching) -> None:
    one = watched(signs=DARK)
    one.until(lambda: one.lan.looks >= 1)
    one.lan.signs = ON
    one.says()
    one.until(lambda: one.seen().talking)
    assert one.seen().dark_since is None


def test_a_channel_that_falls_silent_is_given_up_and_the_host_is_looked_at(watched: Watching) -> None:
    one = watched()
    one.says()
    one.until(lambda: one.seen().talking)
    one.lan.signs = DARK
    one.until(lambda: one.seen().signs == DARK)
    assert one.lan.channels[0].closed.is_set() and len(one.lan.channels) == 1
    assert not one.seen().talking


@pytest.mark.parametrize(
    ("code", "reason"),
    [("host-key", "it does not prove the host key"), ("auth", "it refuses user labctl-agent")],
)
def test_a_host_that_refuses_us_is_asked_ever_more_rarely(watched: Watching, code: str, reason: str) -> None:
    one = watched(tick_s=0.1, refuses=HostError(Failure(code, reason, unreachable=True)))
    one.until(lambda: one.lan.looks >= 12)
    assert one.lan.calls < one.lan.looks
    assert one.seen().silent_because == reason and not one.seen().talking


@pytest.mark.parametrize("how", ["ends at once", "speaks another format"])
def test_an_agent_of_another_version_is_named_as_that(watched: Watching, how: str) -> None:
    one = watched()
    one.until(lambda: bool(one.lan.channels))
    if how == "ends at once":
        refusal = Failure("op-failed", "labctl's program ended there: labctl-agent: refused")
        one.lan.channels[0].said.put(HostError(refusal))
    else:
        one.says(format=99)
    one.until(lambda: one.seen().old_agent)
    assert "labctl apply brings the right one" in one.seen().silent_because


def test_what_no_agent_ever_said_ends_the_conversation_and_not_the_watch(watched: Watching) -> None:
    one = watched()
    one.until(lambda: bool(one.lan.channels))
    one.lan.channels[0].said.put(b"\xff{")
    one.until(lambda: len(one.lan.channels) > 1)
    one.says()
    one.until(lambda: one.seen().talking)


def test_a_host_in_flux_is_told_to_report_every_second_and_then_as_usual(watched: Watching) -> None:
    one = watched(tick_s=30.0)
    one.says()
    one.until(lambda: one.seen().talking)
    one.watches.pace({"gpu1"})
    one.watches.pace({"gpu1"})
    one.watches.pace(())
    assert one.lan.channels[0].heard == [{"every_s": 24.0}, {"every_s": 1.0}, {"every_s": 24.0}]


def test_news_are_a_new_channel_a_boot_and_a_word_on_an_order_and_not_each_line(watched: Watching) -> None:
    one = watched(tick_s=30.0)
    one.says()
    one.until(lambda: one.seen().talking)
    word = {"nonce": "0" * 32, "said": "going", "because": ""}
    for changes, is_news in (({}, False), ({"resumes": 1}, True), ({"resumes": 1, "order": word}, True)):
        before, told = one.seen().report, one.told
        one.says(**changes)
        one.until(lambda before=before: one.seen().report is not before)  # type: ignore[misc]
        if is_news:
            one.until(lambda told=told: one.told == told + 1)  # type: ignore[misc]
        assert one.told == told + is_news


def test_caps_and_freed_cards_are_kept_while_the_host_stays_as_it_is(watched: Watching) -> None:
    one = watched(tick_s=30.0)
    one.says()
    one.until(lambda: one.seen().talking)
    one.watches.capped("gpu1", {"card0": 200})
    one.watches.unloaded("gpu1")
    one.says(n=2)
    assert (dict(one.seen().caps_w), one.seen().unloaded) == ({"card0": 200}, True)


def test_a_conversation_that_opens_after_the_end_is_closed_and_its_thread_ends() -> None:
    lan, opens, asked = Lan(), threading.Event(), threading.Event()
    talk = lan.talk

    def late(*args: Any, **named: Any) -> Channel:
        asked.set()
        assert opens.wait(PATIENCE_S)
        return talk(*args, **named)

    lan.talk = late  # type: ignore[method-assign]
    one = Watched(lan, TICK_S)
    one.watches.start()
    assert asked.wait(PATIENCE_S)
    thread = next(each for each in threading.enumerate() if each.name == "watch gpu1")
    one.watches.stop(0.0)
    opens.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and lan.channels[0].closed.is_set()


def test_an_act_that_asks_for_a_host_after_the_end_sees_nothing_of_it(watched: Watching) -> None:
    one = watched()
    one.watches.stop()
    one.watches.capped("gpu1", {"gpu0": 200})
    one.watches.unloaded("gpu1")
    assert one.seen() == SeenHost("gpu1", float("-inf"))


def test_hosts_that_hang_hold_up_the_end_once_and_not_one_after_the_other() -> None:
    world, waits = World({"gpu1": Machine("gpu1")}), []

    def hangs(seconds: float) -> None:
        waits.append(seconds)
        world.advance(seconds)

    watches = Watches(doors_of(world, None), 30.0, lambda host: None)  # type: ignore[arg-type]
    one = SimpleNamespace(stop=lambda: None, join=hangs)
    watches._watches = dict.fromkeys(("gpu1", "gpu2", "gpu3"), one)  # type: ignore[arg-type]
    watches.stop(5.0)
    assert waits == [5.0, 0.0, 0.0]
