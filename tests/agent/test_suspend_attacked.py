"""What else may go wrong while a host is put to sleep: it never says one thing and does another."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from sleeping_host import SleepingHost

from labctl.agent import boottime, gate, lastlook, mend, sleeper, sleepfiles, suspend
from labctl.agent.calls import Ended
from labctl.agent.signals.terms import Reading
from labctl.domain.sleep import evidence


def overheard(host: SleepingHost) -> list[dict[str, Any]]:
    """Return what is said to a second controller that orders the same."""
    said: list[dict[str, Any]] = []
    reader, writer = os.pipe()
    os.write(writer, json.dumps({"how": "suspend", "lasts_s": 120}).encode() + b"\n")
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert suspend.converse(stream, said.append, host.root) == 1
    return said


def test_of_two_orders_at_once_one_is_talked_about(host: SleepingHost) -> None:
    heard: list[dict[str, Any]] = []

    def between(nonce: str) -> bytes:
        heard.extend(overheard(host))
        return json.dumps({"go": nonce}).encode() + b"\n"

    assert host.order(go=between) == 0
    assert heard == [{"refused": "somebody else is talking with this host about putting it to sleep"}]
    assert host.said[-1] == {"going": host.said[0]["nonce"]}
    assert host.log.count("logind SuspendWithFlags") == 1


def test_that_systemd_does_not_answer_is_no_sign_that_nobody_obeys(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspend, "_ALIVE_EVERY", 1)
    systemctl = host.root / "programs/systemctl"
    mute = f"case $* in *{suspend.UNIT}*) echo 'Failed to connect to bus' >&2; exit 1 ;; esac\n"
    systemctl.write_text(systemctl.read_text().replace("verb=$1\n", f"{mute}verb=$1\n"))
    assert host.order() == 0
    assert host.said[-1] == {"going": host.said[0]["nonce"]}
    assert (host.word().said, host.word().outcome) == ("going", "resumed")


@pytest.mark.parametrize("at", ["begin", "lock", "leaving", "called"])
def test_an_order_that_was_withdrawn_is_not_obeyed(host: SleepingHost, at: str) -> None:
    wish = suspend.Wish("suspend", 120.0)
    order = suspend._order(wish, "0" * 32, host.root)
    sleepfiles.save(order, host.root)
    host._told.set()

    def withdraw(name: str) -> None:
        if name == at:
            sleepfiles.save(order._replace(said="refused", step="over", because="killed"), host.root)

    assert sleeper.obey(host.root, withdraw) == 1
    assert "logind SuspendWithFlags" not in host.log
    assert (host.word().said, host.word().because) == ("refused", "the order was withdrawn")


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"lasts_s": "x"},
            {"at_s": None},
            {"units": 5},
            {"how": "dance"},
            {"how": "unload"},
            {"gap_s": "x"},
        ),
        *({"rtc_at": "x"}, {"nonce": None}, {"force": 1}, {"said": ["going"]}, {"format": 2}, {"slept": 0.5}),
    ],
)
def test_what_is_no_order_of_ours_is_neither_obeyed_nor_in_the_way(
    host: SleepingHost, change: dict[str, Any]
) -> None:
    wish = suspend.Wish("suspend", 120.0)
    sleepfiles.save(suspend._order(wish, "0" * 32, host.root), host.root)
    kept = json.loads(host.file_text(sleepfiles.ORDER))
    host.file(sleepfiles.ORDER, json.dumps(kept | change))
    assert (sleeper.over(host.root), sleeper.obey(host.root)) == (0, 0)
    assert host.log == []
    assert host.order() == 0


@pytest.mark.parametrize("wol", ["x", {}, {"mac": 5}, [1]])
def test_a_card_that_is_not_understood_is_no_card_that_wakes(host: SleepingHost, wol: Any) -> None:
    host.settings({"sleep": {"wol": wol}})
    assert host.order() == 1
    assert host.said == [{"refused": "which network card wakes it is not understood: run labctl apply"}]


def test_a_look_that_breaks_is_a_refusal(host: SleepingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspend, "_require_able", lambda *given: 1 // 0)
    assert host.order() == 1
    (said,) = host.said
    assert said["refused"].startswith("this host could not look whether it may: ZeroDivisionError: ")
    assert host.log == ["lock", "free"]


@pytest.mark.parametrize("timeout", ["x", None, [], True, -1, float("inf"), float("nan")])
def test_a_gate_that_may_take_a_time_that_is_none_still_looks(host: SleepingHost, timeout: Any) -> None:
    host.settings({"gate": {"timeout_s": timeout}})
    assert gate.passed(host.root)["broken"] == []


def test_a_disk_that_fills_up_meanwhile_leaves_the_host_serving_and_no_traceback(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.engines("labctl-a.service")
    monkeypatch.setattr(suspend, "_ALIVE_EVERY", 1)
    written, replace = [], sleepfiles.replace

    def full(path: Path, content: dict[str, Any], mode: int) -> None:
        written.append(path.name)
        if len(written) > 3:  # the order, its beginning, and what is to be stopped
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(path, content, mode)

    def start(how: str) -> str:
        with pytest.raises(OSError, match="No space left"):
            sleeper.obey(host.root)
        return ""

    monkeypatch.setattr(sleepfiles, "replace", full)
    assert host.order(start=start) == 2
    assert list(host.said[-1]) == ["ready", "nonce", "within_s"]
    assert "No space left on device" in capsys.readouterr().err
    assert host.serves
    assert "start labctl-a.service" in host.log
    assert "logind SuspendWithFlags" not in host.log


@pytest.mark.parametrize("signal", ["sessions", "console", "holds", "inhibitors", "packages", "downloads"])
@pytest.mark.parametrize("what", ["sleep", "reboot"])
def test_the_last_look_sees_people_and_whoever_changes_the_host(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch, signal: str, what: str
) -> None:
    if (signal, what) == ("inhibitors", "reboot"):
        return  # logind itself refuses that one
    looks: list[tuple[str, ...] | None] = []

    def looked(config: Any, root: Path, names: tuple[str, ...] | None = None) -> list[Reading]:
        looks.append(names)
        return [Reading(signal, names is not None and signal in names, "apt holds /var/lib/dpkg/lock")]

    monkeypatch.setattr(lastlook, "looked", looked)
    if what == "reboot":
        host.settings({"gate": {"reboot": True}})
        failed = mend.mended("reboot", host.root)["failed"]
        assert failed == "it is not rebooted under somebody's hands: apt holds /var/lib/dpkg/lock"
        return
    assert host.order() == 0  # it was leaving already when the lock was seen
    assert looks[:2] == [None, None] and len(looks) == 3
    assert (host.word().said, host.word().because) == ("refused", "apt holds /var/lib/dpkg/lock")
    assert "logind SuspendWithFlags" not in host.log


def test_an_order_is_as_old_as_the_word_to_go_however_long_the_agent_stood_still(
    host: SleepingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    then, stood_s, slept = boottime.now_s, [0.0], boottime.slept

    def stopped(root: Path) -> boottime.Slept:
        stood_s[0] = 300.0  # SIGSTOP between the word and the order
        return slept(root)

    monkeypatch.setattr(boottime, "now_s", lambda: then() + stood_s[0])
    monkeypatch.setattr(sleepfiles, "now_s", lambda: then() + stood_s[0])
    monkeypatch.setattr(boottime, "slept", stopped)
    assert host.order() == 1
    assert host.said[-1] == {"refused": "the order is older than 120 s"}
    assert "logind SuspendWithFlags" not in host.log


def test_systemd_ends_a_sleeper_that_stands_still_before_its_order_counts_as_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def called(*argv: str, within_s: float) -> Ended:
        asked.extend(argv)
        return Ended(0, "", "")

    monkeypatch.setattr(suspend, "call", called)
    assert suspend._by_systemd(120.0, "suspend") == ""
    assert "--property=RuntimeMaxSec=135" in asked
    assert suspend._GRACE_S < evidence.MARGIN_S
