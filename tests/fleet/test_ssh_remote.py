"""One command on one host over SSH: what it does, what it refuses, and how each failure is worded."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from loopback import NO_SUDO, Lan, host_key

from labctl.adapters import ssh
from labctl.adapters.ssh import SshRemote
from labctl.domain.failures import Failure, HostError
from labctl.ports import Said


def run(
    data: dict[str, Any], *argv: str, root: bool = False, stdin: bytes = b"", deadline_s: float = 10
) -> Said:
    return SshRemote().run("box", data, argv, root=root, stdin=stdin, deadline_s=deadline_s)


def failure(data: dict[str, Any], *argv: str, **options: Any) -> Failure:
    with pytest.raises(HostError) as caught:
        run(data, *argv, **options)
    return caught.value.failure


def test_words_reach_the_program_as_they_are_and_stdin_comes_along(lan: Lan) -> None:
    host = lan.start()
    said = run(host, "printf", "<%s>", "a b", "$HOME", "';id;'", "*")
    assert said == Said(0, b"<a b><$HOME><';id;'><*>", "")
    assert run(host, "cat", stdin=b"\x00\xff line\n").stdout == b"\x00\xff line\n"


def test_exit_status_and_both_streams_come_back_apart(lan: Lan) -> None:
    said = run(lan.start(), "sh", "-c", "echo out; echo err >&2; exit 7")
    assert said == Said(7, b"out\n", "err\n")


def test_a_lot_on_both_streams_at_once_does_not_block(lan: Lan) -> None:
    script = "head -c 300000 /dev/zero >&2; head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2"
    said = run(lan.start(), "sh", "-c", script)
    assert len(said.stdout) == 3_000_000
    assert len(said.stderr) == ssh.MOST_STDERR


def test_a_host_that_prints_without_end_is_cut_off(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "MOST_STDOUT", 1 << 20)
    found = failure(lan.start(), "head", "-c", "2000000", "/dev/zero")
    assert found.reason == "it printed more than 1 MiB and was cut off"


def test_root_is_become_by_sudo_only_where_it_is_asked_for(lan: Lan) -> None:
    host = lan.start()
    assert run(host, "sh", "-c", "echo ${AS_ROOT:-no}").stdout == b"no\n"
    assert run(host, "sh", "-c", "echo ${AS_ROOT:-no}", root=True).stdout == b"yes\n"


def test_a_key_that_opens_one_program_is_told_the_words_alone(lan: Lan) -> None:
    """The agent's door reads the line as its order, and would refuse a program, `env` or `sudo` before it."""
    host = {**lan.start(), "ssh_forced": True}
    run(host, "/usr/local/lib/labctl/agent.pyz", "caps", "--show", root=True)
    assert lan.hosts[0].commands == ["caps --show"]


def test_a_user_who_may_not_become_root_is_named_with_the_remedy(lan: Lan) -> None:
    lan.sudo(NO_SUDO)
    found = failure(lan.start(), "true", root=True)
    assert (found.code, found.unreachable) == ("no-sudo", True)
    assert "sudoers" in found.hint


def test_nothing_is_sent_to_a_host_with_another_key_than_the_pinned_one(lan: Lan) -> None:
    found = failure(lan.start(pinned=host_key()), "true")
    assert (found.code, found.unreachable) == ("host-key", True)
    assert "labctl enroll box --replace" in found.hint
    assert lan.hosts[0].commands == []


def test_a_host_without_a_pinned_key_is_not_even_dialled(lan: Lan) -> None:
    host = lan.start()
    lan.known_hosts.write_text("")
    assert failure(host, "true").hint == "labctl enroll box"
    assert lan.hosts[0].connections == 0


def test_connection_data_that_are_not_strict_are_refused(lan: Lan) -> None:
    loose = {**lan.start(), "ssh_strict_host_key_checking": "no"}
    assert "strict host key checking" in failure(loose, "true").reason
    assert lan.hosts[0].connections == 0


def test_a_key_that_opens_nothing_is_named_with_its_user(lan: Lan) -> None:
    host = lan.start()
    lan.hosts[0].authorized = "somebody else's"
    found = failure(host, "true")
    assert (found.code, found.unreachable) == ("auth", True)
    assert "refuses user admin" in found.reason


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "does not exist"),
        ("nonsense", 0o600, "is no private key"),
        ("", 0o644, "others may read"),
    ],
)
def test_a_private_key_that_cannot_serve_is_named(
    lan: Lan, content: str | None, mode: int, said: str
) -> None:
    host = lan.start()
    lan.key.unlink()
    if content is not None:
        lan.key.write_text(content)
        lan.key.chmod(mode)
    found = failure(host, "true")
    assert said in found.reason
    assert found.unreachable
    assert lan.hosts[0].connections == 0


def test_a_closed_port_is_unreachable(lan: Lan) -> None:
    lan.pin(1, host_key())
    found = failure(lan.data(1), "true")
    assert (found.code, found.unreachable) == ("timeout", True)
    assert "cannot be reached: Connection refused" in found.reason


def test_an_address_of_a_kind_that_this_machine_does_not_speak_is_passed_over(
    lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, real = lan.start(), socket.getaddrinfo
    strange = (99, socket.SOCK_STREAM, 6, "", ("::1", 22))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: [strange, *real(*args, **more)])
    assert run(host, "true").status == 0


def test_a_frozen_sshd_costs_the_deadline_and_no_more(lan: Lan) -> None:
    host = lan.start("silent")
    began = time.monotonic()
    found = failure(host, "true", deadline_s=0.5)
    assert time.monotonic() - began < 3
    assert (found.code, found.unreachable) == ("frozen", True)


def test_a_log_in_that_breaks_off_did_nothing(lan: Lan) -> None:
    found = failure(lan.start("hangs-up"), "true")
    assert found.unreachable


def test_a_command_that_hangs_is_given_up_at_the_deadline_and_may_have_done_it(lan: Lan) -> None:
    began = time.monotonic()
    found = failure(lan.start(), "sleep", "2", deadline_s=0.7)
    assert time.monotonic() - began < 3
    assert (found.code, found.unreachable) == ("timeout", False)
    assert "whether it was carried out is unknown" in found.reason


def test_a_connection_that_ends_after_the_command_came_leaves_its_outcome_open(lan: Lan) -> None:
    found = failure(lan.start("cuts"), "true")
    assert (found.code, found.unreachable) == ("connection-lost", False)


def stopped_while(data: dict[str, Any], begun: threading.Event | None, *argv: str) -> tuple[Failure, float]:
    """Stop a call that waits; return how it ended, and how long that took."""
    remote, ends = SshRemote(), []

    def call() -> None:
        try:
            remote.run("box", data, argv, root=False, stdin=b"", deadline_s=20)
        except HostError as error:
            ends.append(error.failure)

    thread = threading.Thread(target=call)
    thread.start()
    if begun is not None:
        assert begun.wait(10)
    else:
        time.sleep(0.3)
    began = time.monotonic()
    remote.stop()
    thread.join(10)
    return ends[0], time.monotonic() - began


def test_stopping_ends_a_wait_for_an_answer_and_says_that_it_was_asked(lan: Lan) -> None:
    host, begun = lan.start(), threading.Event()
    told = lan.hosts[0].commands

    class Noted(list[str]):
        def append(self, command: str) -> None:
            told.append(command)
            begun.set()

    lan.hosts[0].commands = Noted()
    found, took = stopped_while(host, begun, "sleep", "2")
    assert took < 1
    assert (found.code, found.unreachable) == ("interrupted", False)


def test_stopping_ends_a_wait_for_a_host_that_does_not_answer(lan: Lan) -> None:
    # A queue that is full drops further callers silently, as a host that is switched off does.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        lan.pin(port, host_key())
        found, took = stopped_while(lan.data(port), None, "true")
        for filler in fillers:
            filler.close()
    assert took < 1
    assert (found.code, found.unreachable) == ("interrupted", True)


def test_after_a_stop_nothing_is_begun_any_more(lan: Lan) -> None:
    host, remote = lan.start(), SshRemote()
    remote.stop()
    with pytest.raises(HostError) as caught:
        remote.run("box", host, ("true",), root=False, stdin=b"", deadline_s=5)
    assert caught.value.failure.code == "interrupted"
    assert lan.hosts[0].commands == []
