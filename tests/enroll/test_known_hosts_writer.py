"""The one writer of known_hosts: atomic, one at a time, and alone."""

from __future__ import annotations

import ast
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fake_sshd import Keys

import labctl
from labctl.adapters.known_hosts import pin, pinned
from labctl.domain.enrolment import HostKey
from labctl.domain.problem import LabctlError
from labctl.inventory.known_hosts import fingerprint, load

SOURCES = Path(labctl.__file__).parent


def host_key(keys: Keys, kind: str = "ed25519", *, other: bool = False) -> HostKey:
    key = (keys.other if other else keys.own)[kind]
    return HostKey(key.get_name(), key.get_base64(), fingerprint(key.get_base64()))


def test_a_new_file_is_readable_by_all_and_holds_just_the_keys(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    key = host_key(keys)
    assert pin(path, lambda entries: {"10.0.0.5": [key]})
    assert path.read_text() == f"10.0.0.5 ssh-ed25519 {key.key_b64}\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["known_hosts"]


def test_lines_of_other_hosts_and_comments_stay_byte_for_byte(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    ed, rsa = host_key(keys), host_key(keys, "rsa")
    others = f"# the storage room\n\nnas,10.0.0.9\tssh-ed25519 {ed.key_b64} of the nas\n"
    path.write_text(f"{others}10.0.0.5 ssh-ed25519 {ed.key_b64}\n# the end, without a newline")
    assert pin(path, lambda entries: {"10.0.0.5": [rsa]})
    assert path.read_text() == f"{others}# the end, without a newline\n10.0.0.5 ssh-rsa {rsa.key_b64}\n"


def test_a_line_shared_by_two_names_keeps_the_other_name(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    ed, other = host_key(keys), host_key(keys, other=True)
    path.write_text(f"10.0.0.5,10.0.0.6 ssh-ed25519 {ed.key_b64}\n")
    pin(path, lambda entries: {"10.0.0.5": [other]})
    entries = load(path)
    assert pinned(entries, "10.0.0.6", 22) == (ed,)
    assert pinned(entries, "10.0.0.5", 22) == (other,)


def test_nothing_to_change_leaves_the_file_alone(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"10.0.0.5 ssh-ed25519 {host_key(keys).key_b64}\n")
    before = path.stat()
    assert not pin(path, lambda entries: {})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [each.name for each in tmp_path.iterdir()] == ["known_hosts"]


def test_a_line_that_cannot_be_read_stops_the_writer_with_its_number(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    text = f"10.0.0.5 ssh-ed25519 {host_key(keys).key_b64}\n10.0.0.6 ssh-ed25519 AAAA\n"
    path.write_text(text)
    with pytest.raises(LabctlError) as caught:
        pin(path, lambda entries: {"10.0.0.7": [host_key(keys)]})
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [(str(path), 2)]
    assert path.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["known_hosts"]


def test_a_choice_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"

    def refuse(entries: object) -> dict[str, list[HostKey]]:
        raise LabctlError("no")

    with pytest.raises(LabctlError, match="no"):
        pin(path, refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_followed_and_stays_one(tmp_path: Path, keys: Keys) -> None:
    real = tmp_path / "elsewhere" / "hosts"
    real.parent.mkdir()
    link = tmp_path / "known_hosts"
    link.symlink_to(real)
    pin(link, lambda entries: {"10.0.0.5": [host_key(keys)]})
    assert link.is_symlink()
    assert len(load(real)) == 1


def test_a_planted_link_in_place_of_the_lock_is_not_followed(tmp_path: Path, keys: Keys) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".known_hosts.new").symlink_to(victim)
    with pytest.raises(LabctlError, match="cannot be written"):
        pin(tmp_path / "known_hosts", lambda entries: {"10.0.0.5": [host_key(keys)]})
    assert victim.read_text() == "mine"


def test_a_missing_directory_is_a_named_problem(tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(LabctlError, match="cannot be written: No such file"):
        pin(tmp_path / "gone" / "known_hosts", lambda entries: {"10.0.0.5": [host_key(keys)]})


def test_a_lock_that_stays_is_a_named_problem_and_no_endless_wait(tmp_path: Path, keys: Keys) -> None:
    with (tmp_path / ".known_hosts.new").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(LabctlError, match="another labctl has it locked"):
            pin(tmp_path / "known_hosts", lambda entries: {"10.0.0.5": [host_key(keys)]}, patience_s=0.2)
    assert not (tmp_path / "known_hosts").exists()


_WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from labctl.adapters.known_hosts import pin
    from labctl.domain.enrolment import HostKey
    path, key_b64, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(first, first + count):
        key = HostKey("ssh-ed25519", key_b64, "")
        pin(path, lambda entries: {f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}": [key]})
    """
)


def start_writer(path: Path, key: HostKey, first: int, count: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _WRITER, str(path), key.key_b64, str(first), str(count)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(writer: subprocess.Popen[str]) -> None:
    assert writer.stdin and writer.stdout
    assert writer.stdout.readline() == "ready\n"
    writer.stdin.write("\n")
    writer.stdin.flush()


def finish(writer: subprocess.Popen[str]) -> int:
    writer.communicate()
    return writer.returncode


def test_writers_at_the_same_time_lose_no_entry(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    writers = [start_writer(path, host_key(keys), 1000 * number, 25) for number in range(4)]
    for writer in writers:
        go(writer)
    assert [finish(writer) for writer in writers] == [0, 0, 0, 0]
    assert len({entry.names for entry in load(path)}) == 100
    assert [each.name for each in tmp_path.iterdir()] == ["known_hosts"]


def test_kill_9_at_any_moment_leaves_a_whole_file(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "known_hosts"
    written = 0
    for life in range(8):
        writer = start_writer(path, host_key(keys), 1000 * life, 1000)
        go(writer)
        wanted = written + 3 + 2 * life
        while len(load(path)) < wanted:
            assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
        assert finish(writer) == -signal.SIGKILL
        text = path.read_bytes()
        assert text.endswith(b"\n")
        entries = load(path)
        assert len(entries) >= wanted
        written = len(entries)
    pin(path, lambda entries: {"10.200.0.1": [host_key(keys)]})
    assert len(load(path)) == written + 1
    assert [each.name for each in tmp_path.iterdir()] == ["known_hosts"]


@pytest.mark.parametrize("step", ["ftruncate", "fchmod", "fsync", "rename"])
def test_a_death_at_each_step_of_the_replacement_keeps_the_old_text(
    tmp_path: Path, keys: Keys, step: str
) -> None:
    path = tmp_path / "known_hosts"
    pin(path, lambda entries: {"10.0.0.5": [host_key(keys)]})
    before = path.read_bytes()
    killer = _WRITER.replace(
        'print("ready"',
        "import os, pathlib\n"
        "def die(*given):\n    os.kill(os.getpid(), 9)\n"
        f"{'pathlib.Path' if step == 'rename' else 'os'}.{step} = die\n"
        'print("ready"',
    )
    argv = [sys.executable, "-c", killer, str(path), host_key(keys).key_b64, "1", "1"]
    ended = subprocess.run(argv, input="\n", text=True, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    pin(path, lambda entries: {"10.0.0.6": [host_key(keys)]})
    assert len(load(path)) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["known_hosts"]


def _modules() -> list[Path]:
    return [path for path in SOURCES.rglob("*.py") if "_content" not in path.parts]


def test_only_enroll_reaches_the_writer() -> None:
    users = {
        str(path.relative_to(SOURCES))
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "labctl.adapters.known_hosts"
        if any(alias.name == "pin" for alias in node.names)
    }
    assert users == {"cli/enroll.py"}


def test_nothing_else_uses_a_library_that_writes_host_keys() -> None:
    writers = {"AutoAddPolicy", "WarningPolicy", "save_host_keys", "AcceptNewPolicy", "append_hostkey"}
    loose = {"accept-new", "StrictHostKeyChecking=no", "StrictHostKeyChecking=accept-new"}
    found = set()
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if name in writers or text in loose:
                found.add(f"{path.relative_to(SOURCES)}:{node.lineno}")
    assert found == set()
