"""The scripts of ``files``, run for real: what they leave behind when all is well, and when it is not."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from ops_hosts import ME, MY_GROUP, Diffs, Here
from pyinfra.api.exceptions import OperationValueError

from labctl.ops import files
from labctl.ops.command import SCRIPTS, text
from labctl.ops.facts import CONTENT, HASH, MAX_SHOWN_BYTES, Look, look
from labctl.render import HEADER

OWNER = {"user": ME, "group": MY_GROUP}


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    return directory


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem != "lib"))
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_every_script_is_shell_that_both_shells_can_read(script: str, shell: str) -> None:
    assert subprocess.run([shell, "-n", "-c", text(script)], capture_output=True, check=False).stderr == b""


def test_a_file_is_put_with_mode_and_owner_and_the_second_time_nothing_changes(here: Here, etc: Path) -> None:
    content = "line\n" * 1000 + "no newline at the end, and ünïcode"
    done = here.must(files.put, dest=f"{etc}/a.conf", content=content, mode="640", **OWNER)
    assert len(done) == 1
    assert (etc / "a.conf").read_text() == content
    assert stat.S_IMODE((etc / "a.conf").stat().st_mode) == 0o640
    assert _names(etc) == ["a.conf"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\0\xff\r\n", os.urandom(200_000)], ids=len)
def test_any_bytes_arrive_unchanged(here: Here, etc: Path, content: bytes) -> None:
    here.must(files.put, dest=f"{etc}/blob", content=content, **OWNER)
    assert (etc / "blob").read_bytes() == content


def test_one_question_and_one_command_are_all_it_takes(here: Here, etc: Path) -> None:
    assert len(here.apply(files.put, dest=f"{etc}/a", content="x", **OWNER)) == 1
    assert len(here.asked) == 1


def test_a_hostile_name_is_only_a_name(here: Here, etc: Path) -> None:
    name = "a b'\";$(touch pwned)`id`&|*"
    here.must(files.put, dest=f"{etc}/{name}", content="x", **OWNER)
    assert _names(etc) == [name]


def test_a_reader_sees_the_old_file_or_the_new_one(here: Here, etc: Path) -> None:
    target = etc / "a"
    target.write_text("old")
    with target.open() as reader:
        here.must(files.put, dest=str(target), content="new", **OWNER)
        assert reader.read() == "old"
    assert target.read_text() == "new"


def test_drift_of_the_mode_alone_sends_no_content(here: Here, etc: Path) -> None:
    here.must(files.put, dest=f"{etc}/a", content="x", **OWNER)
    before = (etc / "a").stat().st_ino
    (etc / "a").chmod(0o666)
    (done,) = here.must(files.put, dest=f"{etc}/a", content="x", **OWNER)
    assert done.shown.startswith("labctl-attributes")
    assert (etc / "a").stat().st_ino == before
    assert stat.S_IMODE((etc / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("cut", [0, 10, 64, 65, 66, 500, -1])
def test_content_that_was_cut_off_on_its_way_changes_nothing(here: Here, etc: Path, cut: int) -> None:
    (etc / "a").write_text("old")
    (command,) = here.plan(files.put, dest=f"{etc}/a", content="new\n" * 500, **OWNER)
    done = here.run(command, stdin=command.stdin[: cut - 4 if cut < 0 else cut])
    assert done.status != 0
    assert "nothing was changed" in done.stderr
    assert (etc / "a").read_text() == "old"
    assert _names(etc) == ["a"]


def test_a_full_disk_leaves_the_old_file(here: Here, etc: Path) -> None:
    (etc / "a").write_text("old")
    # The limit on a file's size stands in for a full disk: writing fails in the middle.
    here.prefix = "ulimit -f 8; "
    (done,) = here.apply(files.put, dest=f"{etc}/a", content="x" * 100_000, **OWNER)
    assert done.status != 0
    assert (etc / "a").read_text() == "old"
    assert _names(etc) == ["a"]


def test_a_refused_validation_leaves_the_old_file_and_says_why(here: Here, etc: Path) -> None:
    (etc / "a.conf").write_text("old")
    refuse = ("sh", "-c", 'case $1 in *.conf) ;; *) exit 0 ;; esac; cat "$1"; exit 3', "check")
    (done,) = here.apply(files.put, dest=f"{etc}/a.conf", content="new", validate=refuse, **OWNER)
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr.startswith("new")
    assert "nothing was changed" in done.stderr
    assert (etc / "a.conf").read_text() == "old"
    assert _names(etc) == ["a.conf"]


def test_a_passed_validation_saw_the_new_content_complete_and_with_its_mode(here: Here, etc: Path) -> None:
    check = ("sh", "-c", '[ "$(cat "$1")" = new ] && [ "$(stat -c %a "$1")" = 600 ]', "check")
    here.must(files.put, dest=f"{etc}/a", content="new", mode="600", validate=check, **OWNER)


def test_a_secret_shows_nowhere_but_in_the_file(here: Here, etc: Path, diffs: Diffs) -> None:
    secret = "hunter2-hunter2"
    wanted = {"dest": f"{etc}/key", "content": secret, "mode": "600", "secret": True, **OWNER}
    (etc / "key").write_text("an older secret")
    refuse = ("sh", "-c", 'cat "$1"; exit 1', "check")
    (command,) = here.plan(files.put, **wanted, validate=refuse)
    digest = files.Wanted("/x", secret.encode()).sha256
    refused = here.run(command)
    (done,) = here.must(files.put, **wanted)
    seen = [command.get_raw_value(), str(command), repr(command), *diffs.texts]
    seen += [asked.shown for asked in here.asked]
    seen += [refused.stdout, refused.stderr, done.stdout, done.stderr]
    assert refused.status == 1
    assert [text for text in seen if secret in text or digest in text or "older secret" in text] == []
    assert f"{etc}/key: secret: 15 bytes, content not shown" in "\n".join(diffs.texts)
    assert (etc / "key").read_text() == secret


def test_a_secret_is_never_readable_by_others_on_its_way(here: Here, etc: Path) -> None:
    here.stand_in("base64", f'stat -c %a {etc}/.labctl-put.* >> {here.root}/modes; exec /usr/bin/base64 "$@"')
    here.apply(files.put, dest=f"{etc}/key", content="s", mode="600", secret=True, **OWNER)
    assert (here.root / "modes").read_text() == "600\n"


def test_a_secret_without_a_name_is_refused(here: Here, etc: Path) -> None:
    here.current_op_global_arguments = {}
    with pytest.raises(OperationValueError, match="needs an operation name"):
        here.plan(files.put, dest=f"{etc}/key", content="s", secret=True)


def test_what_a_killed_run_left_is_swept_by_the_next(here: Here, etc: Path) -> None:
    die = ("sh", "-c", "kill -9 $PPID")
    (done,) = here.apply(files.put, dest=f"{etc}/a", content="x", validate=die, **OWNER)
    assert done.status != 0
    assert len([name for name in _names(etc) if name.startswith(".labctl-put.")]) == 1
    here.must(files.put, dest=f"{etc}/b", content="x", **OWNER)
    assert _names(etc) == ["b"]


@pytest.mark.parametrize("signal", ["TERM", "HUP", "INT"])
def test_a_signal_leaves_the_old_file_and_no_other(here: Here, etc: Path, signal: str) -> None:
    (etc / "a").write_text("old")
    wait = ("sh", "-c", f"kill -{signal} $PPID")
    (done,) = here.apply(files.put, dest=f"{etc}/a", content="new", validate=wait, **OWNER)
    assert done.status != 0
    assert (etc / "a").read_text() == "old"
    assert _names(etc) == ["a"]


def test_a_directory_in_its_place_is_refused(here: Here, etc: Path) -> None:
    (etc / "a").mkdir()
    (done,) = here.apply(files.put, dest=f"{etc}/a", content="x", **OWNER)
    assert (done.status, "is a directory; nothing was changed" in done.stderr) == (1, True)
    assert _names(etc) == ["a"]


def test_a_missing_directory_is_planned_and_refused_when_applied(here: Here, etc: Path, diffs: Diffs) -> None:
    (done,) = here.apply(files.put, dest=f"{etc}/none/a", content="x\n", **OWNER)
    assert (done.status, "does not exist; nothing was changed" in done.stderr) == (1, True)
    assert diffs.texts[0].endswith("@@ -0,0 +1 @@\n+x")


def test_a_link_in_its_place_is_replaced_and_its_target_left_alone(
    here: Here, etc: Path, diffs: Diffs
) -> None:
    (etc / "mine").write_text("mine")
    (etc / "a").symlink_to(etc / "mine")
    here.must(files.put, dest=f"{etc}/a", content="x", **OWNER)
    assert not (etc / "a").is_symlink()
    assert (etc / "mine").read_text() == "mine"
    assert f"replaces the symbolic link to {etc}/mine" in diffs.texts[0]


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_directory_that_others_may_write_is_refused(here: Here, etc: Path, mode: int) -> None:
    etc.chmod(mode)
    (done,) = here.apply(files.put, dest=f"{etc}/a", content="x", **OWNER)
    assert (done.status, "could redirect the write" in done.stderr) == (1, True)
    assert _names(etc) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_another_user_is_refused(here: Here, etc: Path) -> None:
    os.chown(etc, 65534, -1)
    (done,) = here.apply(files.put, dest=f"{etc}/a", content="x", **OWNER)
    assert (done.status, "belongs to another user" in done.stderr) == (1, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_in_a_sticky_directory_the_files_of_others_are_left_alone(here: Here, etc: Path) -> None:
    etc.chmod(0o1777)
    (etc / ".labctl-put.theirs").write_text("theirs")
    os.chown(etc / ".labctl-put.theirs", 65534, -1)
    here.must(files.put, dest=f"{etc}/a", content="x", **OWNER)
    assert _names(etc) == [".labctl-put.theirs", "a"]


def test_a_directory_is_made_with_its_parents_and_kept(here: Here, etc: Path) -> None:
    here.must(files.directory, path=f"{etc}/a b/c", mode="2750", **OWNER)
    assert stat.S_IMODE((etc / "a b" / "c").stat().st_mode) == 0o2750
    assert stat.S_IMODE((etc / "a b").stat().st_mode) == 0o755
    (etc / "a b" / "c").chmod(0o777)
    here.must(files.directory, path=f"{etc}/a b/c", mode="2750", **OWNER)


def test_a_directory_behind_a_link_is_accepted(here: Here, etc: Path) -> None:
    (etc / "disk").mkdir()
    (etc / "models").symlink_to(etc / "disk")
    here.must(files.directory, path=f"{etc}/models", mode="700", **OWNER)
    assert (etc / "models").is_symlink()
    assert stat.S_IMODE((etc / "disk").stat().st_mode) == 0o700


def test_a_file_in_the_place_of_a_directory_is_refused(here: Here, etc: Path) -> None:
    (etc / "a").write_text("x")
    (done,) = here.apply(files.directory, path=f"{etc}/a", **OWNER)
    assert (done.status, "is no directory" in done.stderr) == (1, True)


def test_only_files_with_the_header_are_removed(here: Here, etc: Path) -> None:
    (etc / "ours").write_text(f"{HEADER}\nx\n")
    (etc / "theirs").write_text("x\n")
    here.must(files.absent_own, path=f"{etc}/ours")
    here.must(files.absent_own, path=f"{etc}/theirs")
    assert _names(etc) == ["theirs"]


def test_a_file_that_changed_hands_since_the_plan_is_not_removed(here: Here, etc: Path) -> None:
    (etc / "a").write_text(f"{HEADER}\nx\n")
    (command,) = here.plan(files.absent_own, path=f"{etc}/a")
    (etc / "a").write_text("somebody's own\n")
    assert here.run(command).status == 1
    assert _names(etc) == ["a"]


def test_a_link_is_made_and_moved_elsewhere_atomically(here: Here, etc: Path) -> None:
    here.must(files.link, path=f"{etc}/l", target="/usr/a b")
    here.must(files.link, path=f"{etc}/l", target="/usr/c")
    assert os.readlink(etc / "l") == "/usr/c"
    assert _names(etc) == ["l"]


def test_paths_are_told_apart_and_content_comes_only_when_it_is_needed(here: Here, etc: Path) -> None:
    (etc / "f").write_text("x")
    (etc / "big").write_bytes(b"x" * (MAX_SHOWN_BYTES + 1))
    (etc / "l").symlink_to("nowhere")
    os.mkfifo(etc / "p")
    digest = files.Wanted("/x", b"x").sha256
    asked = [("f", ""), ("f", HASH), ("f", digest), ("f", "0" * 64), ("big", CONTENT), ("l", HASH)]
    asked += [("p", CONTENT), ("", HASH), ("none", HASH)]
    seen = look(*(Look(f"{etc}/{name}".rstrip("/"), against) for name, against in asked))
    assert [(info.kind, info.sha256 == digest, info.content, info.target) for info in seen] == [
        ("file", False, None, ""),
        ("file", True, None, ""),
        ("file", True, None, ""),
        ("file", True, b"x", ""),
        ("file", False, None, ""),
        ("link", False, None, "nowhere"),
        ("special file", False, None, ""),
        ("directory", False, None, ""),
        ("absent", False, None, ""),
    ]
