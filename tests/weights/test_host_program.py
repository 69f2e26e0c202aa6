"""What runs on hosts: what it hands on and to whom, how it opens the firewall, what it is made of."""

from __future__ import annotations

import ast
import hashlib
import http.client
import http.server
import mmap
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labctl
from labctl.domain import parts
from labctl.ops import download
from labctl.weights import program
from labctl.weights.host import look, stamps
from labctl.weights.host.door import Door
from labctl.weights.host.incoming import HostFault
from labctl.weights.host.shelf import Held, Server, Shelf
from labctl.weights.host.source import Source, SourceError

CONTENT = random.Random(0).randbytes(2 * parts.MIB + 99)  # the same for every worker of pytest-xdist
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "k" * 64


# --- handing on ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "m").write_bytes(CONTENT)
    descriptor = os.open(tmp_path / "m", os.O_RDONLY)
    shelf = Shelf()
    shelf.put(SHA256, Held(descriptor, len(CONTENT), [], whole=True))
    made = Server("127.0.0.1", shelf, KEY, frozenset({"127.0.0.1"}))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()
    os.close(descriptor)


def ask(server: Server, path: str, key: str | None = KEY) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path, headers={} if key is None else {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("index", range(3))
def test_a_part_is_followed_by_its_sha256(server: Server, index: int) -> None:
    start, length = parts.bounds(len(CONTENT), index)
    part = CONTENT[start : start + length]
    for _ in range(2):  # the first time the digest is computed on the way
        assert ask(server, f"/{SHA256}/{index}") == (200, part + hashlib.sha256(part).digest())


@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "k", "é"])
def test_without_the_key_nothing_is_handed_on(server: Server, key: str | None) -> None:
    assert ask(server, f"/{SHA256}/0", key) == (403, b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/etc/passwd", f"/{SHA256}", f"/{SHA256}/3", f"/{SHA256}/-1", f"/{SHA256}/x", f"/{'0' * 64}/0",
     f"/../{SHA256}/0", f"/{SHA256}/0/../../../etc/passwd", "//0"],
)  # fmt: skip
def test_nothing_but_the_parts_of_its_files_can_be_asked_for(
    server: Server, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.weights.host.shelf.PATIENCE_S", 0.01)
    assert ask(server, path) == (404, b"")


def test_a_part_that_is_not_there_yet_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.weights.host.shelf.PATIENCE_S", 0.01)
    growing = Held(server.shelf.wait_for(SHA256, 0, 1).descriptor, len(CONTENT), [], whole=False)  # type: ignore[union-attr]
    server.shelf.put("ab" * 32, growing)
    assert ask(server, f"/{'ab' * 32}/0") == (503, b"")
    server.shelf.grew("ab" * 32, b"d" * 32)
    assert ask(server, f"/{'ab' * 32}/0") == (200, CONTENT[: parts.MIB] + b"d" * 32)


def test_a_stranger_is_turned_away_unheard(tmp_path: Path, server: Server) -> None:
    server._guests = frozenset({"10.0.0.7"})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(server, f"/{SHA256}/0")


# --- a source ---


@pytest.mark.parametrize(
    ("status", "told", "final", "after_s"),
    [
        (429, "7", False, 7),
        (503, "99999999", False, 120),
        (503, "soon", False, 0),
        (500, "", False, 0),
        (404, "7", True, 7),
        (403, "", True, 0),
        (416, "", True, 0),
    ],
)
def test_a_server_says_whether_and_when_to_ask_it_again(
    status: int, told: str, final: bool, after_s: int
) -> None:
    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Retry-After", told)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Busy)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with pytest.raises(SourceError) as said:
        Source(f"http://127.0.0.1:{server.server_port}/m", "", 0)
    thread.join()
    server.server_close()
    assert (said.value.final, said.value.after_s) == (final, after_s)


# --- the firewall ---

NFT = """#!/bin/sh
echo "$@" >>{log}
case $1 in
  list) [ -f {table} ] && cat {table} ;;
  -f) cat >>{log} ;;
esac
"""


def _nft(tmp_path: Path, table: str | None) -> tuple[str, Path]:
    log, listed = tmp_path / "log", tmp_path / "table"
    log.touch()
    if table is not None:
        listed.write_text(table)
    program = tmp_path / "nft"
    program.write_text(NFT.format(log=log, table=listed))
    program.chmod(0o755)
    return str(program), log


def test_each_guest_gets_an_entry_that_ends_by_itself_and_is_taken_away_at_the_end(tmp_path: Path) -> None:
    nft, log = _nft(tmp_path, "table inet labctl { set transfers4 { } }")
    door = Door([("10.0.0.7", 4000), ("fd00::7", 4001)], nft)
    door.open()
    assert "add element inet labctl transfers4 { 10.0.0.7 . 4000 timeout 60s }" in log.read_text()
    assert "add element inet labctl transfers6 { fd00::7 . 4001 timeout 60s }" in log.read_text()
    door.close()
    assert log.read_text().splitlines()[-2:] == [
        "delete element inet labctl transfers4 { 10.0.0.7 . 4000 }",
        "delete element inet labctl transfers6 { fd00::7 . 4001 }",
    ]


def test_without_labctls_firewall_nothing_is_opened(tmp_path: Path) -> None:
    nft, log = _nft(tmp_path, None)
    Door([("10.0.0.7", 4000)], nft).open()
    assert log.read_text() == "list table inet labctl\n"


def test_a_firewall_of_an_older_labctl_is_said(tmp_path: Path) -> None:
    nft, _ = _nft(tmp_path, "table inet labctl { chain input { } }")
    with pytest.raises(HostFault, match="labctl apply --only base"):
        Door([("10.0.0.7", 4000)], nft).open()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
def test_the_kernel_takes_the_rendered_sets_and_lets_entries_end() -> None:
    from labctl.inventory import Host
    from labctl.render import firewall

    rules = "".join(
        line for line in firewall.rules(Host(name="a", address="10.0.0.1"), (22,)).splitlines(keepends=True)
        if "include" not in line
    )  # fmt: skip
    script = (
        "import subprocess, sys\n"
        "from labctl.weights.host.door import Door\n"
        "subprocess.run(['nft', '-f', '-'], input=sys.stdin.read(), text=True, check=True)\n"
        "door = Door([('10.0.0.7', 4000), ('fd00::7', 4001)])\n"
        "argv = ['nft', 'list', 'table', 'inet', 'labctl']\n"
        "show = lambda: subprocess.run(argv, capture_output=True, text=True)\n"
        "door.open(); door._renew()\n"
        "told = show().stdout\n"
        "assert '10.0.0.7 . 4000 timeout 1m' in told and 'fd00::7 . 4001 timeout 1m' in told, told\n"
        "door.close()\n"
        "assert 'elements' not in show().stdout\n"
    )
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", script], input=rules, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# --- stamps ---


def test_a_stamp_is_the_one_that_apply_writes_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "FOLDER", tmp_path / "verified")
    file = tmp_path / "m.gguf"
    file.write_bytes(CONTENT)
    stamps.vouch(str(file), SHA256, len(CONTENT), [])
    stamp = stamps.stamp_of(str(file))
    fact = download.Verified()
    done = subprocess.run(
        ["sh", "-c", fact.command(str(file), str(stamp))], capture_output=True, text=True, check=True
    )
    assert fact.process(done.stdout.splitlines()).sha256 == SHA256
    assert len(done.stdout.splitlines()) == 2, "it was hashed although its stamp holds"
    assert stamps.vouched(str(file), file.lstat()) == SHA256
    file.touch()
    assert stamps.vouched(str(file), file.lstat()) is None


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_a_damaged_list_of_digests_is_never_believed_further_than_it_is_whole(
    tmp_path_factory: pytest.TempPathFactory, tail: str
) -> None:
    path = tmp_path_factory.mktemp("list") / "x.parts"
    good = stamps.header(9 * parts.MIB) + "ab" * 32 + "\n"
    path.write_text(good + tail, encoding="utf-8", errors="surrogatepass" if tail.isascii() else "replace")
    found = stamps.read_digests(path, 9 * parts.MIB)
    assert found[0] == bytes.fromhex("ab" * 32)
    assert all(len(digest) == 32 for digest in found)
    assert stamps.read_digests(path, 10 * parts.MIB) == []


# --- removal ---


def test_nothing_is_removed_that_changed_is_no_plain_file_or_is_held_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "FOLDER", tmp_path / "verified")
    (tmp_path / "models" / "a").mkdir(parents=True)
    names = ("goes", "changed", "held", "mapped", "link")
    paths = {name: tmp_path / "models" / "a" / name for name in names}
    for path in list(paths.values())[:-1]:
        path.write_bytes(b"x" * 4096)
    paths["link"].symlink_to(paths["goes"])
    doomed = [{"path": str(path), "identity": stamps.identity(path.lstat())} for path in paths.values()]
    paths["changed"].write_bytes(b"y")
    with paths["held"].open("rb"):
        with paths["mapped"].open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        looked = look.collect(doomed, [str(tmp_path / "models")], really=False)
        assert paths["goes"].exists()
        done = look.collect(doomed, [str(tmp_path / "models")], really=True)
    if os.geteuid() == 0:
        assert [Path(one["path"]).name for one in done["removed"]] == ["goes"]
    mapped.close()
    assert looked == done
    why = {Path(one["path"]).name: one["why"] for one in done["kept"]}
    assert why["changed"] == why["link"] == "it changed meanwhile"
    assert why["held"] == "a process has it open"


def test_folders_that_became_empty_go_but_never_the_models_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "FOLDER", tmp_path / "verified")
    file = tmp_path / "models" / "a" / "b" / "m"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    doomed = [{"path": str(file), "identity": stamps.identity(file.lstat())}]
    look.collect(doomed, [str(tmp_path / "models")], really=True)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_referred_file_is_no_other_under_the_name_of_a_linked_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "FOLDER", tmp_path / "verified")
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    for name in ("m.gguf", "old.gguf"):
        (tmp_path / "models" / name).write_bytes(CONTENT)
        stamps.vouch(str(tmp_path / "models" / name), SHA256, len(CONTENT), [])
    wanted = [{"path": str(tmp_path / "disk" / "m.gguf"), "sha256": SHA256}]
    said = look.look(wanted, [{"path": str(tmp_path / "models"), "deep": True}])
    assert [(Path(one["path"]).name, one["vouched"]) for one in said["others"]] == [("old.gguf", True)]


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    assert look.verify(str(tmp_path / "m.gguf"), SHA256, lambda there: None) == {"kind": "other"}


# --- what it is made of ---


def test_it_is_made_of_the_standard_library_and_itself() -> None:
    root = Path(labctl.__file__).parent.parent
    for name in program.MODULES:
        place = root.joinpath(*name.split("."))
        source = (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
        for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                named = [str(node.module)]
                if named[0] in ("labctl.domain", "labctl.weights.host"):
                    named = [f"{named[0]}.{alias.name}" for alias in node.names]
            else:
                continue
            assert all(
                one in program.MODULES or one.split(".")[0] in sys.stdlib_module_names for one in named
            ), (name, named)


def test_it_runs_under_the_machines_own_python() -> None:
    found = shutil.which("python3", path="/usr/bin")
    if found is None:
        pytest.skip("there is no /usr/bin/python3 here")
    orders = b'{"do":"look","files":[],"folders":[]}\n{"do":"end"}\n'
    done = subprocess.run(
        [found, *program.ARGV[1:]], input=program.preamble() + orders, capture_output=True, timeout=30
    )
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.splitlines()[0] == b'{"event": "looked", "files": [], "others": []}'


def test_its_command_line_says_nothing_about_models() -> None:
    assert all("srv" not in word and "gguf" not in word for word in program.ARGV)
