"""Fetching host keys from servers that behave, and from those that do not."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import paramiko
import pytest
from fake_sshd import Keys, Listen, Manners, Server, print_of, speaks_ssh

from labctl.adapters.hostkeys import Endpoint, fetch, fetch_all


def at(server: Server) -> Endpoint:
    return Endpoint(server.address, server.port)


def says(text: bytes, *, then_hangs: bool) -> Manners:
    """Return the manners of a server that says ``text`` and then hangs or closes."""

    def serve(connection: socket.socket, server: Server) -> None:
        connection.sendall(text)
        if then_hangs:
            server.stopping.wait()

    return serve


def dribbles(connection: socket.socket, server: Server) -> None:
    """Send a byte of an endless banner now and then, so that no single read times out."""
    try:
        while not server.stopping.wait(0.05):
            connection.sendall(b"a")
    except OSError:
        return


def test_every_kind_of_key_is_fetched_and_nobody_logs_in(listen: Listen, keys: Keys) -> None:
    server = listen(speaks_ssh(*keys.own.values()))
    answer = fetch(at(server))
    assert answer.failure == ""
    assert {key.keytype: key.fingerprint for key in answer.keys} == {
        "ssh-ed25519": print_of(keys.own["ed25519"]),
        "ecdsa-sha2-nistp256": print_of(keys.own["ecdsa"]),
        "ssh-rsa": print_of(keys.own["rsa"]),
    }
    assert server.connections == 3
    assert server.auth_attempts == []


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_with_one_kind_of_key_is_no_failure(listen: Listen, keys: Keys, kind: str) -> None:
    answer = fetch(at(listen(speaks_ssh(keys.own[kind]))))
    assert [key.fingerprint for key in answer.keys] == [print_of(keys.own[kind])]


@pytest.mark.parametrize(
    ("manners", "reason"),
    [
        (says(b"", then_hangs=True), "did not answer within"),
        (says(b"SSH-2.0-Open", then_hangs=True), "did not answer within"),
        (says(b"SSH-2.0-OpenSSH_9.9\r\n", then_hangs=True), "did not answer within"),
        (dribbles, "did not answer within"),
        (says(b"", then_hangs=False), "did not introduce itself as SSH"),
        (says(b"SSH-2.0-Open", then_hangs=False), "did not introduce itself as SSH"),
        (says(b"SSH-2.0-OpenSSH_9.9\r\n", then_hangs=False), "closed the connection before it showed a key"),
        (
            says(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 101, then_hangs=False),
            "did not introduce itself as SSH",
        ),
        (says(b"\xff\xfe\x00\n" * 200, then_hangs=False), "port"),
        (says(b"SSH-1.5-ancient\r\n", then_hangs=True), "no algorithm in common"),
        (says(b"SSH-2.0-x\r\n" + b"\xff" * 4096, then_hangs=True), "port"),
    ],
    ids=lambda value: value[:24].replace(" ", "-") if isinstance(value, str) else None,
)
def test_bad_manners_are_named_within_the_time(
    listen: Listen, capfd: pytest.CaptureFixture[str], manners: Manners, reason: str
) -> None:
    server = listen(manners)
    began = time.monotonic()
    answer = fetch(at(server), timeout_s=0.6)
    assert time.monotonic() - began < 6
    assert answer.keys == ()
    assert reason in answer.failure
    assert answer.hint
    assert capfd.readouterr() == ("", "")


def test_a_host_that_stops_answering_after_its_first_key_is_a_failure_as_a_whole(
    listen: Listen, keys: Keys
) -> None:
    whole = speaks_ssh(keys.own["ed25519"])

    def tires(connection: socket.socket, server: Server) -> None:
        if server.connections == 1:
            whole(connection, server)

    answer = fetch(at(listen(tires)))
    assert answer.keys == ()
    assert "when asked for its ecdsa key" in answer.failure


def test_a_closed_port_and_an_unknown_name_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "nothing listens on 127.0.0.1 port" in fetch(Endpoint("127.0.0.1", port)).failure
    assert "does not resolve" in fetch(Endpoint("no-such-host.invalid", 22)).failure


def test_a_dead_host_does_not_hold_up_the_others(listen: Listen, keys: Keys) -> None:
    good = [at(listen(speaks_ssh(keys.own["ed25519"]))) for _ in range(3)]
    dead = at(listen(says(b"", then_hangs=True)))
    began = time.monotonic()
    answers = fetch_all([dead, *good], timeout_s=3)
    assert time.monotonic() - began < 8
    assert [answers[each].failure for each in good] == ["", "", ""]
    assert "did not answer" in answers[dead].failure


def test_no_thread_and_no_socket_is_left_behind(listen: Listen, keys: Keys) -> None:
    server = listen(speaks_ssh(keys.own["ed25519"]))
    hanging = listen(says(b"SSH-2.0-x\r\n", then_hangs=True))
    for _ in range(3):
        fetch(at(server))
        fetch(at(hanging), timeout_s=0.2)
    assert _clients_of({server.port, hanging.port}) == []
    for thread in filter(_is_client_thread, threading.enumerate()):
        thread.join(5)
        assert not thread.is_alive()


def _clients_of(ports: set[int]) -> list[int]:
    """Return the descriptors of this process that are connected to one of the ports."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(entry.name))) as probe:
                if probe.getpeername()[1] in ports:
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def _is_client_thread(thread: threading.Thread) -> bool:
    return isinstance(thread, paramiko.Transport) and not thread.server_mode


def test_the_fakes_do_refuse_a_login(listen: Listen, keys: Keys) -> None:
    server = listen(speaks_ssh(keys.own["ed25519"]))
    with socket.create_connection((server.address, server.port), 5) as connection:
        transport = paramiko.Transport(connection)
        transport.start_client(timeout=5)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password("admin", "secret")
        transport.close()
    assert server.auth_attempts == ["password admin"]
