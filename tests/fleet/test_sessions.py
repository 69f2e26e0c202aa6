"""Many hosts at once: everyone is asked, everyone gets one answer, and nobody waits for a slower one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from loopback import Lan
from scripted import LOST, OFF, Asked, Scripted, fails, says

from labctl.adapters.ssh import SshRemote
from labctl.domain.problem import LabctlError
from labctl.fleet import sessions
from labctl.fleet.sessions import Answer, Question
from labctl.ports import Said

QUESTION = Question(("true",))


def test_every_host_gets_its_own_question_and_answers_come_in_the_order_of_the_hosts() -> None:
    remote = Scripted({"a": says(1), "b": fails(LOST)})
    hosts = {"c": {}, "b": {}, "a": {}}
    answers = sessions.ask(hosts, lambda host: Question((host,), host.encode(), True), remote, deadline_s=5)
    assert list(answers) == ["c", "b", "a"]
    assert answers["a"].said == Said(0, b"1\n", "")
    assert (answers["b"].failure, answers["c"].failure) == (LOST, OFF)
    assert {(one.host, one.argv, one.stdin, one.root) for one in remote.asked} == {
        (host, (host,), host.encode(), True) for host in hosts
    }


def test_a_slow_host_keeps_nobody_from_answering() -> None:
    order: list[str] = []
    others = threading.Event()

    def slow(asked: Asked) -> Said:
        assert others.wait(10)
        return Said(0, b"", "")

    def heard(answer: Answer) -> None:
        order.append(answer.host)
        if len(order) == 2:
            others.set()

    remote = Scripted({"slow": slow, "a": says({}), "b": says({})})
    sessions.ask({"slow": {}, "a": {}, "b": {}}, QUESTION, remote, deadline_s=5, on_answer=heard)
    assert order[-1] == "slow"


def test_a_ctrl_c_stops_the_rest_and_keeps_what_is_known() -> None:
    remote = Scripted()
    remote.plays = {"quick": says({}), "stuck": remote.waits}

    def interrupt(answer: Answer) -> None:
        raise KeyboardInterrupt

    answers = sessions.ask({"stuck": {}, "quick": {}}, QUESTION, remote, deadline_s=5, on_answer=interrupt)
    assert remote.stopped.is_set()
    assert answers["quick"].said is not None
    assert answers["stuck"].failure is not None
    assert answers["stuck"].failure.code == sessions.INTERRUPTED


def test_a_host_that_says_nothing_even_when_given_up_is_marked_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_LAST_WORDS_S", 0.05)
    end = threading.Event()

    def deaf(asked: Asked) -> Said:
        end.wait(10)
        return Said(0, b"", "")

    def interrupt(answer: Answer) -> None:
        raise KeyboardInterrupt

    remote = Scripted({"deaf": deaf, "quick": says({})})
    answers = sessions.ask({"deaf": {}, "quick": {}}, QUESTION, remote, deadline_s=5, on_answer=interrupt)
    end.set()
    assert answers["deaf"].failure is not None
    assert "unknown" in answers["deaf"].failure.reason


def test_a_bug_in_a_thread_is_not_taken_for_an_answer() -> None:
    def broken(asked: Asked) -> Said:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sessions.ask({"a": {}}, QUESTION, Scripted({"a": broken}), deadline_s=5)


def test_hosts_without_a_pinned_key_are_all_named_before_anything_is_sent(tmp_path: Path) -> None:
    data = {"ssh_known_hosts_file": str(tmp_path / "none"), "ssh_hostname": "10.0.0.1", "ssh_port": 22}
    with pytest.raises(LabctlError) as caught:
        sessions.require_enrolled({"a": data, "b": data})
    assert str(caught.value) == (
        "these hosts have no pinned host key: a, b (compare and pin: labctl enroll a b)"
    )


def test_twenty_real_connections_at_once_are_one_each(lan: Lan) -> None:
    hosts = {f"n{number}": lan.start() for number in range(20)}
    answers = sessions.ask(hosts, Question(("cat",), b"hello"), SshRemote(), deadline_s=20)
    assert {answer.said for answer in answers.values()} == {Said(0, b"hello", "")}
    assert [host.connections for host in lan.hosts] == [1] * 20
    assert [len(host.commands) for host in lan.hosts] == [1] * 20
