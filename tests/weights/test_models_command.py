"""`labctl models`: what is shown, what is refused, what is asked, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from local_hosts import Hub, LocalHosts, sha256
from rich.console import Console

from labctl import wiring
from labctl.cli import main, models_view, printer
from labctl.domain import parts
from labctl.weights.news import Moved

CONTENT = bytes(range(256)) * 10_000
PATH = "/srv/models/tiny/tiny.gguf"
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIIiI3TA0PgHfAVdEoPOZPTLZFzMDVGXGUPmFaAAu2uf8"
RACK = """\
from labctl.inventory import Command, Host, Model, ModelFile, Rack, Secret
serves = [Command(name="any", argv=["/bin/true"], model="tiny")]
rack = Rack(name="r", models=[{models}], hosts=[
    Host(name="rig", address="10.0.0.1", services={services}),
    Host(name="nas", address="10.0.0.2"),
    Host(name="hub", address="10.0.0.3", services={services}),
])
globals().update(rack.groups())
"""


class Bench:
    """labctl in this process, on local hosts."""

    def __init__(self, folder: Path, lan: LocalHosts, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.lan, self.capsys = folder, lan, capsys
        self.file = folder / "rack.py"
        pinned = (f"10.0.0.{number} ssh-ed25519 {KEY}\n" for number in (1, 2, 3))
        (folder / "known_hosts").write_text("".join(pinned))

    def declare(self, *models: str, serves: bool = True) -> None:
        text = RACK.format(models=", ".join(models), services="serves" if serves else "[]")
        self.file.write_text(text)

    def run(self, *argv: str) -> tuple[int, str, str]:
        code = main.main(["models", *argv, "-i", str(self.file)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def document(self, *argv: str, code: int = 0) -> Any:
        done = self.run(*argv, "--json")
        assert done[0] == code, done
        return json.loads(done[1])


def tiny(url: str, more: str = "") -> str:
    return f'Model(id="tiny", aliases=["small"], source="{url}/tiny.gguf", sha256="{sha256(CONTENT)}"{more})'


@pytest.fixture
def bench(
    tmp_path: Path, lan: LocalHosts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    monkeypatch.setenv("LABCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(wiring, "talker", lambda: lan)
    return Bench(tmp_path, lan, capsys)


def test_from_nothing_to_everywhere_and_away_again(bench: Bench, hub: Hub) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    code, out, _ = bench.run("ls")
    assert code == 0
    assert out.splitlines() == [
        "MODEL  FILE       SIZE  WANTED BY  ON HOSTS",
        "tiny   tiny.gguf  ?     rig, hub   absent: rig, hub",
    ]
    code, out, _ = bench.run("pull")
    assert code == 0
    assert sorted(out.splitlines()[:2]) == ["hub: has  tiny (2.4 MiB)", "rig: has  tiny (2.4 MiB)"]
    assert "2 files brought" in out and "2 hosts ok" in out
    code, out, _ = bench.run("pull", "small", "--host", "nas")
    assert code == 0 and "1 file brought" in out
    assert len(hub.asked) == 1
    assert "verified: rig, nas, hub" in bench.run("ls")[1]
    code, out, _ = bench.run("verify")
    assert (code, out) == (0, "Result: 2 of 2 files right: 2 hosts ok\n")

    bench.declare(serves=False)
    code, out, _ = bench.run("gc", "--dry-run")
    assert code == 0 and "3 files would be removed, 7.3 MiB" in out and "no model refers to it" in out
    assert bench.lan.path("rig", PATH).exists()
    code, out, _ = bench.run("gc", "--yes")
    assert code == 0 and "3 files removed, 7.3 MiB" in out
    assert not bench.lan.path("rig", PATH).exists()
    code, out, _ = bench.run("gc", "--yes")
    assert (code, out) == (0, "Result: 0 files removed, 0 B: 3 hosts ok\n")


def test_gc_asks_first_and_a_no_removes_nothing(
    bench: Bench, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    bench.run("pull")
    bench.declare(serves=False)
    code, _, err = bench.run("gc")
    assert code == 2 and "nothing was removed: 2 files of 4.9 MiB on 2 hosts need a yes" in err
    asked: list[str] = []
    monkeypatch.setattr(printer, "can_ask", lambda: True)
    monkeypatch.setattr(printer, "confirm", lambda question: asked.append(question))
    code, out, _ = bench.run("gc")
    assert code == 130 and "Nothing was removed." in out
    assert asked == ["Remove 2 files of 4.9 MiB on 2 hosts?"]
    assert bench.lan.path("rig", PATH).exists()
    code, _, err = bench.run("gc", "--json")
    assert code == 2 and "--json cannot ask" in err


@pytest.mark.parametrize("verb", ["verify", "pull"])
def test_what_an_admin_copied_there_stays_even_if_it_was_verified(bench: Bench, hub: Hub, verb: str) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    copied = bench.lan.write("rig", PATH, CONTENT)
    bench.run(verb)
    assert bench.run("ls")[1].count("verified") == 1
    bench.declare(serves=False)
    code, out, _ = bench.run("gc", "--yes")
    assert code == 0 and copied.read_bytes() == CONTENT
    assert ("1 file removed" if verb == "pull" else "0 files removed") in out


def test_what_labctl_brought_stays_its_own_when_its_times_move(bench: Bench, hub: Hub) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    bench.run("pull")
    os.utime(bench.lan.path("rig", PATH), (1, 1))
    assert bench.run("verify")[0] == 0
    bench.declare(serves=False)
    assert "2 files removed" in bench.run("gc", "--yes")[1]


def test_names_that_are_no_text_or_no_line_stop_nobody(bench: Bench, hub: Hub) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    folder = bench.lan.write("rig", "/srv/models/x/a", b"").parent
    for name in (b"\xff\xfe.gguf", b"a\nb", b"\x1b[31m", "模 $(id).gguf".encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(b"x")
    for argv in (("pull",), ("ls",), ("gc", "--dry-run")):
        code, out, err = bench.run(*argv)
        assert code == 0 and "\x1b" not in out + err, (argv, out, err)
    said = bench.document("gc", "--yes")
    assert len(said["unreferred"]["rig"]) == 5 and not any(one["goes"] for one in said["unreferred"]["rig"])


def test_a_flipped_byte_is_named_by_host_file_and_part(bench: Bench, hub: Hub) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    bench.run("pull")
    with bench.lan.path("hub", PATH).open("r+b") as stream:
        stream.seek(parts.MIB + 5)
        stream.write(b"\xff")
    code, out, _ = bench.run("verify")
    assert code == 1
    assert f"hub: wrong  tiny: {PATH} is wrong in part 1 (bytes 1048576 to 2097151)" in out
    assert "1 of 2 files right: 1 of 2 hosts failed: hub" in out
    said = bench.document("verify", code=1)
    assert [one["wrong_parts"] for one in said["checked"] if one["host"] == "hub"] == [[1]]
    assert "unverified: hub" in bench.run("ls")[1]
    assert bench.run("pull")[0] == 0
    assert bench.run("verify")[0] == 0


def test_a_part_is_named_by_another_hosts_copy_where_none_were_kept(bench: Bench, hub: Hub) -> None:
    bench.declare(tiny(hub.url))
    bench.lan.write("rig", PATH, CONTENT)
    bench.lan.write("hub", PATH, CONTENT[:-1] + b"?")
    said = bench.document("verify", code=1)
    assert {one["host"]: (one["verdict"], one["wrong_parts"]) for one in said["checked"]} == {
        "rig": ("ok", []),
        "hub": ("wrong", [2]),
    }


def test_a_missing_file_is_a_finding_of_verify(bench: Bench, hub: Hub) -> None:
    bench.declare(tiny(hub.url))
    bench.lan.write("rig", PATH, CONTENT)
    code, out, _ = bench.run("verify")
    assert code == 1 and f"hub: absent  tiny: there is no {PATH}" in out


@pytest.mark.parametrize(
    ("off", "code", "because"),
    [
        ({"hub"}, 4, "1 of 2 hosts finished; not done: hub"),
        ({"rig", "hub"}, 3, "no host could be reached: rig, hub"),
    ],
)
def test_hosts_that_are_off_are_said_and_decide_the_exit_code(
    bench: Bench, hub: Hub, off: set[str], code: int, because: str
) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url))
    bench.lan.off = off
    done = bench.run("pull")
    assert done[0] == code and because in done[1]
    assert "did not answer within 10 s" in done[2]
    assert bench.run("verify")[0] == code if len(off) == 2 else True


def test_a_failed_host_is_exit_1_with_its_reason(bench: Bench, hub: Hub) -> None:
    bench.declare(tiny(hub.url))
    code, out, _ = bench.run("pull")
    assert code == 1
    assert f"{hub.url}/tiny.gguf answered 404" in out
    said = bench.document("pull", code=1)
    assert [host["status"] for host in said["hosts"]] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("pull", "tinny"), "the rack has no model 'tinny'"),
        (("pull", "--host", "rog"), "no host or group fits 'rog'"),
        (("pull", "--host", "nas"), "there is nothing to bring"),
        (("pull", "--from", "rig"), "it has no tiny, so nobody can get it from there"),
        (("pull", "--from", "rig,nas"), "--from names 2 hosts"),
        (("verify", "--host", "nas"), "no service of these hosts serves such a model"),
    ],
)
def test_refused_with_its_reason(bench: Bench, hub: Hub, argv: tuple[str, ...], words: str) -> None:
    bench.declare(tiny(hub.url))
    code, _, err = bench.run(*argv)
    assert code == 2 and words in err


def test_a_host_without_a_pinned_key_stops_before_anything_is_contacted(bench: Bench, hub: Hub) -> None:
    bench.declare(tiny(hub.url))
    (bench.folder / "known_hosts").write_text("")
    code, _, err = bench.run("pull")
    assert code == 2 and "no pinned host key: rig, hub" in err
    assert bench.lan.talks == {}


def test_a_gated_repository_gets_its_token_and_nothing_shows_it(
    bench: Bench, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["/tiny.gguf"] = CONTENT
    bench.declare(tiny(hub.url, ', token=Secret(env="MY_TOKEN")'))
    code, _, err = bench.run("pull")
    assert code == 2 and "MY_TOKEN is not set" in err
    monkeypatch.setenv("MY_TOKEN", "hf_verysecret")
    code, out, err = bench.run("pull")
    assert code == 0 and hub.asked[-1][2] == "Bearer hf_verysecret"
    assert "verysecret" not in out + err
    assert all("verysecret" not in json.dumps(said) for _, said in bench.lan.said)


def test_a_token_is_not_sent_in_the_clear(bench: Bench, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hf_verysecret")
    bench.declare(tiny("http://hub.lan", ', token=Secret(env="MY_TOKEN")'))
    code, _, err = bench.run("pull")
    assert code == 2 and "would travel in the clear to http://hub.lan/tiny.gguf" in err
    assert bench.lan.talks == {}


def test_a_partial_download_is_shown_by_its_share(bench: Bench, hub: Hub) -> None:
    files = f'files=[ModelFile(name="a.gguf", sha256="{sha256(CONTENT)}", size={len(CONTENT)})]'
    bench.declare(f'Model(id="tiny", source="{hub.url}/d", {files})')
    bench.lan.write("rig", f"/srv/models/tiny/.labctl-get.{sha256(CONTENT)[:32]}", CONTENT[: parts.MIB])
    assert "40%: rig; absent: hub" in bench.run("ls")[1]
    assert bench.document("ls")["files"][0]["on"]["rig"] == {
        "state": "40%",
        "size": 0,
        "begun": parts.MIB,
    }


def test_in_a_terminal_each_host_has_a_bar_that_says_from_whom(
    bench: Bench, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["/tiny.gguf"], hub.hold_at = CONTENT, parts.MIB
    bench.declare(tiny(hub.url))
    monkeypatch.setattr(printer, "interactive", lambda: True)

    class Screen(io.StringIO):
        """The source goes on once both bars were seen in the middle."""

        def write(self, text: str) -> int:
            done = super().write(text)
            if self.getvalue().count("1.0/2.4 MiB") > 1 and "tiny from " in self.getvalue():
                hub.go_on.set()
            return done

    screen = Screen()
    drawn = {"force_terminal": True, "width": 140, "no_color": True, "highlight": False}
    monkeypatch.setattr(printer, "console", lambda: Console(file=screen, **drawn))  # type: ignore[arg-type]
    code, out, _ = bench.run("pull")
    assert code == 0 and "rig: has  tiny (2.4 MiB)" in out
    assert hub.go_on.is_set()
    shown = screen.getvalue()
    assert "tiny from rig" in shown or "tiny from hub" in shown


def test_a_bar_tells_rate_and_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    drawn = {"force_terminal": True, "width": 140, "no_color": True, "highlight": False}
    monkeypatch.setattr(printer, "interactive", lambda: True)
    monkeypatch.setattr(printer, "console", lambda: Console(file=screen, **drawn))  # type: ignore[arg-type]
    with models_view.Transfers((), quiet=False) as view:
        for there in (0, 30 * parts.MIB, 60 * parts.MIB):
            view.on_news(Moved("rig", PATH, there, 10**12, "hub"))
        assert view._bars is not None
        view._bars.refresh()
    assert re.search(r"rig .* 60\.0 MiB/931\.3 GiB|rig .* 0\.1/931\.3 GiB", screen.getvalue())
    assert re.search(
        r"[\d.]+ [kMGTP]?B/s \d+:\d\d:\d\d /srv/models/tiny/tiny.gguf from hub", screen.getvalue()
    )
