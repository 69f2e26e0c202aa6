"""Files go from host to host: real programs, real sockets, real faults."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from local_hosts import Hub, LocalHosts, loaded, sha256

from labctl.domain import parts
from labctl.inventory import Command, Host, Model, ModelFile, Rack
from labctl.weights import places
from labctl.weights.host import stamps
from labctl.weights.news import Moved, News, Noted, Result, Wish
from labctl.weights.pull import pull

CONTENT = os.urandom(5 * parts.MIB + 12345)
PATH = "/srv/models/m/m.gguf"
NAMES = tuple(f"h{number}" for number in range(8))


def rack(
    url: str, hosts: tuple[str, ...] = NAMES, content: bytes = CONTENT, mirror: str | None = None
) -> Rack:
    serves = (Command(name="any", argv=("/bin/true",), model="m"),)
    return Rack(
        name="r",
        hosts=tuple(Host(name=h, address=f"10.0.0.{n}", services=serves) for n, h in enumerate(hosts, 1)),
        models=(Model(id="m", source=url, path=PATH, sha256=sha256(content)),),
        mirror=mirror,
    )


class Driven:
    """A pull on local hosts."""

    def __init__(self, lan: LocalHosts, folder: Path) -> None:
        self.lan, self.folder = lan, folder
        self.news: list[News] = []

    def pull(
        self,
        rack: Rack,
        source: str | None = None,
        tokens: dict[str, str] | None = None,
        on_news: Callable[[News], None] | None = None,
    ) -> Result:
        self.news.clear()
        racked = loaded(rack, self.folder)
        wish = Wish(places.to_pull(racked, (), ()), source, tokens or {})
        return pull(racked, wish, self.lan, on_news or self.news.append)

    def notes(self) -> list[str]:
        return [news.text for news in self.news if isinstance(news, Noted)]

    def left(self, host: str) -> list[str]:
        """Return what lies in the model's folder on a host."""
        folder = self.lan.path(host, PATH).parent
        return os.listdir(folder) if folder.is_dir() else []

    def right(self, *hosts: str, content: bytes = CONTENT) -> None:
        for host in hosts:
            place = self.lan.path(host, PATH)
            assert place.read_bytes() == content, host
            assert os.listdir(place.parent) == ["m.gguf"]


@pytest.fixture
def driven(lan: LocalHosts, tmp_path: Path) -> Driven:
    return Driven(lan, tmp_path)


def test_eight_hosts_get_it_and_it_leaves_the_source_once(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    result = driven.pull(rack(f"{hub.url}/m.gguf"))
    assert {result.status(host) for host in NAMES} == {"ok"}
    driven.right(*NAMES)
    assert hub.sent == len(CONTENT)
    # A chain: each host but the last hands everything on once.
    assert sorted(result.sent.values()) == [0, *[len(CONTENT)] * 7]


def test_from_one_host_that_has_it_each_byte_leaves_it_at_most_twice(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:1]))
    result = driven.pull(rack("http://127.0.0.1:9/gone.gguf"), source="h0")
    assert {result.status(host) for host in NAMES} == {"ok"}
    driven.right(*NAMES)
    assert result.sent["h0"] == len(CONTENT)


def test_a_second_pull_moves_and_hashes_nothing(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:3]))
    before = [driven.lan.path(host, PATH).stat().st_ctime_ns for host in NAMES[:3]]
    driven.lan.said.clear()
    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:3]))
    assert result.came == 0 and {result.status(host) for host in NAMES[:3]} == {"ok"}
    assert [driven.lan.path(host, PATH).stat().st_ctime_ns for host in NAMES[:3]] == before
    assert not [said for _, said in driven.lan.said if said["event"] in ("begun", "verified")]
    assert len(hub.asked) == 1


def test_a_file_that_an_admin_copied_there_is_hashed_and_then_handed_on(driven: Driven) -> None:
    driven.lan.write("h1", PATH, CONTENT)
    result = driven.pull(rack("http://127.0.0.1:9/gone.gguf", NAMES[:3]))
    assert {result.status(host) for host in NAMES[:3]} == {"ok"}
    driven.right(*NAMES[:3])


def test_a_wrong_file_that_lies_there_is_said_and_replaced(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.lan.write("h1", PATH, b"something else")
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
    driven.right(*NAMES[:2])
    assert Noted("h1", f"what lies at {PATH} is another file, and is replaced") in driven.news


# --- addresses ---


def test_the_mirror_is_asked_first(driven: Driven, hub: Hub) -> None:
    hub.files["/mirror/m/m.gguf"] = CONTENT
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2], mirror=f"{hub.url}/mirror"))
    driven.right(*NAMES[:2])
    assert [path for path, _, _ in hub.asked] == ["/mirror/m/m.gguf"]


def test_a_mirror_without_it_is_passed_over_and_said(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2], mirror=f"{hub.url}/mirror"))
    driven.right(*NAMES[:2])
    assert any("/mirror/m/m.gguf answered 404; it came from" in note for note in driven.notes())


def test_a_mirror_that_lies_is_refused_and_nobody_keeps_what_it_gave(driven: Driven, hub: Hub) -> None:
    hub.files["/mirror/m/m.gguf"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    hub.files["/m.gguf"] = CONTENT
    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:4], mirror=f"{hub.url}/mirror"))
    assert {result.status(host) for host in NAMES[:4]} == {"ok"}
    driven.right(*NAMES[:4])
    refused = f"refused: {hub.url}/mirror/m/m.gguf is not what sha256 {sha256(CONTENT)} says"
    assert any(refused in note for note in driven.notes())


def test_an_address_that_lies_fails_every_host_once_and_leaves_nothing(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:4]))
    assert {result.status(host) for host in NAMES[:4]} == {"failed"}
    assert all("refused:" in reason for host in NAMES[:4] for reason in result.reasons(host))
    assert hub.sent == len(CONTENT)
    for host in NAMES[:4]:
        assert driven.left(host) == []


def test_a_server_with_another_size_is_refused_before_it_is_read(driven: Driven, hub: Hub) -> None:
    hub.files["/d/m.gguf"] = CONTENT + b"more"
    wanted = rack(f"{hub.url}/m.gguf", NAMES[:1])
    model = Model(
        id="m",
        source=f"{hub.url}/d",
        path="/srv/models/m",
        files=(ModelFile(name="m.gguf", sha256=sha256(CONTENT), size=len(CONTENT)),),
    )
    result = driven.pull(wanted.model_copy(update={"models": (model,)}))
    (reason,) = result.reasons("h0")
    assert f"has {len(CONTENT) + 4} bytes, and {len(CONTENT)} are expected" in reason


def test_a_server_that_tells_no_size_works_too(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"], hub.lengths = CONTENT, False
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:3]))
    driven.right(*NAMES[:3])
    assert hub.sent == len(CONTENT)


def test_the_token_goes_to_the_models_own_host_alone(driven: Driven, hub: Hub) -> None:
    elsewhere = hub.url.replace("127.0.0.1", "localhost")
    hub.redirect["/gated.gguf"] = "/moved.gguf"
    hub.redirect["/moved.gguf"] = f"{elsewhere}/cdn.gguf"
    hub.files["/cdn.gguf"] = CONTENT
    driven.pull(
        rack(f"{hub.url}/gated.gguf", NAMES[:1], mirror=f"{elsewhere}/mirror"), tokens={"m": "hf_secret"}
    )
    assert [(path, token) for path, _, token in hub.asked] == [
        ("/mirror/m/gated.gguf", ""),
        ("/gated.gguf", "Bearer hf_secret"),
        ("/moved.gguf", "Bearer hf_secret"),
        ("/cdn.gguf", ""),
    ]


def test_a_missing_token_is_hinted_at(driven: Driven, hub: Hub) -> None:
    result = driven.pull(rack(f"{hub.url}/nothing.gguf", NAMES[:2]))
    assert {result.status(host) for host in NAMES[:2]} == {"failed"}
    assert all("answered 404" in reason for reason in result.reasons("h1"))


# --- cuts ---


@pytest.mark.parametrize("boundary", range(6))
def test_a_source_that_breaks_off_at_any_part_is_asked_for_the_rest(
    driven: Driven, hub: Hub, boundary: int
) -> None:
    hub.files["/m.gguf"] = CONTENT
    hub.cut_after = [boundary * parts.MIB + 100]
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
    driven.right(*NAMES[:2])
    again = [asked for _, asked, _ in hub.asked][1:]
    assert again == [f"bytes={boundary * parts.MIB}-" if boundary else ""]


@pytest.mark.parametrize("boundary", range(1, 6))
@pytest.mark.parametrize("victim", ["h0", "h1"])
def test_a_host_that_dies_at_any_part_stops_nobody_and_resumes_later(
    driven: Driven, hub: Hub, boundary: int, victim: str
) -> None:
    hub.files["/m.gguf"], hub.hold_at = CONTENT, boundary * parts.MIB

    def on_event(host: str, said: dict[str, object]) -> None:
        # All have what the source gave so far; then one dies, and the source gives the rest.
        there = said["there"] if said["event"] == "progress" else 0
        if host == "h2" and there == boundary * parts.MIB and victim not in driven.lan.off:
            driven.lan.kill(victim)
            hub.hold_at = None
            hub.go_on.set()

    driven.lan.on_event = on_event
    names = NAMES[:3]
    result = driven.pull(rack(f"{hub.url}/m.gguf", names))
    others = [name for name in names if name != victim]
    assert {name: result.status(name) for name in names} == {
        name: "failed" if name == victim else "ok" for name in names
    }
    driven.right(*others)
    kept = driven.lan.path(victim, f"/srv/models/m/.labctl-get.{sha256(CONTENT)[:32]}").stat().st_size
    assert kept >= boundary * parts.MIB
    driven.lan.off.clear()
    again = driven.pull(rack("http://127.0.0.1:9/gone.gguf", names))
    driven.right(*names)
    assert again.came == 1
    assert sum(again.sent.values()) == len(CONTENT) - kept // parts.MIB * parts.MIB


def test_ctrl_c_keeps_what_came_and_ends_every_program(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"], hub.hold_at = CONTENT, 3 * parts.MIB

    def interrupt(news: News) -> None:
        driven.news.append(news)
        if isinstance(news, Moved) and news.host == "h1" and news.there == 3 * parts.MIB:
            raise KeyboardInterrupt

    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]), on_news=interrupt)
    hub.go_on.set()
    assert result.interrupted
    assert {result.status(host) for host in NAMES[:2]} == {"interrupted"}
    assert all(talk.process.poll() is not None for talk in driven.lan.talks.values())
    hub.hold_at = None
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
    driven.right(*NAMES[:2])
    assert hub.asked[-1][1] == f"bytes={3 * parts.MIB}-"


def test_a_source_that_cannot_resume_is_read_over_and_nothing_is_written_twice(
    driven: Driven, hub: Hub
) -> None:
    hub.files["/m.gguf"], hub.ranges, hub.cut_after = CONTENT, False, [3 * parts.MIB + 5]
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
    driven.right(*NAMES[:2])
    assert len(hub.asked) == 2


@pytest.mark.parametrize("with_list", [True, False], ids=["with its list", "as curl leaves it"])
def test_what_an_earlier_run_left_is_read_once_and_kept_as_far_as_it_is_right(
    driven: Driven, hub: Hub, with_list: bool
) -> None:
    hub.files["/m.gguf"] = CONTENT
    begun = bytearray(CONTENT[: 3 * parts.MIB + 77])
    if with_list:
        begun[2 * parts.MIB] ^= 1
    name = f"/srv/models/m/.labctl-get.{sha256(CONTENT)[:32]}"
    driven.lan.write("h0", name, bytes(begun))
    if with_list:
        digests = [sha256(CONTENT[at * parts.MIB :][: parts.MIB]) for at in range(3)]
        lines = [f"labctl-parts 1 {len(CONTENT)} {parts.MIB}", *digests]
        driven.lan.write("h0", f"{name}.parts", "".join(f"{line}\n" for line in lines).encode())
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:1]))
    driven.right("h0")
    # A server is asked once without a range where the size is not known, and then for what is missing.
    assert hub.asked[-1][1] == f"bytes={(2 if with_list else 3) * parts.MIB}-"


def test_a_begun_file_that_is_wrong_is_thrown_away_and_begun_anew(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.lan.write("h0", f"/srv/models/m/.labctl-get.{sha256(CONTENT)[:32]}", b"x" * 2 * parts.MIB)
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
    driven.right(*NAMES[:2])


# --- hosts that lie, fail or are away ---


def test_a_host_that_is_off_stops_nobody(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.lan.off.add("h0")
    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:3]))
    assert {host: result.status(host) for host in NAMES[:3]} == {"h0": "unreachable", "h1": "ok", "h2": "ok"}
    driven.right("h1", "h2")


def test_a_byte_that_flipped_on_a_holder_is_noticed_in_its_part_and_another_one_is_asked(
    driven: Driven, hub: Hub
) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:1]))
    rotten = driven.lan.path("h0", PATH)
    with rotten.open("r+b") as stream:
        stream.seek(2 * parts.MIB)
        stream.write(bytes([CONTENT[2 * parts.MIB] ^ 1]))
    # As if the disk had done it: the stamp holds, since nobody wrote to the file.
    (stamp,) = [path for path in (driven.lan.folder / "h0" / "verified").iterdir() if not path.suffix]
    stamp.write_text(f"{stamps.identity(rotten.stat())} {sha256(CONTENT)}\n")
    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:3]))
    assert result.status("h1") == result.status("h2") == "ok"
    driven.right("h1", "h2")
    assert any("h0 gave no part 2 of it: part 2 came damaged" in note for note in driven.notes())


def test_a_folder_that_others_may_write_is_refused_by_its_host_alone(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    driven.lan.path("h0", "/srv/models/m").mkdir(parents=True)
    driven.lan.path("h0", "/srv/models/m").chmod(0o777)
    result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
    assert result.status("h0") == "failed" and result.status("h1") == "ok"
    assert "others may write in /srv/models/m" in next(result.reasons("h0"))


def test_a_file_that_cannot_fit_is_refused_before_the_first_byte(driven: Driven, hub: Hub) -> None:
    wanted = rack(f"{hub.url}/m.gguf", NAMES[:2])
    model = Model(
        id="m", source=f"{hub.url}/d", files=(ModelFile(name="m.gguf", sha256="ab" * 32, size=2**50),)
    )
    result = driven.pull(wanted.model_copy(update={"models": (model,)}))
    assert {result.status(host) for host in NAMES[:2]} == {"failed"}
    assert all("its disk is too small" in next(result.reasons(host)) for host in NAMES[:2])
    assert hub.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("lengths", [True, False], ids=["size is told", "size is not told"])
def test_a_full_disk_fails_its_host_alone(driven: Driven, hub: Hub, lengths: bool) -> None:
    hub.files["/m.gguf"], hub.lengths = CONTENT, lengths
    small = driven.lan.path("h1", "/srv")
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=755", "none", small], check=True)
    try:
        result = driven.pull(rack(f"{hub.url}/m.gguf", NAMES[:2]))
        assert result.status("h1") == "failed" and result.status("h0") == "ok"
        assert "No space left on device" in next(result.reasons("h1"))
        assert driven.left("h1") == []
        only = driven.pull(rack(f"{hub.url}/m.gguf", ("h1",)))
        assert "No space left on device" in next(only.reasons("h1"))
        assert driven.left("h1") == []
        space = os.statvfs(small)
        assert space.f_bavail * space.f_frsize >= parts.reserve(3 * parts.MIB)
    finally:
        subprocess.run(["umount", small], check=True)
    driven.right("h0")


# --- size ---


def test_a_large_file_takes_less_than_50_mb_of_memory(driven: Driven) -> None:
    size, peaks = 300 * parts.MIB, {}
    place = driven.lan.write("h0", PATH, b"")
    os.truncate(place, size)
    zeros = hashlib.sha256()
    for _ in range(300):
        zeros.update(bytes(parts.MIB))

    def on_event(host: str, said: dict[str, object]) -> None:
        if said["event"] == "done":
            for name, talk in driven.lan.talks.items():
                status = Path(f"/proc/{talk.process.pid}/status").read_text()
                peaks[name] = int(status.partition("VmHWM:")[2].split()[0])

    driven.lan.on_event = on_event
    wanted = rack("http://127.0.0.1:9/gone.gguf", NAMES[:2])
    model = wanted.models[0].model_copy(update={"sha256": zeros.hexdigest()})
    result = driven.pull(wanted.model_copy(update={"models": (model,)}))
    assert result.status("h1") == "ok"
    assert set(peaks) == {"h0", "h1"} and max(peaks.values()) < 50_000, peaks


def test_what_was_cut_between_its_last_byte_and_its_renaming_is_finished(driven: Driven, hub: Hub) -> None:
    hub.files["/m"] = CONTENT
    place = driven.lan.write("h0", PATH, b"").with_name(f".labctl-get.{sha256(CONTENT)[:32]}")
    place.with_name("m.gguf").unlink()
    place.write_bytes(CONTENT)
    result = driven.pull(rack(f"{hub.url}/m", hosts=NAMES[:1]))
    assert result.status("h0") == "ok", driven.notes()
    driven.right("h0")
    assert all(not asked for _, asked, _ in hub.asked)
