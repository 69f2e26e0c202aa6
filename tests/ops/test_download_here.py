"""``download.file`` for real, from a server on loopback that can be told to misbehave."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ops_hosts import ME, MY_GROUP, Diffs, Done, Here

from labctl.ops import download

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT; class attributes are reset by the fixture."""

    ranges = True
    stop_after: int | None = None
    content = CONTENT
    seen: ClassVar[list[str]] = []
    measured = True
    redirect: ClassVar[dict[str, str]] = {}
    authorized: ClassVar[list[tuple[str, str]]] = []

    def do_HEAD(self) -> None:
        if self._answered():
            return
        if not self.measured:
            self.send_error(405)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def _answered(self) -> bool:
        """Take note of who asks; send to elsewhere, or say that there is no such file."""
        self.authorized.append((self.path, self.headers.get("Authorization", "")))
        if target := self.redirect.get(self.path):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        return self.path in self.redirect or self.path == "/missing"

    def do_GET(self) -> None:
        cls = type(self)
        if self._answered():
            return
        asked = self.headers.get("Range", "")
        cls.seen.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and cls.ranges else 0
        if start >= len(cls.content) and start:
            self.send_error(416)
            return
        body = cls.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(cls.content) - 1}/{len(cls.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cls.stop_after is not None:
            body, cls.stop_after = body[: cls.stop_after], None
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Server.ranges, Server.stop_after, Server.content, Server.measured = True, None, CONTENT, True
    Server.seen.clear()
    Server.redirect.clear()
    Server.authorized.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/model.gguf"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(download, "_STAMPS", f"{tmp_path}/verified")
    directory = tmp_path / "models"
    directory.mkdir(mode=0o755)
    return directory


def _wanted(models: Path, url: str) -> dict[str, str]:
    return {"url": url, "dest": f"{models}/m.gguf", "sha256": SHA256, "user": ME, "group": MY_GROUP}


def _refused(here: Here, models: Path, url: str) -> Done:
    (done,) = here.apply(download.file, **_wanted(models, url))
    assert done.status == 1
    return done


def test_a_file_is_fetched_and_the_second_time_nothing_changes(here: Here, models: Path, url: str) -> None:
    here.must(download.file, **_wanted(models, url))
    assert (models / "m.gguf").read_bytes() == CONTENT
    assert os.listdir(models) == ["m.gguf"]
    assert len(Server.seen) == 1


def test_a_file_on_the_host_itself_works_too(here: Here, models: Path, tmp_path: Path) -> None:
    (tmp_path / "usb.gguf").write_bytes(CONTENT)
    here.must(download.file, **_wanted(models, f"file://{tmp_path}/usb.gguf"))


def test_one_flipped_byte_is_refused_and_nothing_is_replaced(here: Here, models: Path, url: str) -> None:
    (models / "m.gguf").write_text("old")
    Server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    done = _refused(here, models, url)
    assert f"expected {SHA256}" in done.stderr
    assert (models / "m.gguf").read_text() == "old"
    assert os.listdir(models) == ["m.gguf"]


def test_what_was_cut_is_continued_where_it_stopped(here: Here, models: Path, url: str) -> None:
    part = models / f".labctl-get.{SHA256[:32]}"
    part.write_bytes(CONTENT[:100_000])
    here.must(download.file, **_wanted(models, url))
    assert Server.seen == ["bytes=100000-"]
    assert os.listdir(models) == ["m.gguf"]


def test_a_server_that_breaks_off_is_asked_again_for_the_rest(here: Here, models: Path, url: str) -> None:
    Server.stop_after = 100_000
    for _ in range(2):
        done = here.apply(download.file, **_wanted(models, url))
        if not done[0].status:
            break
    assert (models / "m.gguf").read_bytes() == CONTENT
    assert "bytes=100000-" in Server.seen


def test_a_server_that_cannot_continue_starts_over(here: Here, models: Path, url: str) -> None:
    (models / f".labctl-get.{SHA256[:32]}").write_bytes(CONTENT[:100_000])
    Server.ranges = False
    here.must(download.file, **_wanted(models, url))


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)], ids=len)
def test_a_part_that_is_wrong_is_thrown_away(here: Here, models: Path, url: str, wrong: bytes) -> None:
    (models / f".labctl-get.{SHA256[:32]}").write_bytes(wrong)
    here.must(download.file, **_wanted(models, url))


def test_a_link_planted_for_the_part_is_not_followed(
    here: Here, models: Path, url: str, tmp_path: Path
) -> None:
    prey = tmp_path / "prey"
    prey.write_text("precious")
    (models / f".labctl-get.{SHA256[:32]}").symlink_to(prey)
    here.must(download.file, **_wanted(models, url))
    assert prey.read_text() == "precious"


def test_a_server_that_is_not_there_leaves_the_old_file(here: Here, models: Path) -> None:
    (models / "m.gguf").write_text("old")
    here.stand_in("curl", "exit 7")
    done = _refused(here, models, "http://127.0.0.1:9/x")
    assert "could not fetch http://127.0.0.1:9/x (curl exit 7)" in done.stderr
    assert (models / "m.gguf").read_text() == "old"
    assert os.listdir(models) == ["m.gguf"]


def test_a_full_disk_is_named_and_leaves_the_old_file_and_no_part(here: Here, models: Path, url: str) -> None:
    (models / "m.gguf").write_text("old")
    here.stand_in("curl", "exit 23")
    assert "No space left on device" in _refused(here, models, url).stderr
    assert os.listdir(models) == ["m.gguf"]


def test_a_shared_directory_is_refused(here: Here, models: Path, url: str) -> None:
    models.chmod(0o1777)
    assert "others may write" in _refused(here, models, url).stderr


def test_the_stamp_spares_hashing_until_the_file_changes(here: Here, models: Path, url: str) -> None:
    wanted = _wanted(models, url)
    here.must(download.file, **wanted)
    here.stand_in("sha256sum", f"echo hashed >> {here.root}/hashed; exec /usr/bin/sha256sum")
    assert here.plan(download.file, **wanted) == []
    assert not (here.root / "hashed").exists()
    with (models / "m.gguf").open("r+b") as file:
        file.write(b"bit rot")
    os.utime(models / "m.gguf", (1, 1))
    assert len(here.plan(download.file, **wanted)) == 1
    assert (here.root / "hashed").exists()


def test_a_change_of_mode_keeps_the_stamp(here: Here, models: Path, url: str) -> None:
    here.must(download.file, **_wanted(models, url))
    here.must(download.file, **_wanted(models, url), mode="600")
    here.stand_in("sha256sum", "exit 9")
    assert here.plan(download.file, **_wanted(models, url), mode="600") == []


def test_a_stamp_for_other_content_does_not_vouch(here: Here, models: Path, url: str) -> None:
    here.must(download.file, **_wanted(models, url))
    (stamp,) = Path(f"{models.parent}/verified").iterdir()
    stamp.write_text(stamp.read_text().replace(SHA256, "0" * 64))
    assert len(here.plan(download.file, **_wanted(models, url))) == 1


# --- several addresses ---


def _both(models: Path, first: str, url: str) -> dict[str, Any]:
    return {**_wanted(models, url), "url": (first, url)}


def test_the_mirror_is_asked_first_and_nobody_else(
    here: Here, models: Path, url: str, tmp_path: Path
) -> None:
    (tmp_path / "copy.gguf").write_bytes(CONTENT)
    here.must(download.file, **_both(models, f"file://{tmp_path}/copy.gguf", url))
    assert Server.seen == []


@pytest.mark.parametrize("mirror", ["file:///nowhere/m.gguf", "http://127.0.0.1:9/m.gguf"])
def test_a_mirror_that_lacks_it_or_is_not_there_is_passed_over(
    here: Here, models: Path, url: str, mirror: str
) -> None:
    # Without curl's own waiting for a server that may come back.
    without = 'for w; do [ "$w" = --retry-connrefused ] || set -- "$@" "$w"; shift; done'
    here.stand_in("curl", f'{without}\nexec /usr/bin/curl "$@"')
    (done,) = here.must(download.file, **_both(models, mirror, url))
    assert f"could not fetch {mirror} (curl exit " in done.stderr
    assert f"it came from {url}" in done.stderr


def test_what_the_mirror_began_is_finished_by_the_next_address(here: Here, models: Path, url: str) -> None:
    (models / f".labctl-get.{SHA256[:32]}").write_bytes(CONTENT[:100_000])
    here.must(download.file, **_both(models, "file:///nowhere/m.gguf", url))
    assert Server.seen[-1] == "bytes=100000-"


def test_a_mirror_that_holds_another_file_is_refused_by_name_and_the_next_is_tried(
    here: Here, models: Path, url: str, tmp_path: Path
) -> None:
    (tmp_path / "copy.gguf").write_bytes(CONTENT[:-1] + b"?")
    mirror = f"file://{tmp_path}/copy.gguf"
    (done,) = here.must(download.file, **_both(models, mirror, url))
    other = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    assert f"refused: {mirror} has the sha256 {other}, expected {SHA256}; it came from {url}" in done.stderr


def test_where_every_address_fails_each_is_named(here: Here, models: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "copy.gguf").write_bytes(b"other")
    Server.content = b"another"
    mirror = f"file://{tmp_path}/copy.gguf"
    (done,) = here.apply(download.file, **_both(models, mirror, url), pinned="rack.py:7: models[0].sha256")
    assert done.status == 1
    assert f"refused: {mirror} has" in done.stderr and f"refused: {url} has" in done.stderr
    assert "; replace that file, or correct the sha256 at rack.py:7: models[0].sha256; " in done.stderr
    assert os.listdir(models) == []


# --- the disk ---


@pytest.mark.parametrize("size", [2**59, None], ids=["told", "asked"])
def test_what_cannot_fit_is_refused_before_the_first_byte(
    here: Here, models: Path, url: str, size: int | None
) -> None:
    if size is None:
        here.stand_in("df", "printf 'Filesystem 1-blocks Used Available\\n/dev/x 400000 100000 300000\\n'")
    done = here.apply(download.file, **_wanted(models, url), size=size)[0]
    assert done.status == 1
    assert f"the disk is too small for {models}/m.gguf" in done.stderr
    assert "No space left on device" in done.stderr
    assert Server.seen == []
    assert os.listdir(models) == []


def test_a_source_that_tells_no_size_cannot_fill_the_disk(here: Here, models: Path, url: str) -> None:
    Server.measured = False
    (models / "m.gguf").write_text("old")
    here.stand_in("df", "printf 'Filesystem 1-blocks Used Available\\n/dev/x 400000 100000 200000\\n'")
    done = here.apply(download.file, **_wanted(models, url))[0]
    assert done.status == 1 and "No space left on device" in done.stderr
    assert os.listdir(models) == ["m.gguf"]


def test_an_address_is_no_pattern(here: Here, models: Path, url: str) -> None:
    here.must(download.file, **_wanted(models, url.replace("model.gguf", "m[1-2]{a,b}")))
    assert (models / "m.gguf").read_bytes() == CONTENT and len(Server.seen) == 1


# --- tokens ---


def test_the_token_reaches_the_own_address_and_neither_mirror_nor_redirection_nor_command_line(
    here: Here, models: Path, url: str
) -> None:
    log = here.root / "argv"
    here.stand_in("curl", f'echo "$@" >>{log}; exec /usr/bin/curl "$@"')
    elsewhere = url.replace("127.0.0.1", "localhost")
    Server.redirect = {"/gated": elsewhere}
    gated = url.replace("/model.gguf", "/gated")
    missing = url.replace("/model.gguf", "/missing")
    here.must(download.file, **{**_wanted(models, url), "url": (missing, gated), "token": "hf_abc123"})
    assert ("/gated", "Bearer hf_abc123") in Server.authorized
    assert {given for path, given in Server.authorized if path != "/gated"} == {""}
    assert {path for path, _ in Server.authorized} == {"/missing", "/gated", "/model.gguf"}
    assert "hf_abc123" not in log.read_text()


def test_a_plan_never_shows_the_token(here: Here, models: Path, url: str, diffs: Diffs) -> None:
    (command,) = here.plan(download.file, **_wanted(models, url), token="hf_abc123")
    assert "hf_abc123" not in f"{command}{diffs.texts}{command.get_raw_value()}"


# --- beside labctl models pull ---


def test_a_folder_in_which_a_pull_is_at_work_is_left_alone(here: Here, models: Path, url: str) -> None:
    folder = os.open(models, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert "another labctl fetches into" in _refused(here, models, url).stderr
        assert Server.seen == []
    finally:
        os.close(folder)
    here.must(download.file, **_wanted(models, url))


def test_what_a_pull_began_is_finished_and_its_list_of_parts_goes(here: Here, models: Path, url: str) -> None:
    (models / f".labctl-get.{SHA256[:32]}").write_bytes(CONTENT[:100_000])
    (models / f".labctl-get.{SHA256[:32]}.parts").write_text("labctl-parts 1 300000 1048576\n")
    here.must(download.file, **_wanted(models, url))
    assert Server.seen == ["bytes=100000-"]
    assert os.listdir(models) == ["m.gguf"]
