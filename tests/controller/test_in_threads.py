"""The controller put together as it runs: threads, a loop, systemd's socket, and an orderly end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lying_rack import FakeObserver, World, doors_of, host_policy, policy_of, proven, world_of

from labctl.adapters.clock import SystemClock
from labctl.adapters.notify import SystemdNotify
from labctl.adapters.store import open_store
from labctl.controller import run as running
from labctl.controller.hands import MOST, Threads
from labctl.controller.run import Parts, assembled
from labctl.controller.service import Service
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import HostPolicy

PATIENCE_S = 20.0


def parts_of(folder: Path, *hosts: HostPolicy) -> tuple[Parts, World]:
    """Return a controller whose threads and clock are real, over hosts that are not."""
    policy = policy_of(*hosts, tick_s=5.0)
    world = world_of(policy)
    store = open_store(folder / "store.db", create=True)
    store.enlist(policy.hosts, now=0.0)
    proven(store, policy.hosts, 0.0)
    clock = SystemClock()
    world.mono, world.wall = clock.monotonic(), clock.now().timestamp()
    doors = replace(doors_of(world, store), clock=clock)
    parts = assembled(doors, policy, "threads")
    observer = Always(world, policy.tick_s)
    means = replace(parts.means, observer=observer)
    for part in (parts.loop, parts.service, parts.loop._recovery):
        part._means = means  # type: ignore[attr-defined]
    return replace(parts, means=means), world


class Always(FakeObserver):
    """Sees every host whenever it is asked."""

    def seen(self):  # type: ignore[no-untyped-def]
        self.world.mono = self.times.moment().mono
        self.look()
        return super().seen()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE_S)
        yield sock


def test_it_is_ready_after_its_first_tick_feeds_the_watchdog_and_stops_when_told(
    tmp_path: Path, told: socket.socket
) -> None:
    parts, _ = parts_of(tmp_path, host_policy("gpu1"))
    over, served, closed = threading.Event(), [], []

    def serve(service: Service):  # type: ignore[no-untyped-def]
        served.append(service)
        return lambda: closed.append(service)

    notify = SystemdNotify(str(tmp_path / "notify"))
    thread = threading.Thread(
        target=lambda: running.run(parts, over=over, notify=notify, serve=serve), daemon=True
    )
    thread.start()
    ready = told.recv(4096).decode()
    assert ready.startswith("READY=1\nSTATUS=leading") and "1 " in ready
    assert told.recv(4096).startswith(b"WATCHDOG=1\nSTATUS=leading")
    over.set()
    parts.loop.nudge()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and served == closed == [parts.service]
    with contextlib.suppress(TimeoutError):
        while not (last := told.recv(4096)).startswith(b"STOPPING=1"):
            assert last.startswith(b"WATCHDOG=1")
    reopened = open_store(tmp_path / "store.db", create=False)
    assert reopened.leading() is None
    reopened.close()


def test_a_wish_does_not_wait_for_the_tick(tmp_path: Path) -> None:
    """The tick is a minute away, and the packet has left."""
    parts, world = parts_of(tmp_path, host_policy("gpu1"))
    over = threading.Event()
    thread = threading.Thread(target=lambda: parts.loop.run(over, lambda: None), daemon=True)
    thread.start()
    reached(parts, "gpu1", Mode.READY)
    world.darken(world.machines["gpu1"], "asleep")
    row = parts.means.known("gpu1")
    term = parts.means.leader.term()
    now = parts.means.doors.wall()
    parts.means.doors.store.move(
        "gpu1", parts_event("lost"), "a test", version=row.version, term=term, now=now
    )
    sent = len(world.wakes)
    for change in parts.service.follow(parts.service.wake(["gpu1"], why="now", by="anna"), patience_s=1.0):
        if change is not None and change.mode is Mode.WAKING:
            break
    parts.hands.wait(PATIENCE_S)
    assert len(world.wakes) > sent
    over.set()
    parts.loop.nudge()
    thread.join(PATIENCE_S)
    parts.means.doors.store.close()


def parts_event(name: str):  # type: ignore[no-untyped-def]
    from labctl.domain.sleep.lifecycle import Event

    return Event(name)


def reached(parts: Parts, host: str, mode: Mode) -> None:
    for change in parts.service.watch([host], patience_s=PATIENCE_S):
        assert change is not None, f"{host} is not {mode} after {PATIENCE_S} s"
        if change.mode is mode:
            return


def test_one_host_whose_act_hangs_holds_up_no_other() -> None:
    hold, ended = threading.Event(), []
    hands = Threads(lambda host, error: ended.append((host, error)))
    hands.start("gpu1", "gate", lambda: hold.wait(PATIENCE_S) and None)
    assert not hands.free("gpu1") and hands.free("gpu2")
    hands.start("gpu2", "gate", lambda: None)
    assert hands.doing() == {"gpu1": "gate"} or hands.doing() == {"gpu1": "gate", "gpu2": "gate"}
    hold.set()
    assert hands.wait(PATIENCE_S) and hands.free("gpu1")
    assert {host for host, _ in ended} <= {"gpu1", "gpu2"}


def test_no_more_acts_run_at_once_than_the_box_bears() -> None:
    hold = threading.Event()
    hands = Threads(lambda host, error: None)
    for number in range(MOST):
        hands.start(f"gpu{number}", "gate", lambda: hold.wait(PATIENCE_S) and None)
    assert not hands.free("another")
    hold.set()
    assert hands.wait(PATIENCE_S)


def test_an_act_that_fails_is_told_of_and_ends_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "labctl.controller")
    parts, _ = parts_of(tmp_path, host_policy("gpu1"))
    parts.loop.done("gpu1", HostError(Failure("timeout", "it did not answer")))
    parts.loop.done("gpu1", ZeroDivisionError("division by zero"))
    assert any("it did not answer" in text for text in caplog.messages)
    assert any("which is a bug: ZeroDivisionError" in text for text in caplog.messages)
    assert "Traceback" not in caplog.text
    parts.means.doors.store.close()


def test_without_systemd_nothing_is_said_and_a_socket_that_is_gone_is_no_error(tmp_path: Path) -> None:
    SystemdNotify(None).ready("up")
    SystemdNotify(str(tmp_path / "nobody")).alive("up")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0labctl-test-{tmp_path.name}")
        SystemdNotify(f"@labctl-test-{tmp_path.name}").alive("two\nlines")
        assert abstract.recv(4096) == b"WATCHDOG=1\nSTATUS=two lines"


def test_a_host_for_which_no_thread_was_to_be_had_is_free_for_the_next_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = Threads(lambda host, error: None)

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError):
            hands.start("gpu1", "waking it", lambda: None)
    assert hands.free("gpu1") and hands.doing() == {}
    hands.start("gpu1", "waking it", lambda: None)
    assert hands.wait(PATIENCE_S)
