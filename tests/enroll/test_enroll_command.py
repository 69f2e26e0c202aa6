"""`labctl enroll` from the command line to the bytes in known_hosts."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_sshd import Keys, Listen, MakeRack, RackDir, Server, print_of, speaks_ssh

from labctl.cli.main import main
from labctl.inventory.known_hosts import load


def enroll(rack: RackDir, *args: str) -> int:
    return main(["enroll", "--inventory", str(rack.file), *args])


def pinned(rack: RackDir) -> set[tuple[str, str]]:
    return {(entry.names[0], entry.key_b64) for entry in load(rack.known_hosts)}


def entry(server: Server, key: object) -> tuple[str, str]:
    return f"[{server.address}]:{server.port}", key.get_base64()  # type: ignore[attr-defined]


def closes_at_once(connection: socket.socket, server: Server) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def test_yes_pins_every_key_of_a_new_host(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    server = listen(speaks_ssh(*keys.own.values()))
    rack = make_rack(nas=server)
    assert enroll(rack, "nas", "--yes") == 0
    assert pinned(rack) == {entry(server, key) for key in keys.own.values()}
    shown = capsys.readouterr().out
    assert all(print_of(key) in shown for key in keys.own.values())
    assert server.auth_attempts == []


def test_a_second_enroll_changes_nothing_and_asks_nothing(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    rack = make_rack(nas=listen(speaks_ssh(*keys.own.values())))
    assert enroll(rack, "nas", "--yes") == 0
    before = rack.known_hosts.stat()
    assert enroll(rack, "--all") == 0
    assert rack.known_hosts.stat().st_mtime_ns == before.st_mtime_ns
    assert "nas: unchanged" in capsys.readouterr().out


def test_without_a_terminal_and_without_a_word_of_trust_nothing_is_written(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (listen(speaks_ssh(keys.own["ed25519"])), listen(speaks_ssh(keys.own["rsa"])))
    rack = make_rack(one=one, two=two)
    assert enroll(rack, "--all", "--fingerprint", f"one={print_of(keys.own['ed25519'])}") == 2
    assert not rack.known_hosts.exists()
    told = capsys.readouterr()
    assert "host two: nobody is here to confirm its key" in told.err
    assert print_of(keys.own["rsa"]) in told.out


def test_a_fingerprint_pins_its_key_and_no_other(listen: Listen, keys: Keys, make_rack: MakeRack) -> None:
    server = listen(speaks_ssh(*keys.own.values()))
    rack = make_rack(nas=server)
    assert enroll(rack, "nas", "--fingerprint", print_of(keys.own["ecdsa"])) == 0
    assert pinned(rack) == {entry(server, keys.own["ecdsa"])}


def test_a_fingerprint_that_does_not_fit_is_refused_also_with_yes(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    rack = make_rack(nas=listen(speaks_ssh(*keys.own.values())))
    assert enroll(rack, "nas", "--yes", "--fingerprint", print_of(keys.other["rsa"])) == 1
    assert not rack.known_hosts.exists()
    assert "DOES NOT HAVE THE GIVEN FINGERPRINT" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("flags", [[], ["--yes"], ["--json"], ["--yes", "--json"]], ids=" ".join)
def test_a_changed_key_is_refused_loudly_whatever_the_flags(
    listen: Listen,
    keys: Keys,
    make_rack: MakeRack,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    flags: list[str],
) -> None:
    server = listen(speaks_ssh(keys.other[kind]))
    rack = make_rack(nas=server)
    rack.pin(server, keys.own[kind])
    before = rack.known_hosts.read_bytes()
    assert enroll(rack, "nas", *flags) == 1
    assert rack.known_hosts.read_bytes() == before
    told = capsys.readouterr().err
    assert "!!! NAS HAS ANOTHER KEY THAN THE PINNED ONE" in told
    assert print_of(keys.own[kind]) in told and print_of(keys.other[kind]) in told
    assert "labctl enroll nas" in told and "--replace --fingerprint SHA256:..." in told
    assert "reinstalled" in told and "between you and it" in told


def test_a_host_that_shows_only_another_type_than_the_pinned_one_is_refused(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    server = listen(speaks_ssh(keys.own["rsa"]))
    rack = make_rack(nas=server)
    rack.pin(server, keys.own["ed25519"])
    assert enroll(rack, "nas", "--yes") == 1
    assert pinned(rack) == {entry(server, keys.own["ed25519"])}
    assert "no longer shows its pinned ssh-ed25519 key" in capsys.readouterr().err


def test_replace_pins_the_key_whose_fingerprint_a_person_read(
    listen: Listen, keys: Keys, make_rack: MakeRack
) -> None:
    server = listen(speaks_ssh(*keys.other.values()))
    rack = make_rack(nas=server)
    rack.pin(server, *keys.own.values())
    assert enroll(rack, "nas", "--replace", "--fingerprint", print_of(keys.own["rsa"])) == 1
    assert pinned(rack) == {entry(server, key) for key in keys.own.values()}
    assert enroll(rack, "nas", "--replace", "--fingerprint", print_of(keys.other["rsa"])) == 0
    assert pinned(rack) == {entry(server, keys.other["rsa"])}


def test_an_unreachable_host_is_named_and_the_others_are_enrolled(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    good, dead = listen(speaks_ssh(keys.own["ed25519"])), listen(closes_at_once)
    rack = make_rack(good=good, dead=dead)
    assert enroll(rack, "--all", "--yes") == 4
    assert pinned(rack) == {entry(good, keys.own["ed25519"])}
    assert "host dead: 127.0.0.1 port" in capsys.readouterr().err


def test_nothing_reachable_is_exit_3(listen: Listen, make_rack: MakeRack) -> None:
    rack = make_rack(dead=listen(closes_at_once))
    assert enroll(rack, "dead", "--yes") == 3
    assert not rack.known_hosts.exists()


def test_a_refused_host_does_not_keep_the_others_from_being_enrolled(
    listen: Listen, keys: Keys, make_rack: MakeRack
) -> None:
    bad, good = listen(speaks_ssh(keys.other["ed25519"])), listen(speaks_ssh(keys.own["rsa"]))
    rack = make_rack(bad=bad, good=good)
    rack.pin(bad, keys.own["ed25519"])
    assert enroll(rack, "--all", "--yes") == 1
    assert pinned(rack) == {entry(bad, keys.own["ed25519"]), entry(good, keys.own["rsa"])}


def test_a_bad_line_stops_enroll_with_its_number_before_it_asks_anyone(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    server = listen(speaks_ssh(keys.own["ed25519"]))
    rack = make_rack(nas=server)
    rack.pin(server, keys.own["ed25519"])
    with rack.known_hosts.open("a") as stream:
        stream.write("127.0.0.9 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\n")
    assert enroll(rack, "nas", "--yes") == 2
    assert f"{rack.known_hosts}:2" in capsys.readouterr().err
    assert server.connections == 0


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "no host was named"),
        (["nsa"], "did you mean nas?"),
        (["nsa", "xyzzy"], "there is no host 'xyzzy' in the rack"),
        (["nas", "--all"], "exclude each other"),
        (["nas", "--replace"], "--replace needs the fingerprint"),
        (["nas", "--replace", "--yes"], "--replace needs the fingerprint"),
        (["nas", "--fingerprint", "MD5:00:11"], "is no fingerprint"),
        (["nas", "--fingerprint", "SHA256:" + "A" * 42], "is no fingerprint"),
        (["nas", "--fingerprint", ""], "is no fingerprint"),
        (["nas", "--fingerprint", "pc=SHA256:" + "A" * 43], "none of the hosts to enroll"),
        (["--all", "--fingerprint", "SHA256:" + "A" * 43], "several hosts are enrolled"),
        (
            ["nas", "--fingerprint", "SHA256:" + "A" * 43, "--fingerprint", "SHA256:" + "B" * 43],
            "two different ones were given",
        ),
        (["nas", "--no-such-option"], "--no-such-option"),
    ],
)
def test_a_wrong_command_line_is_exit_2_and_connects_to_nothing(
    listen: Listen,
    keys: Keys,
    make_rack: MakeRack,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    reason: str,
) -> None:
    server, other = listen(speaks_ssh(keys.own["ed25519"])), listen(speaks_ssh(keys.own["rsa"]))
    rack = make_rack(nas=server, pc=other)
    assert enroll(rack, *args) == 2
    assert reason in capsys.readouterr().err
    assert (server.connections, other.connections) == (0, 0)
    assert not rack.known_hosts.exists()


def test_json_tells_each_host_once_and_keeps_stdout_clean(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    new, changed = listen(speaks_ssh(*keys.own.values())), listen(speaks_ssh(keys.other["rsa"]))
    rack = make_rack(new=new, changed=changed, dead=listen(closes_at_once))
    rack.pin(changed, keys.own["rsa"])
    assert enroll(rack, "--all", "--yes", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["known_hosts"] == str(rack.known_hosts)
    assert {each["host"]: each["outcome"] for each in document["hosts"]} == {
        "new": "enrolled",
        "changed": "refused",
        "dead": "unreachable",
    }
    first = document["hosts"][0]
    assert {(key["fingerprint"], key["pinned"]) for key in first["keys"]} == {
        (print_of(key), True) for key in keys.own.values()
    }
    assert document["hosts"][1]["keys"][0]["pinned"] is False
    assert document["hosts"][1]["pinned_before"][0]["fingerprint"] == print_of(keys.own["rsa"])


def test_two_hosts_with_one_key_are_warned_about(
    listen: Listen, keys: Keys, make_rack: MakeRack, capsys: pytest.CaptureFixture[str]
) -> None:
    rack = make_rack(one=listen(speaks_ssh(keys.own["ed25519"])), two=listen(speaks_ssh(keys.own["ed25519"])))
    assert enroll(rack, "one", "--yes") == 0
    assert "warning" not in capsys.readouterr().err
    assert enroll(rack, "two", "--yes") == 0
    assert "host two: it has the same ssh-ed25519 key as one" in capsys.readouterr().err


def test_enrolls_at_the_same_time_lose_no_host(listen: Listen, keys: Keys, make_rack: MakeRack) -> None:
    servers = {f"host{number}": listen(speaks_ssh(keys.own["ed25519"])) for number in range(4)}
    rack = make_rack(**servers)
    argv = [sys.executable, "-m", "labctl.cli.main", "enroll", "--inventory", str(rack.file), "--yes"]
    running = [subprocess.Popen([*argv, name], stdout=subprocess.DEVNULL) for name in servers]
    assert [each.wait(60) for each in running] == [0, 0, 0, 0]
    assert pinned(rack) == {entry(server, keys.own["ed25519"]) for server in servers.values()}


class Terminal:
    """A person's terminal: runs a command on a pseudo-terminal and types answers to what it shows."""

    def __init__(self, argv: list[str], cwd: Path) -> None:
        self.seen = ""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.chdir(cwd)
            os.execve(argv[0], argv, {**os.environ, "TERM": "dumb"})
        self.pid = pid

    def until(self, text: str) -> None:
        """Read until the terminal shows ``text``."""
        while text not in self.seen:
            ready, _, _ = select.select([self._fd], [], [], 60)
            assert ready, f"never saw {text!r} in {self.seen!r}"
            assert self._read(), f"ended without {text!r}: {self.seen!r}"

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        """Return the exit code once the command has ended."""
        while self._read():
            continue
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 4096)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.seen += data.decode()
        return bool(data)


def at_terminal(rack: RackDir, *args: str) -> Terminal:
    argv = [sys.executable, "-m", "labctl.cli.main", "enroll", "--inventory", str(rack.file), *args]
    return Terminal(argv, rack.file.parent)


def test_at_a_terminal_only_a_yes_pins(listen: Listen, keys: Keys, make_rack: MakeRack) -> None:
    yes, no = listen(speaks_ssh(keys.own["ed25519"])), listen(speaks_ssh(keys.own["rsa"]))
    rack = make_rack(yes=yes, no=no)
    terminal = at_terminal(rack, "--all")
    terminal.until("Pin these keys of yes?")
    assert print_of(keys.own["ed25519"]) in terminal.seen
    terminal.type("y\n")
    terminal.until("Pin these keys of no?")
    assert not rack.known_hosts.exists()
    terminal.type("\n")
    assert terminal.end() == 1
    assert "host no: you did not confirm its key" in terminal.seen
    assert pinned(rack) == {entry(yes, keys.own["ed25519"])}


def test_ctrl_c_at_the_question_writes_nothing(listen: Listen, keys: Keys, make_rack: MakeRack) -> None:
    rack = make_rack(nas=listen(speaks_ssh(keys.own["ed25519"])))
    terminal = at_terminal(rack, "nas")
    terminal.until("Pin these keys of nas?")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert not rack.known_hosts.exists()
    assert "Traceback" not in terminal.seen


def test_ctrl_c_while_a_host_hangs_ends_at_once(listen: Listen, make_rack: MakeRack) -> None:
    def hangs(connection: socket.socket, server: Server) -> None:
        server.stopping.wait()

    server = listen(hangs)
    rack = make_rack(nas=server)
    argv = [sys.executable, "-m", "labctl.cli.main", "enroll", "--inventory", str(rack.file), "nas"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as running:
        while server.connections == 0:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=8)
    assert running.returncode == 130
    assert "Traceback" not in told
