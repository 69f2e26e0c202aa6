"""A host sleeps only when it agrees, is told to go in time, and nobody came in between; else it serves."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sleeping_host import SleepingHost

from labctl.agent import boottime, computing, lastlook, sleeper, sleepfiles, suspend
from labctl.agent.signals.terms import Reading
from labctl.lab.processes import wait_until

QUIET = [Reading("sessions", False, "nobody is logged in")]
BUSY = [Reading("sessions", True, "ann is logged in from 10.0.0.5")]
UNREADABLE = [Reading("gpu", None, "NVML does not answer")]


def test_a_quiet_host_goes_to_sleep_and_says_so_before(host: SleepingHost) -> None:
    assert host.order() == 0
    ready, going = host.said
    assert (ready["ready"], ready["within_s"]) == (True, 5)
    assert len(ready["nonce"]) == 32
    assert going == {"going": ready["nonce"]}
    assert host.log == ["lock", "lock", "free", "free", "logind SuspendWithFlags"] or host.log == [
        *("lock", "free", "lock", "free", "logind SuspendWithFlags")
    ]
    word = host.word()
    assert (word.nonce, word.said, word.outcome, word.because) == (ready["nonce"], "going", "resumed", "")


def test_the_word_is_written_down_before_anything_is_done(host: SleepingHost) -> None:
    seen: list[Any] = []
    host.engines("labctl-a.service")

    def start(how: str) -> str:
        seen.append((host.word().said, host.word().step, host.log))
        return "no systemd"

    assert host.order(start=start) == 1
    assert seen == [("going", "accepted", ["lock"])]
    assert host.said[-1] == {"refused": "nothing could be started that does it: no systemd"}
    assert host.word().said == "refused"
    assert host.serves


@pytest.mark.parametrize(
    ("readings", "reason"),
    [(BUSY, "ann is logged in from 10.0.0.5"), (UNREADABLE, "gpu cannot be read: NVML does not answer")],
)
@pytest.mark.parametrize("looks_before", [0, 1, 2])
def test_use_that_is_seen_at_any_look_keeps_it_awake(
    host: SleepingHost, readings: list[Reading], reason: str, looks_before: int
) -> None:
    host.engines("labctl-a.service", "labctl-b.service")
    host.signals = [QUIET] * looks_before + [readings]
    host.order()
    if looks_before < 2:
        assert host.said[-1] == {"refused": reason}
    if looks_before:
        assert (host.word().said, host.word().because) == ("refused", reason)
    assert "logind SuspendWithFlags" not in host.log
    assert host.serves


def test_force_skips_what_counts_as_use_and_nothing_else(host: SleepingHost) -> None:
    host.signals = [BUSY]
    assert host.order(force=True) == 0
    assert host.word().outcome == "resumed"
    host.file("sys/power/state", "freeze\n")
    host.settings({"sleep": {"wol": {"mac": "52:54:00:00:00:02"}}})
    assert host.order(force=True) == 1
    assert host.said[-1] == {
        "refused": "no network card has the MAC 52:54:00:00:00:02 that Wake-on-LAN would call"
    }


def test_without_the_word_to_go_nothing_happens(host: SleepingHost) -> None:
    host.engines("labctl-a.service")
    assert host.order(go=False) == 2
    assert host.log == ["lock", "free"]
    assert not (host.root / sleepfiles.ORDER).exists()
    assert host.serves


@pytest.mark.parametrize(
    "word",
    [
        lambda nonce: json.dumps({"go": nonce[::-1]}).encode() + b"\n",
        lambda nonce: json.dumps({"go": nonce, "force": True}).encode() + b"\n",
        lambda nonce: json.dumps({"go": True}).encode() + b"\n",
        lambda nonce: nonce.encode() + b"\n",
        lambda nonce: b"[]\n",
        lambda nonce: b"\n",
        lambda nonce: b"\xff\n",
    ],
)
def test_another_word_is_refused(host: SleepingHost, word: Any) -> None:
    assert host.order(go=word) == 1
    assert list(host.said[-1]) == ["refused"]
    assert host.log == ["lock", "free"]
    assert not (host.root / sleepfiles.ORDER).exists()


def test_a_word_that_comes_too_late_is_none(host: SleepingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(nonce: str) -> bytes:
        then = boottime.now_s
        monkeypatch.setattr(boottime, "now_s", lambda: then() + suspend.WITHIN_S + 0.1)
        return json.dumps({"go": nonce}).encode() + b"\n"

    assert host.order(go=late) in (1, 2)
    assert "logind SuspendWithFlags" not in host.log
    assert not (host.root / sleepfiles.ORDER).exists()


def test_an_order_that_took_too_long_is_dead(host: SleepingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.engines("labctl-a.service")
    then, at = boottime.now_s, [0.0]
    monkeypatch.setattr(boottime, "now_s", lambda: then() + at[0])
    monkeypatch.setattr(sleepfiles, "now_s", lambda: then() + at[0])

    def start(how: str) -> str:
        at[0] = 121.0
        sleeper.obey(host.root)
        at[0] = 0.0
        return ""

    assert host.order(start=start) == 1
    assert host.said[-1] == {"refused": "the order is older than 120 s"}
    assert host.serves
    assert "logind SuspendWithFlags" not in host.log


def test_what_stands_of_an_earlier_boot_is_not_obeyed(host: SleepingHost) -> None:
    accept(host)
    host.file("proc/sys/kernel/random/boot_id", "the-next-boot\n")
    sleeper.obey(host.root)
    assert host.word().said == "refused"
    assert "logind SuspendWithFlags" not in host.log


def test_an_order_is_obeyed_once(host: SleepingHost) -> None:
    host.order()
    calls = len(host.log)
    assert sleeper.obey(host.root) == 0
    assert sleeper.over(host.root) == 0
    assert len(host.log) == calls


def test_a_second_order_waits_for_the_first(host: SleepingHost) -> None:
    first = suspend._order(suspend.Wish("suspend", 120.0), "0" * 32, host.root)
    sleepfiles.save(first, host.root)
    assert host.order() == 1
    assert host.said == [{"refused": "another order to sleep is under way"}]
    assert host.word().nonce == "0" * 32


def test_an_order_that_was_never_started_is_not_obeyed_in_place_of_another(host: SleepingHost) -> None:
    accept(host)  # and the conversation died
    assert host.order(how="unload") == 0
    assert "logind SuspendWithFlags" not in host.log
    assert host.word(sleepfiles.UNLOAD).outcome == "unloaded"


# --- what becomes of it ---


def test_a_lock_of_somebody_else_is_respected(host: SleepingHost) -> None:
    host.engines("labctl-a.service")
    (host.state / "locks/backup").touch()
    assert host.order() == 0
    word = host.word()
    assert word.said == "failed"
    assert word.because == "logind refused to suspend: Operation denied due to active block inhibitor"
    (host.state / "locks/backup").unlink()
    assert host.serves


@pytest.mark.parametrize("before", [[], [None]])
def test_a_lock_that_logind_would_pass_over_is_respected_also_under_force(
    host: SleepingHost, before: list[str | None]
) -> None:
    host.locks = [*before, "backup blocks sleep: it runs"]
    host.order(force=True)
    assert (host.word().said, host.word().because) == ("refused", "backup blocks sleep: it runs")
    assert "logind SuspendWithFlags" not in host.log


def test_roots_own_lock_is_read_from_loginds_files(tmp_path: Path) -> None:
    folder = tmp_path / "run/systemd/inhibit"
    assert "cannot be read" in (lastlook.locked_because(tmp_path) or "")
    folder.mkdir(parents=True)
    for name, mode, who in (("1", "block", "labctl-agent"), ("2", "delay", "nm"), ("3.ref", "block", "x")):
        (folder / name).write_text(f"WHAT=sleep\nMODE={mode}\nUID=0\nPID=1\nWHO={who}\nWHY=w\n")
    assert lastlook.locked_because(tmp_path) is None
    (folder / "4").write_text("WHAT=sleep\nMODE=block\nUID=0\nPID=1\nWHO=backup\nWHY=it\\x20runs\n")
    assert lastlook.locked_because(tmp_path) == "backup blocks sleep: it runs"


def test_a_host_that_took_the_order_and_did_not_sleep_says_so(host: SleepingHost) -> None:
    host.engines("labctl-a.service")
    (host.state / "insomnia").touch()
    host.order()
    word = host.word()
    assert (word.said, word.because) == (
        "failed",
        "it did not suspend: systemd took the order, and the kernel counted no sleep",
    )
    assert host.serves


def test_a_unit_that_failed_is_the_reason(host: SleepingHost) -> None:
    (host.state / "insomnia").touch()
    host.file("state/result", "exit-code\n")
    host.order()
    assert "systemd-suspend.service failed (exit-code)" in host.word().because


def test_failed_is_said_only_when_it_cannot_sleep_any_more(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logind is still at it when the order is over: it is called off first, and only then it failed."""
    (host.state / "insomnia").touch()
    (host.state / "preparing").touch()
    then, at = boottime.now_s, [0.0]
    monkeypatch.setattr(sleepfiles, "now_s", lambda: then() + at[0])
    words: list[tuple[str, bool]] = []
    save = sleepfiles.save

    def saved(order: Any, root: Any) -> None:
        words.append((order.said, (host.state / "preparing").exists()))
        save(order, root)
        if order.step == sleepfiles.CALLED:
            at[0] = 500.0

    monkeypatch.setattr(sleepfiles, "save", saved)
    host.order()
    assert ("failed", False) in words
    assert ("failed", True) not in words
    assert "stop systemd-suspend.service" in host.log
    assert host.word().because == "it did not suspend: it was called off, since the order was too old"


def test_what_ran_before_the_sleep_runs_after_it(host: SleepingHost) -> None:
    host.engines("labctl-a.service", "labctl-b.service", "labctl-c.service")
    host.unit("labctl-b.service", "inactive")
    host.order()
    acts = [line for line in host.log if line.split()[0] in ("stop", "start", "logind")]
    assert acts == [
        "stop labctl-c.service",
        "stop labctl-a.service",
        "logind SuspendWithFlags",
        "start labctl-a.service",
        "start labctl-c.service",
    ]
    assert not (host.root / sleepfiles.STOPPED).exists()


def test_an_engine_that_does_not_stop_keeps_the_host_awake(host: SleepingHost) -> None:
    host.engines("labctl-a.service", "labctl-b.service")
    (host.state / "stuck").touch()
    assert host.order() == 1
    assert host.said[-1] == {"refused": "labctl-b.service does not stop: labctl-b.service: timeout"}
    assert host.serves


def test_who_still_computes_keeps_the_host_awake(host: SleepingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.engines("labctl-a.service")
    monkeypatch.setattr(computing, "use", lambda root: computing.Use(((77, "train.py"),), 1 << 30))
    assert host.order() == 1
    assert host.said[-1] == {"refused": "still computing on a card after all was unloaded: 77 train.py"}
    assert host.serves


def test_a_program_that_may_hold_a_card_is_no_hindrance(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.engines("labctl-a.service", signals={"gpu_idle_programs": ["Xorg"]})
    monkeypatch.setattr(computing, "use", lambda root: computing.Use(((77, "Xorg"),), 0))
    assert host.order() == 0


def test_unload_frees_the_cards_and_leaves_it_on(host: SleepingHost) -> None:
    host.engines("labctl-a.service")
    assert host.order(how="unload") == 0
    assert host.said[-1] == {"going": host.said[0]["nonce"], "unloaded": True}
    assert "logind SuspendWithFlags" not in host.log
    assert host.log.count("stop labctl-a.service") == 1
    assert not (host.root / sleepfiles.ORDER).exists()
    assert host.word(sleepfiles.UNLOAD).outcome == "unloaded"
    assert json.loads((host.root / sleepfiles.STOPPED).read_text())["units"] == ["labctl-a.service"]


def test_off_by_power_needs_nothing_unloaded(host: SleepingHost) -> None:
    host.engines("labctl-a.service")
    (host.state / "insomnia").touch()
    host.order(how="power-off")
    assert "logind PowerOffWithFlags" in host.log
    assert "stop labctl-a.service" not in host.log


# --- the alarm ---


def test_the_alarm_is_set_before_the_sleep_in_the_clocks_own_time(host: SleepingHost) -> None:
    alarm = host.alarm()
    host.file("sys/class/rtc/rtc0/since_epoch", f"{int(time.time()) + 7200}\n")  # a clock in local time
    due = time.time() + 3600
    (host.state / "note-alarm").symlink_to(alarm)
    assert host.order(rtc_at=due) == 0
    assert abs(int(host.file_text("state/alarm-noted")) - (due + 7200)) <= 2
    assert alarm.read_text() == "0", "it would wake the next sleep"


def test_a_host_without_a_clock_that_wakes_it_goes_without_an_alarm(host: SleepingHost) -> None:
    assert host.order(rtc_at=time.time() + 3600) == 0
    assert host.word().outcome == "resumed"


def test_a_clock_that_does_not_keep_the_alarm_keeps_the_host_awake(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = host.alarm()
    alarm.unlink()
    alarm.symlink_to("/dev/null")
    assert host.order(rtc_at=time.time() + 3600) == 1
    assert host.said[-1]["refused"].startswith("the clock shows another alarm than was set (None instead of ")


def test_an_alarm_that_is_over_is_refused(host: SleepingHost) -> None:
    host.alarm()
    assert host.order(rtc_at=time.time() + 30) == 1
    assert host.said == [{"refused": "the time to wake up again is over, or less than a minute away"}]


def test_a_host_that_stays_awake_has_no_alarm(host: SleepingHost) -> None:
    alarm = host.alarm()
    host.signals = [QUIET, QUIET, BUSY]
    host.order(rtc_at=time.time() + 3600)
    assert host.word().said == "refused"
    assert alarm.read_text() == "0"


# --- the kernel, systemd and the card ---


def test_the_way_to_sleep_to_memory_is_chosen_and_taken_back_where_it_stays_awake(host: SleepingHost) -> None:
    way = host.file("sys/power/mem_sleep", "s2idle [deep]\n")
    assert host.order(mem_sleep="s2idle") == 0
    assert (way.read_text(), host.word().mem_was) == ("s2idle", "deep")
    way.write_text("s2idle [deep]\n")
    (host.state / "insomnia").touch()
    host.order(mem_sleep="s2idle")
    assert way.read_text() == "deep"
    way.write_text("[s2idle]\n")
    assert host.order(mem_sleep="deep") == 1
    assert host.said[-1] == {"refused": "the kernel cannot sleep to deep: /sys/power/mem_sleep has s2idle"}


@pytest.mark.parametrize(
    ("how", "states", "said"),
    [
        ("suspend", "disk", "the kernel cannot suspend: /sys/power/state has disk"),
        ("suspend", "", "the kernel cannot suspend: /sys/power/state has nothing"),
        ("hibernate", "freeze mem", "the kernel cannot hibernate: /sys/power/state has freeze mem"),
        ("hibernate", "mem disk", "there is no swap on a disk to hibernate to"),
    ],
)
def test_what_the_kernel_cannot_is_refused(host: SleepingHost, how: str, states: str, said: str) -> None:
    host.file("sys/power/state", states)
    host.file("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 999 0 5\n")
    assert host.order(how=how) == 1
    assert host.said == [{"refused": said}]
    assert host.log == []


def test_hibernation_to_a_disk_is_done(host: SleepingHost) -> None:
    host.file("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 999 0 5\n")
    assert host.order(how="hibernate") == 0
    assert "logind HibernateWithFlags" in host.log


def test_what_systemd_forbids_is_refused(host: SleepingHost) -> None:
    host.file("state/can", "no")
    assert host.order() == 1
    assert host.said == [
        {"refused": "systemd does not suspend here (logind says 'no'): look at /etc/systemd/sleep.conf"}
    ]


def test_a_card_that_lost_its_flag_is_armed_again(host: SleepingHost) -> None:
    host.wol["eth0"] = ""
    host.file("sys/class/net/eth0/device/power/wakeup", "disabled")
    assert host.order() == 0
    assert host.wol["eth0"] == "g"
    assert (host.root / "sys/class/net/eth0/device/power/wakeup").read_text() == "enabled"


def test_a_card_that_cannot_wake_keeps_the_host_awake(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.wol["eth0"] = ""
    monkeypatch.setattr("labctl.agent.wakers._set_magic", lambda name: None)
    assert host.order() == 1
    assert host.said == [{"refused": "eth0 does not keep its Wake-on-LAN flag (it shows d)"}]
    monkeypatch.setattr("labctl.agent.wakers.read_flags", lambda name: ("", ""))
    assert host.order() == 1
    assert host.said[-1] == {"refused": "eth0 does not do Wake-on-LAN (g is not in nothing)"}


def test_unloading_asks_for_no_way_to_wake(host: SleepingHost) -> None:
    host.settings({"sleep": {"wol": {"mac": "52:54:00:00:00:02"}}})
    assert host.order(how="unload") == 0


def test_without_a_lock_nobody_sleeps(host: SleepingHost) -> None:
    (host.state / "no-lock").touch()
    assert host.order() == 1
    assert host.said == [
        {"refused": "logind gives no inhibitor lock, so nothing would keep others from putting it to sleep"}
    ]


def test_without_settings_nobody_sleeps(host: SleepingHost) -> None:
    for content in (None, "{", "[]"):
        path = host.root / "etc/labctl/agent.json"
        path.unlink() if content is None else path.write_text(content)
        assert host.order() == 1
        assert "/etc/labctl/agent.json" in host.said[-1]["refused"]
        path.touch()


# --- what is no order ---

_ORDER = {"how": "suspend", "lasts_s": 120}


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (b"", "the order is not JSON"),
        (b"{}", "how must be one of suspend, hibernate, power-off, unload"),
        (b"null", "the order is no object"),
        (b'{"how":"suspend","how":"unload","lasts_s":9}', "the order is not JSON"),
        (b"[" * 9000, "the order is not JSON"),
        (b"\xff\xfe", "the order is not JSON"),
        (b'"' + b"x" * 20000 + b'"', "the order is longer than 16384 bytes"),
        ({**_ORDER, "how": "reboot"}, "how must be one of suspend, hibernate, power-off, unload"),
        ({**_ORDER, "how": ["suspend"]}, "how must be one of suspend, hibernate, power-off, unload"),
        ({**_ORDER, "lasts_s": 9}, "lasts_s must be a number from 10 to 600"),
        ({**_ORDER, "lasts_s": True}, "lasts_s must be a number from 10 to 600"),
        ({**_ORDER, "lasts_s": float("nan")}, "lasts_s must be a number from 10 to 600"),
        ({**_ORDER, "lasts_s": None}, "lasts_s must be a number from 10 to 600"),
        ({**_ORDER, "force": 1}, "force must be true or false"),
        ({**_ORDER, "rtc_at": "soon"}, "rtc_at must be a time in seconds since 1970, or null"),
        ({**_ORDER, "rtc_at": float("inf")}, "rtc_at must be a time in seconds since 1970, or null"),
        ({**_ORDER, "units": "ssh.service"}, "units must be a list of names"),
        ({**_ORDER, "units": ["ssh.service"]}, "the order names a unit that is no engine of this host"),
        ({**_ORDER, "mem_sleep": "mem"}, "mem_sleep is for suspend, and one of deep, s2idle, shallow"),
        (
            {**_ORDER, "how": "hibernate", "mem_sleep": "deep"},
            "mem_sleep is for suspend, and one of deep, s2idle, shallow",
        ),
        ({**_ORDER, "argv": ["sh"]}, "the order has a field that this agent does not know: 'argv'"),
    ],
)
def test_what_is_no_order_is_refused(host: SleepingHost, order: Any, said: str) -> None:
    raw = order if isinstance(order, bytes) else json.dumps(order).encode()
    assert host.order(raw=raw) == 1
    assert host.said == [{"refused": said}]
    assert host.log == []


def test_no_order_at_all_is_refused(host: SleepingHost) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert suspend.converse(stream, host.said.append, host.root) == 1
    assert host.said == [{"refused": "no order came"}]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_order_are_a_refusal_and_nothing_else(line: bytes) -> None:
    with pytest.raises(suspend.Refusal):
        suspend.wish_of(line)


# --- power cuts ---


def test_what_is_killed_with_all_that_it_started_is_put_right_by_the_conversation(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.engines("labctl-a.service")
    monkeypatch.setattr(suspend, "_ALIVE_EVERY", 1)

    def start(how: str) -> str:
        pid = os.fork()
        if pid == 0:
            obey_until(host, 4)
        os.waitpid(pid, 0)
        return ""

    assert host.order(start=start) == 1
    assert host.said[-1] == {
        "refused": "the process that was to put it to sleep was killed, or took too long"
    }
    assert "stop labctl-a.service" in host.log
    assert "start labctl-a.service" in host.log


def test_a_conversation_that_is_killed_leaves_no_lock_and_no_order(host: SleepingHost) -> None:
    host.engines("labctl-a.service")
    reader, writer = os.pipe()
    heard, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            suspend.converse(stream, lambda line: os.write(tell, b"said\n") and None, host.root)
        os._exit(0)
    os.write(writer, json.dumps(_ORDER).encode() + b"\n")
    assert os.read(heard, 10) == b"said\n"
    assert len(list((host.state / "locks").iterdir())) == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert wait_until(lambda: host.log == ["lock", "free"], within=10)
    assert not (host.root / sleepfiles.ORDER).exists()
    assert host.serves
    for end in (reader, writer, heard, tell):
        os.close(end)


def effects(host: SleepingHost) -> list[str]:
    """Return the effects of an order, in their order."""
    seen: list[str] = []
    accept(host)
    host._told.set()
    sleeper.obey(host.root, seen.append)
    return seen


def accept(host: SleepingHost) -> None:
    """Write down an order, as the conversation does."""
    wish = suspend.Wish("suspend", 120.0, rtc_at=time.time() + 3600)
    sleepfiles.save(suspend._order(wish, os.urandom(16).hex(), host.root), host.root)


def obey_until(host: SleepingHost, at: int) -> NoReturn:
    """Obey, and die at an effect as by kill -9."""
    seen: list[str] = []

    def cut(name: str) -> None:
        seen.append(name)
        if len(seen) > at:
            os._exit(9)

    try:
        sleeper.obey(host.root, cut)
    finally:
        os._exit(0)


def test_killed_at_any_effect_the_host_serves_and_says_what_became_of_it(host: SleepingHost) -> None:
    host.alarm()
    host.engines("labctl-a.service", "labctl-b.service")
    points = effects(host)
    assert points == [
        *("begin", "lock", "remember", "stop labctl-b.service", "stop labctl-a.service", "alarm"),
        *("leaving", "called", "asleep"),
    ]
    for at in range(len(points)):
        slept_before = boottime.slept(host.root).times
        accept(host)
        pid = os.fork()
        if pid == 0:
            obey_until(host, at)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert host.word().said == "going"
        assert sleeper.over(host.root) == 0
        word = host.word()
        slept = boottime.slept(host.root).times > slept_before
        assert slept == (points[at] == "asleep")
        assert (word.said, word.step) == (("going", "over") if slept else ("refused", "over")), points[at]
        assert (word.outcome == "resumed") == slept
        units = {path.name: path.read_text() for path in (host.state / "units").iterdir()}
        assert set(units.values()) == {"active\n"}, points[at]
        assert not (host.root / sleepfiles.STOPPED).exists()
