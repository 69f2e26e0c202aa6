"""Builds of engines, installed for real below a folder: whole or not at all, and nobody else's is touched."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ops_hosts import Diffs, Here
from pyinfra.api.exceptions import OperationValueError

import uv_kit
from labctl.domain.problem import LabctlError
from labctl.ops import engines
from labctl.ops.engines import Download, Place

ARCH = os.uname().machine
SERVER = b"#!/bin/sh\necho server\n"
Pack = Callable[..., Download]


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep what is fetched below the test's own folder."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    monkeypatch.setattr(engines, "DOWNLOADS", str(folder))
    monkeypatch.setattr("labctl.ops.files.NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr("labctl.ops.download._STAMPS", str(tmp_path / "stamps"))
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Make an archive of these files and links, and say where it is."""
    origin = tmp_path / "origin"
    origin.mkdir()

    def make(name: str = "llama-b1.tar.gz", /, **members: bytes | str | tarfile.TarInfo) -> Download:
        path = origin / name
        kind = {"gz": "w:gz", "xz": "w:xz"}.get(name.rpartition(".")[2], "w")
        with tarfile.open(path, kind) as tar:
            for key, content in members.items():
                at = key.replace("__", "/")
                if isinstance(content, tarfile.TarInfo):
                    tar.addfile(content)
                elif isinstance(content, str):
                    link = tarfile.TarInfo(at)
                    link.type, link.linkname = tarfile.SYMTYPE, content
                    tar.addfile(link)
                else:
                    info = tarfile.TarInfo(at)
                    info.size, info.mode = len(content), 0o4777
                    tar.addfile(info, io.BytesIO(content))
        return described(path)

    return make


def described(path: Path) -> Download:
    return Download((f"file://{path}",), hashlib.sha256(path.read_bytes()).hexdigest())


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "opt/llama.cpp/cpu"


def place(shelf: Path, *archives: Download, version: str = "b1", program: str = "llama-server") -> Place:
    digest = hashlib.sha256("".join(one.sha256 for one in archives).encode()).hexdigest()
    return Place(str(shelf / version), program, digest, ARCH, ("labctl-chat.service",))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(here: Here, operation: Any, **arguments: Any) -> str:
    """Apply, expect that the last command fails, and return what it says."""
    last = here.apply(operation, **arguments)[-1]
    assert last.status != 0
    return last.stderr


def test_an_archive_is_unpacked_below_its_version_and_nothing_of_the_way_there_stays(
    here: Here, pack: Pack, shelf: Path, downloads: Path
) -> None:
    one = pack(
        **{"llama-b1__llama-server": SERVER, "llama-b1__lib__a.so": b"a", "llama-b1__a.so": "lib/a.so"}
    )
    wanted = place(shelf, one)
    here.must(engines.archive, place=wanted, archives=(one,))
    assert names(shelf) == ["b1", "b1/.labctl-build", "b1/a.so", "b1/lib", "b1/lib/a.so", "b1/llama-server"]
    assert (shelf / "b1/.labctl-build").read_text() == f"{wanted.digest}\n"
    assert (shelf / "b1/llama-server").stat().st_mode & 0o7777 == 0o755, "no setuid, not for others to write"
    assert names(downloads) == []
    assert here.apply(engines.archive, place=wanted, archives=(one,)) == []


def test_what_lies_at_the_top_or_in_a_zip_or_is_the_program_itself_is_taken_as_well(
    here: Here, pack: Pack, shelf: Path, tmp_path: Path
) -> None:
    flat = pack("flat.tar.xz", **{"llama-server": SERVER, "other": b""})
    here.must(engines.archive, place=place(shelf, flat, version="flat"), archives=(flat,))
    zipped = tmp_path / "b2.zip"
    with zipfile.ZipFile(zipped, "w") as held:
        info = zipfile.ZipInfo("build/llama-server")
        info.external_attr = 0o100755 << 16
        held.writestr(info, SERVER)
    here.must(engines.archive, place=place(shelf, version="zip"), archives=(described(zipped),))
    alone = tmp_path / "llama-server-linux"
    alone.write_bytes(SERVER)
    here.must(engines.archive, place=place(shelf, version="alone"), archives=(described(alone),))
    for version in ("flat", "zip", "alone"):
        done = subprocess.run([shelf / version / "llama-server"], capture_output=True, text=True, check=True)
        assert done.stdout == "server\n"


def test_a_second_archive_is_laid_beside_the_program_and_overwrites_nothing(
    here: Here, pack: Pack, shelf: Path
) -> None:
    one = pack("a.tar.gz", **{"llama-b1__llama-server": SERVER, "llama-b1__lib__own.so": b"own"})
    runtime = pack(
        "cudart.tar.gz", **{"cudart-b1__libcudart.so": b"c", "cudart-b1__llama-server": b"another"}
    )
    shared = pack("rocm.tar.gz", **{"lib__rocm.so": b"r"})
    here.must(engines.archive, place=place(shelf, one), archives=(one, runtime, shared))
    assert (shelf / "b1/libcudart.so").read_bytes() == b"c"
    assert (shelf / "b1/llama-server").read_bytes() == SERVER
    assert names(shelf / "b1/lib") == ["own.so", "rocm.so"]


HOSTILE = {
    "a name that climbs": member("../../evil"),
    "an absolute name": member("/tmp/evil"),
    "a link that leaves": member("x/out", tarfile.SYMTYPE, "/etc/passwd"),
    "a link that climbs": member("x/out", tarfile.SYMTYPE, "../../../etc"),
    "a link beside the folder that is all of it": member("x/out", tarfile.SYMTYPE, "../previous"),
    "a hard link that leaves": member("x/out", tarfile.LNKTYPE, "/etc/passwd"),
    "a name of two lines": member("x/a\nb"),
    "a device": member("x/null", tarfile.CHRTYPE),
    "a pipe": member("x/pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_that_reaches_beyond_its_folder_is_refused_as_a_whole(
    what: str, here: Here, pack: Pack, shelf: Path
) -> None:
    one = pack(**{"x__llama-server": SERVER, "evil": HOSTILE[what]})
    said = refused(here, engines.archive, place=place(shelf, one), archives=(one,))
    assert "refused" in said or "could not be unpacked" in said
    assert names(shelf) == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_that_would_fill_the_disk_is_refused_before_it_is_unpacked(
    kind: str, here: Here, pack: Pack, shelf: Path, tmp_path: Path
) -> None:
    if kind == "tar":
        here.stand_in("df", "printf 'Filesystem 1-blocks Used Available\\n/dev/x 4000000 3000000 1000000\\n'")
        one = pack(**{"llama-server": SERVER, "zeros": bytes(1_000_000)})
    else:
        with zipfile.ZipFile(tmp_path / "big.zip", "w") as held:
            held.writestr("llama-server", SERVER)
            held.filelist[0].file_size = 2**62  # as its directory will say
        one = described(tmp_path / "big.zip")
    said = refused(here, engines.archive, place=place(shelf, one), archives=(one,))
    assert "No space left on device" in said
    assert names(shelf) == []


def test_the_mark_of_a_build_is_labctls_whatever_the_archive_holds_by_its_name(
    here: Here, pack: Pack, shelf: Path
) -> None:
    one = pack(**{"llama-server": SERVER, ".labctl-build": "llama-server"})
    wanted = place(shelf, one)
    here.must(engines.archive, place=wanted, archives=(one,))
    assert (shelf / "b1/llama-server").read_bytes() == SERVER
    assert (shelf / "b1/.labctl-build").read_text() == f"{wanted.digest}\n"


def test_a_zip_with_a_link_is_refused(here: Here, shelf: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "b2.zip"
    with zipfile.ZipFile(zipped, "w") as held:
        info = zipfile.ZipInfo("llama-server")
        info.external_attr = 0o120777 << 16
        held.writestr(info, "/etc/passwd")
    assert "refused" in refused(here, engines.archive, place=place(shelf), archives=(described(zipped),))
    assert names(shelf) == []


@pytest.mark.parametrize(
    ("name", "members", "words"),
    [
        ("none.tar.gz", {"x__other": b""}, "the archive holds no llama-server"),
        ("a.tar", {"x__llama-server": SERVER}, "no archive that labctl knows"),
    ],
)
def test_an_archive_without_the_program_is_refused(
    name: str, members: dict[str, bytes], words: str, here: Here, pack: Pack, shelf: Path
) -> None:
    one = pack(name, **members)
    assert words in refused(here, engines.archive, place=place(shelf, one), archives=(one,))
    assert names(shelf) == []


def test_a_flipped_byte_is_refused_and_the_old_build_stays(here: Here, pack: Pack, shelf: Path) -> None:
    one = pack(**{"x__llama-server": SERVER})
    here.must(engines.archive, place=place(shelf, one), archives=(one,))
    path = Path(one.urls[0].removeprefix("file://"))
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    before = names(shelf)
    said = refused(here, engines.archive, place=place(shelf, one, one), archives=(one,))
    assert f"refused: {one.urls[0]} has the sha256" in said
    assert names(shelf) == before
    assert (shelf / "b1/llama-server").read_bytes() == SERVER


def test_another_build_of_one_version_takes_its_place_and_the_old_one_goes_when_unused(
    here: Here, pack: Pack, shelf: Path
) -> None:
    one, other = (
        pack("a.tar.gz", **{"llama-server": SERVER}),
        pack("b.tar.gz", **{"llama-server": SERVER + b"#"}),
    )
    here.must(engines.archive, place=place(shelf, one), archives=(one,))
    user = subprocess.Popen(["sleep", "60"], cwd=shelf / "b1")
    try:
        here.must(engines.archive, place=place(shelf, other), archives=(other,))
        assert (shelf / "b1/llama-server").read_bytes() == SERVER + b"#"
        root, keep = str(shelf.parent.parent), (str(shelf / "b1"),)
        assert here.apply(engines.old, root=root, keep=keep) == [], "somebody works in it"
    finally:
        user.kill()
        user.wait()
    here.must(engines.old, root=root, keep=keep)
    assert names(shelf) == ["b1", "b1/.labctl-build", "b1/llama-server"]


def test_what_a_killed_run_left_is_swept_and_what_others_made_is_left_alone(
    here: Here, pack: Pack, shelf: Path
) -> None:
    one = pack(**{"llama-server": SERVER})
    (shelf / ".labctl-new.killed/tree").mkdir(parents=True)
    (shelf / "mine").mkdir()
    here.must(engines.archive, place=place(shelf, one), archives=(one,))
    assert sorted(path.name for path in shelf.iterdir()) == ["b1", "mine"]
    with pytest.raises(OperationValueError, match="was not made by labctl; it is left alone"):
        here.apply(engines.archive, place=place(shelf, one, version="mine"), archives=(one,))


def test_a_build_for_another_processor_is_refused_before_anything_is_fetched(
    here: Here, pack: Pack, shelf: Path
) -> None:
    one = pack(**{"llama-server": SERVER})
    foreign = Place(str(shelf / "b1"), "llama-server", "0" * 64, "vax")
    with pytest.raises(OperationValueError, match="is for vax, and this host is"):
        here.apply(engines.archive, place=foreign, archives=(one,))


def test_a_build_that_needs_a_newer_driver_than_runs_is_refused(canned: Callable[..., Any]) -> None:
    wanted = Place("/opt/labctl/llama.cpp/cuda/b1", "llama-server", "0" * 64, "x86_64", least_driver=580)
    arguments = {"place": wanted, "archives": (Download(("file:///x.tar.gz",), "0" * 64),)}
    for driver, words in (
        ("570.195.03", "needs NVIDIA's driver 580, and 570.195.03 runs on this host"),
        ("580.95", ""),
    ):
        said = {"Installed": ["arch x86_64", "kind absent", f"driver {driver}"], "Verified": ["absent"]}
        if words:
            with pytest.raises(OperationValueError, match=words):
                canned(said, engines.archive, arguments)
        else:
            assert [one.name for one in canned(said, engines.archive, arguments)][-2:] == [
                "engine-unpack",
                "engine-forget",
            ]


def test_a_plan_says_what_comes_from_where(here: Here, pack: Pack, shelf: Path, diffs: Diffs) -> None:
    one = pack(**{"llama-server": SERVER})
    here.must(engines.archive, place=place(shelf, one), archives=(one,))
    assert (
        f"{shelf}/b1: not there -> build {place(shelf, one).digest[:12]} from {one.urls[0]}" in diffs.texts[0]
    )


@pytest.fixture
def versions(here: Here, pack: Pack, shelf: Path) -> tuple[Path, ...]:
    found = []
    for version in ("b1", "b2", "b3", "b4"):
        one = pack(f"{version}.tar.gz", **{"llama-server": SERVER + version.encode()})
        here.must(engines.archive, place=place(shelf, one, version=version), archives=(one,))
        found.append(shelf / version)
    return tuple(found)


def test_the_link_is_switched_at_once_and_the_build_before_it_stays(
    here: Here, shelf: Path, versions: tuple[Path, ...]
) -> None:
    current, previous = shelf / "current", shelf / "previous"
    here.must(engines.link, path=str(current), build="b1")
    assert not previous.is_symlink()
    assert here.apply(engines.link, path=str(current), build="b1") == []
    for new, old in (("b2", "b1"), ("b3", "b2")):
        here.must(engines.link, path=str(current), build=new)
        assert (current.readlink(), previous.readlink()) == (Path(new), Path(old))
    root = str(shelf.parent.parent)
    (shelf / "mine").mkdir()
    here.must(engines.old, root=root, keep=(str(versions[3]),))
    assert sorted(path.name for path in shelf.iterdir()) == ["b2", "b3", "b4", "current", "mine", "previous"]
    assert here.apply(engines.old, root=root, keep=(str(versions[3]),)) == []


def test_a_link_leads_only_to_what_is_there_and_never_replaces_a_folder(
    here: Here, shelf: Path, versions: tuple[Path, ...]
) -> None:
    assert "there is no" in refused(here, engines.link, path=str(shelf / "current"), build="b9")
    (shelf / "taken").mkdir()
    assert "is no link" in refused(here, engines.link, path=str(shelf / "taken"), build="b1")


def test_who_runs_a_build_that_changes_is_owed_a_restart(
    here: Here, pack: Pack, shelf: Path, tmp_path: Path
) -> None:
    one = pack(**{"llama-server": SERVER})
    here.must(engines.archive, place=place(shelf, one), archives=(one,))
    assert names(tmp_path / "notes") == ["labctl-chat.service"]
    here.must(engines.link, path=str(shelf / "current"), build="b1", units=("labctl-other.service",))
    assert names(tmp_path / "notes") == ["labctl-chat.service", "labctl-other.service"]


def test_the_backend_that_was_proved_is_led_to_and_vulkan_where_none_is(
    here: Here, shelf: Path, tmp_path: Path
) -> None:
    root = shelf.parent
    for backend in ("rocm", "vulkan"):
        (root / backend).mkdir(parents=True)
    choice = tmp_path / "backend.env"
    here.must(engines.proved, path=str(root / "auto"), choice=str(choice))
    assert (root / "auto").readlink() == Path("vulkan")
    for said, leads_to in (("rocm", "rocm"), ("none", "vulkan")):
        choice.write_text(f"# header\nLABCTL_BACKEND={said}\n")
        here.must(engines.proved, path=str(root / "auto"), choice=str(choice))
        assert (root / "auto").readlink() == Path(leads_to)


# --- virtual environments ---


@pytest.fixture(scope="session")
def uv() -> Path:
    """The real uv; skips where there is none."""
    return uv_kit.program()


def wheel(folder: Path, version: str = "1.0", says: str = "served") -> str:
    """Make a wheel with one program, vllm; return the line that locks it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"vllm-{version}-py3-none-any.whl"
    info = f"vllm-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as held:
        held.writestr("vllm.py", f"def main():\n    print({says!r})\n")
        held.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        held.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        held.writestr(f"{info}/entry_points.txt", "[console_scripts]\nvllm = vllm:main\n")
        held.writestr(f"{info}/RECORD", "")
    return f"vllm=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def environment(shelf: Path, uv: Path, wheels: Path, locked: str) -> dict[str, Any]:
    """Return the arguments that have an environment made of ``locked``."""
    return {
        "place": Place(str(shelf / "1.0"), "bin/vllm", hashlib.sha256(locked.encode()).hexdigest(), ARCH),
        "requirements": locked.encode(),
        "uv": str(uv),
        "python": "/usr/bin/python3",
        "options": ("--no-index", "--find-links", f"file://{wheels}"),
    }


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "UV_CACHE", str(tmp_path / "uv-cache"))


@pytest.mark.usefixtures("cache")
def test_an_environment_is_made_of_a_folder_of_wheels_and_runs_where_it_comes_to_lie(
    here: Here, uv: Path, shelf: Path, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    first = environment(shelf, uv, wheels, wheel(wheels))
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.py").write_text("")
    here.must(engines.python_env, **first, source=str(source))
    assert subprocess.check_output([shelf / "1.0/bin/vllm"], text=True) == "served\n"
    assert (shelf / "1.0/src/main.py").exists()
    assert sorted(path.name for path in shelf.iterdir()) == ["1.0"]
    here.must(engines.python_env, **environment(shelf, uv, wheels, wheel(wheels, says="served anew")))
    assert subprocess.check_output([shelf / "1.0/bin/vllm"], text=True) == "served anew\n"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("spoil", ["the hash", "the file"])
def test_an_environment_of_other_bytes_is_refused_and_the_old_one_stays(
    spoil: str, here: Here, uv: Path, shelf: Path, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    here.must(engines.python_env, **environment(shelf, uv, wheels, wheel(wheels)))
    locked = wheel(wheels, "2.0")
    if spoil == "the hash":
        locked = locked[:-9] + "00000000\n"
    else:
        wheel(wheels, "2.0", says="somebody else's")
    said = refused(here, engines.python_env, **environment(shelf, uv, wheels, locked))
    assert "Hash mismatch" in said
    assert "nothing was changed" in said
    assert subprocess.check_output([shelf / "1.0/bin/vllm"], text=True) == "served\n"
    assert sorted(path.name for path in shelf.iterdir()) == ["1.0"]


# --- flags ---

HELP = """\
--threads N     number of threads
--flash-attn [on|off|auto]   set it
--draft N  the argument has been removed. use --spec-draft
"""


@pytest.fixture
def asked(here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program with a help, asked without systemd; it counts how often it was asked."""
    monkeypatch.setattr(engines, "HELPS", str(tmp_path / "helps"))
    here.stand_in("systemd-run", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    program = tmp_path / "build/llama-server"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho asked >>{tmp_path}/count\ncat <<'END'\n{HELP}END\n")
    program.chmod(0o755)
    (program.parent / ".labctl-build").write_text("digest\n")
    return program


def flags_of(program: Path, *argv: str) -> dict[str, Any]:
    def place(flag: str) -> tuple[str, int | None, str]:
        return "rack.py", 12, f"extra_args[{argv.index(flag)}]"

    return {"program": str(program), "asks": ("--help",), "uses": (engines.Use("chat", argv, place),)}


def test_flags_that_a_build_knows_pass_and_it_is_asked_once(here: Here, asked: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert (
            here.apply(engines.known_flags, **flags_of(asked, "--threads", "4", "--flash-attn", "on")) == []
        )
    assert (tmp_path / "count").read_text() == "asked\n"
    (asked.parent / ".labctl-build").write_text("another digest\n")
    here.apply(engines.known_flags, **flags_of(asked))
    assert (tmp_path / "count").read_text() == "asked\n" * 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--thread", "4"), "there is no flag --thread in {program} (did you mean --threads?)"),
        (("--draft", "4"), "--draft has been removed in {program} (use --spec-draft)"),
        (
            ("--flash-attn", "maybe"),
            "'maybe' is no value of --flash-attn in {program} (it takes: on, off, auto)",
        ),
    ],
)
def test_a_flag_that_a_build_does_not_know_is_refused_where_it_is_said(
    argv: tuple[str, ...], words: str, here: Here, asked: Path
) -> None:
    with pytest.raises(LabctlError) as raised:
        here.apply(engines.known_flags, **flags_of(asked, *argv))
    said = f"rack.py:12: host here: extra_args[0]: service chat: {words.format(program=asked)}"
    assert str(raised.value) == said


def test_a_program_that_is_not_there_or_names_no_flags_is_not_judged(here: Here, asked: Path) -> None:
    assert here.apply(engines.known_flags, **flags_of(asked.parent / "absent", "--any")) == []
    asked.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 3\n")
    assert here.apply(engines.known_flags, **flags_of(asked, "--any")) == []
    asked.write_text("#!/bin/sh\necho hello\n")
    assert here.apply(engines.known_flags, **flags_of(asked, "--any")) == []
