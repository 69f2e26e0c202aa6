"""``labctl health``: exit codes of monitoring plugins, each format, nobody woken, and nothing secret said."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, OFF, Hosts, fails
from prometheus_client.parser import text_string_to_metric_families

from labctl import wiring
from labctl.cli.main import main
from labctl.controller.answers import HostStatus
from labctl.domain.failures import Failure, HostError
from labctl.domain.health.expected import Expected
from labctl.domain.health.reading import evidence_of
from labctl.domain.health.terms import Case, EnginePast, Level, Result
from labctl.domain.sleep.lifecycle import Mode
from labctl.health import rules
from labctl.health.looking import Rules
from labctl.inventory import LoadedRack, load_rack
from labctl.ports import Said
from labctl.render import health as render

from post_office import Got, web  # isort: skip
from scripted_service import NOON, Scripted, serving  # isort: skip

CANARY = "canary-7f3a9c"
RACK = """\
from labctl.inventory import Controller, Health, Host, NtfyNotice, Rack, Secret, WebhookNotice

rack = Rack(name="desk", controller=Controller(host="nas"), controller_key="keys/c.pub", hosts=[
    Host(name="gpu-box", address="10.0.0.1"),
    Host(name="nas", address="10.0.0.2", roles=["always-on"]),
], health=Health(looks=1, notify=[
    NtfyNotice(address=Secret(file="keys/ntfy"), token=Secret(env="NTFY_TOKEN")),
    WebhookNotice(address=Secret(file="keys/hook"), form="discord"),
], ping=Secret(file="keys/ping")))
globals().update(rack.groups())
"""


def judged(case: Case) -> Sequence[Result]:
    """Judge a host by nothing but whether it answered, and what its document calls itself."""
    if case.evidence is not None:
        level = Level[case.evidence.agent or "OK"]
        return (Result("said", level, case.host, "", f"it says {level.name}", "mend it" if level else ""),)
    if case.sleep is not None and case.sleep.mode is Mode.ASLEEP:
        return (Result("reachable", Level.OK, case.host, "", "it sleeps on purpose"),)
    return (Result("reachable", Level.CRIT, case.host, "", case.unreachable),)


def same(past: tuple[EnginePast, ...], _: object) -> tuple[EnginePast, ...]:
    return past


def plain(loaded: LoadedRack, hosts: Sequence[str]) -> tuple[Rules, tuple[Expected, ...]]:
    return Rules(evidence_of, judged, lambda cases, now: (), same), tuple(Expected(host) for host in hosts)


def says(level: str) -> Callable[[Any], Said]:
    return lambda asked: Said(0, json.dumps({"agent": {"version": level}}).encode(), "")


class Nobody:
    def talk(self, *args: object, **kwargs: object) -> object:
        raise HostError(Failure("timeout", "10.0.0.2:22 did not answer"))


class Desk:
    """labctl health on a rack of two hosts, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.hosts = Hosts({"gpu-box": says("OK"), "nas": says("OK")})
        self.service = Scripted()
        self.home = folder / "STATE" / "health" / "desk"

    def __call__(self, *args: str) -> tuple[int, str, str]:
        code = main(["health", *args])
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def receiver() -> Iterator[Got]:
    with web() as got:
        yield got


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], receiver: Got
) -> Iterator[Desk]:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1,10.0.0.2 ssh-ed25519 {KEY}\n")
    (tmp_path / "keys").mkdir()
    for name in ("ntfy", "hook", "ping"):
        path = tmp_path / "keys" / name
        path.write_text(f"{receiver.address}/{CANARY}-{name}\n")
        path.chmod(0o600)
    monkeypatch.setenv("NTFY_TOKEN", f"{CANARY}-token")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "s"))
    monkeypatch.setattr(rules, "of", plain)
    found = Desk(tmp_path, capsys)
    monkeypatch.setattr(wiring, "remote", lambda: found.hosts)
    monkeypatch.setattr(wiring, "talker", Nobody)
    with serving(tmp_path / "s", found.service):
        yield found


@pytest.mark.parametrize("level", ["OK", "WARN", "CRIT", "UNKNOWN"])
@pytest.mark.parametrize("option", [(), ("--json",), ("--nagios",), ("--cron",)])
def test_the_gravest_level_is_the_exit_code_in_every_format(
    desk: Desk, level: str, option: tuple[str, ...]
) -> None:
    desk.hosts.plays["gpu-box"] = says(level)
    assert desk(*option)[0] == Level[level]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--jsno",), "No such option"),
        (("--deadline", "never"), "--deadline"),
        (("gpu-bux",), "gpu-bux"),
        (("--inventory", "nowhere.py"), "there is no rack file"),
        (("--json", "--cron"), "give only one of --json and --cron"),
        (("--nagios", "--test-notify"), "give only one of"),
        (("--cron", "gpu-box"), "--cron looks at the whole rack"),
        (("--cron", "--prometheus", "x.prom"), "Health(textfile=...)"),
        (("--test-notify", "--prometheus", "x.prom"), "looks at nothing"),
        (("--prometheus", "-", "--json"), "nothing else is printed"),
        (("--deadline", "nan"), "it is no number of seconds"),
    ],
)
def test_what_keeps_it_from_looking_is_unknown_with_its_words_on_stderr(
    desk: Desk, args: tuple[str, ...], words: str
) -> None:
    code, out, err = desk(*args)
    assert (code, out) == (3, "") and words in err


def test_people_see_what_is_wrong_first_and_what_to_do(desk: Desk) -> None:
    desk.hosts.plays["gpu-box"] = says("WARN")
    desk.hosts.plays["nas"] = fails(OFF)
    code, out, err = desk()
    head, first, second, cure, last = out.splitlines()
    assert (code, err, head.split()) == (2, "", ["LEVEL", "HOST", "CHECK", "OF", "REASON"])
    assert first.split()[:3] == ["CRIT", "nas", "reachable"] and OFF.reason in first
    assert second.split()[:3] == ["WARN", "gpu-box", "said"]
    assert cure == "gpu-box said: mend it"
    assert last == "1 of 3 checks are well"
    assert "controller-works" in desk("--all")[1]


def test_a_host_that_sleeps_by_the_controllers_word_is_well_and_not_even_connected_to(desk: Desk) -> None:
    desk.service.statuses["gpu-box"] = HostStatus("gpu-box", Mode.ASLEEP, NOON, "idle for 30 min")
    for _ in range(8):
        assert desk("--cron")[0] == 0
    assert {call.host for call in desk.hosts.asked} == {"nas"}
    assert {call.argv[-1] for call in desk.hosts.asked} == {"health"}
    assert {name for name, _ in desk.service.calls} == {"status"}, "it wishes for nothing"


@pytest.mark.parametrize("mode", [Mode.SUSPENDING, Mode.WAKING, Mode.VERIFYING])
def test_a_host_on_its_way_is_not_asked_either(desk: Desk, mode: Mode) -> None:
    desk.service.statuses["gpu-box"] = HostStatus("gpu-box", mode, NOON, "")
    desk()
    assert {call.host for call in desk.hosts.asked} == {"nas"}


def test_a_host_that_goes_to_sleep_while_it_is_asked_is_not_called_dead(desk: Desk) -> None:
    def goes(asked: Any) -> Said:
        desk.service.statuses["gpu-box"] = HostStatus("gpu-box", Mode.ASLEEP, NOON, "it was idle")
        return fails(OFF)(asked)

    desk.hosts.plays["gpu-box"] = goes
    assert desk("--cron") == (0, "", "")
    assert desk("--cron") == (0, "", "")


def test_a_store_that_cannot_be_used_is_a_finding_of_the_controller(desk: Desk) -> None:
    desk.service.store = "the disk is full"
    code, out, _ = desk()
    assert code == 2 and "its store cannot be used: the disk is full" in out


def test_the_document_is_that_of_the_results_with_the_gravest_level(desk: Desk) -> None:
    desk.hosts.plays["gpu-box"] = says("WARN")
    document = json.loads(desk("--json")[1])
    assert (document["format"], document["level"]) == (1, "WARN")
    said = {one["host"]: one for one in document["results"] if one["code"] == "said"}
    assert said["gpu-box"]["level"] == "WARN" and said["gpu-box"]["cure"] == "mend it"


def test_a_state_that_the_last_whole_run_knew_keeps_its_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.hosts.plays["gpu-box"] = says("WARN")
    desk("--cron")
    published = json.loads((desk.home / "results.json").read_text())
    since = {one["host"]: one["since"] for one in published["results"] if one["code"] == "said"}
    document = json.loads(desk("--json")[1])
    assert [one["since"] for one in document["results"] if one["host"] == "gpu-box"] == [since["gpu-box"]]


def test_prometheus_gets_a_whole_file_that_everybody_may_read(desk: Desk) -> None:
    file = desk.folder / "labctl.prom"
    code, out, err = desk("--prometheus", str(file))
    assert (code, out, err) == (0, "", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    names = {family.name for family in text_string_to_metric_families(file.read_text())}
    assert "labctl_health_level" in names
    assert [path.name for path in desk.folder.glob("*.prom*")] == ["labctl.prom"]
    code, _, err = desk("--prometheus", str(desk.folder / "nowhere" / "labctl.prom"))
    assert code == 3 and "cannot be written: No such file" in err


def test_prometheus_gets_nothing_in_place_of_what_is_no_file(desk: Desk) -> None:
    pipe, link, file = (desk.folder / name for name in ("pipe", "link.prom", "real.prom"))
    os.mkfifo(pipe)
    link.symlink_to(file)
    for place in (str(pipe), ""):
        code, _, err = desk("--prometheus", place)
        assert code == 3 and "it is no file" in err
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert desk("--prometheus", str(link))[0] == 0
    assert link.is_symlink() and "labctl_health_level" in file.read_text()
    code, out, _ = desk("--prometheus", "-")
    assert code == 0 and "labctl_health_level" in out


def test_a_look_needs_no_place_to_remember_anything(desk: Desk) -> None:
    desk.home.parent.parent.mkdir(exist_ok=True)
    desk.home.parent.write_text("in the way")
    desk.hosts.plays["gpu-box"] = says("CRIT")
    code, out, err = desk()
    assert (code, err) == (2, "") and "it says CRIT" in out


def test_a_notifier_without_its_secret_is_said_and_the_others_are_told(desk: Desk, receiver: Got) -> None:
    (desk.folder / "keys" / "ntfy").unlink()
    (desk.folder / "keys" / "ping").unlink()
    desk.hosts.plays["gpu-box"] = says("CRIT")
    code, out, err = desk("--cron")
    assert (code, out) == (3, "CRIT: gpu-box said: it says CRIT -> mend it\n")
    assert "keys/ntfy cannot be read: No such file" in err and "keys/ping cannot be read: No such file" in err
    assert ["hook" in path for _, path, _, _ in receiver.requests] == [True]


def test_cron_is_silent_until_something_changes_and_then_tells_everybody_once(
    desk: Desk, receiver: Got
) -> None:
    assert desk("--cron") == (0, "", "")
    desk.hosts.plays["gpu-box"] = says("CRIT")
    assert desk("--cron") == (2, "CRIT: gpu-box said: it says CRIT -> mend it\n", "")
    assert desk("--cron") == (2, "", "")
    desk.hosts.plays["gpu-box"] = says("OK")
    code, out, _ = desk("--cron")
    assert code == 0 and out.startswith("OK (was CRIT for ")
    paths = [path for _, path, _, _ in receiver.requests]
    assert paths.count("/") == paths.count(f"/{CANARY}-hook") == 2
    assert paths.count(f"/{CANARY}-ping") == 4


def test_a_textfile_that_cannot_be_written_keeps_no_letter_back(desk: Desk, receiver: Got) -> None:
    rack = desk.folder / "rack.py"
    missing = desk.folder / "nowhere" / "labctl.prom"
    rack.write_text(rack.read_text().replace("looks=1", f'looks=1, textfile="{missing}"'))
    desk.hosts.plays["gpu-box"] = says("CRIT")
    code, out, err = desk("--cron")
    assert (code, out) == (3, "CRIT: gpu-box said: it says CRIT -> mend it\n")
    assert err.startswith("the results cannot be written: ") and "labctl.prom" in err
    paths = [path for _, path, _, _ in receiver.requests]
    assert paths.count("/") == paths.count(f"/{CANARY}-hook") == 1


def test_a_run_beside_another_looks_at_nothing_says_so_and_ends_as_the_last_one_did(
    desk: Desk, receiver: Got
) -> None:
    desk.hosts.plays["gpu-box"] = says("WARN")
    desk("--cron")
    desk.hosts.asked.clear()
    receiver.requests.clear()
    with (desk.home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, out, err = desk("--cron")
    assert (code, out) == (1, "") and "another run of labctl health is still under way" in err
    assert (desk.hosts.asked, receiver.requests) == ([], []), "not even the ping"
    (desk.home / "results.json").unlink()
    with (desk.home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert desk("--cron")[0] == 3


def test_a_test_letter_goes_to_every_notifier_and_looks_at_nothing(desk: Desk, receiver: Got) -> None:
    code, out, err = desk("--test-notify")
    assert (code, err) == (0, "") and len(out.splitlines()) == 2
    assert len(receiver.requests) == 2 and desk.hosts.asked == []
    receiver.status = 403
    code, out, err = desk("--test-notify")
    assert code == 3 and "ntfy: it does not let us write there" in err


@pytest.mark.parametrize("status", [200, 403, 500])
def test_no_secret_is_said_noted_or_left_anywhere(desk: Desk, receiver: Got, status: int) -> None:
    receiver.status = status
    desk.hosts.plays["gpu-box"] = says("CRIT")
    said = "".join(
        part
        for args in (("--cron",), ("--json",), ("--test-notify",), ("--cron",))
        for part in desk(*args)[1:]
    )
    left = [path.read_bytes() for path in (desk.folder / "STATE").rglob("*") if path.is_file()]
    for form in (CANARY.encode(), base64.b64encode(CANARY.encode())[:-4]):
        assert form not in said.encode()
        assert not any(form in data for data in left)
    assert any(CANARY in path for _, path, _, _ in receiver.requests), "it was used all the same"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"ftp://10.0.0.9/{CANARY}", "is no address"),
        (f"http://ntfy.sh/{CANARY}", "anyone on the way can read"),
        (f"https://user:{CANARY}@ntfy.sh/topic", "is no address"),
        ("", "is no address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(
    desk: Desk, content: str, words: str
) -> None:
    (desk.folder / "keys" / "ntfy").write_text(content)
    code, out, err = desk("--cron")
    assert (code, out) == (3, "") and words in err and CANARY not in err


def test_a_secret_that_others_may_read_is_refused(desk: Desk) -> None:
    (desk.folder / "keys" / "hook").chmod(0o644)
    code, _, err = desk("--cron")
    assert code == 3 and "chmod 600" in err


def test_a_rack_without_notifiers_says_how_to_have_one(desk: Desk) -> None:
    text = (desk.folder / "rack.py").read_text()
    start, end = text.index("notify=["), text.index("], ping")
    (desk.folder / "rack.py").write_text(text[:start] + "notify=[" + text[end:])
    code, _, err = desk("--test-notify")
    assert code == 3 and "Health(notify=[...])" in err


def test_the_real_rules_find_nothing_well_of_which_nothing_is_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(desk.folder / name))
    monkeypatch.setenv("LABCTL_CONTROLLER", str(desk.folder / "s"))
    monkeypatch.setattr(wiring, "remote", lambda: desk.hosts)
    document = json.loads(desk("--json", "--inventory", str(desk.folder / "rack.py"))[1])
    assert document["level"] != "OK"
    well = {one["code"] for one in document["results"] if one["level"] == "OK" and one["host"]}
    assert well <= {"reachable", "quarantined", "wake-proof"}
    assert {one["host"] for one in document["results"]} >= {"gpu-box", "nas"}


def test_without_a_word_of_the_controller_it_says_why_and_all_hosts_are_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_CONTROLLER", str(desk.folder / "nobody"))
    code, out, _ = desk()
    assert code == 3 and "the controller does not answer: nas: 10.0.0.2:22 did not answer" in out
    assert {call.host for call in desk.hosts.asked} == {"gpu-box", "nas"}


def test_a_controller_that_hangs_keeps_nobody_waiting_beyond_the_deadline(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = desk.folder / "hung"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(place))
        hung.listen()
        monkeypatch.setenv("LABCTL_CONTROLLER", str(place))
        began = time.monotonic()
        code, out, _ = desk("--deadline", "1", "--all")
        assert time.monotonic() - began < 20
    for one in threading.enumerate():
        if one.name == "ask the controller":
            one.join(20)  # who was hung up on ends
    assert code == 3 and "it did not answer within 1 s" in out
    assert {call.host for call in desk.hosts.asked} == {"gpu-box", "nas"}


def test_on_the_controllers_host_root_does_not_write_what_it_has_to_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, file = desk.folder / "home", desk.folder / "rack.json"
    home.mkdir()
    file.write_text(render.rack_json(load_rack(desk.folder / "rack.py").rack))
    monkeypatch.setattr("labctl.inventory.health.HOME", str(home))
    monkeypatch.setattr(wiring, "is_root", lambda: True)
    if home.stat().st_uid == 0:
        os.chown(home, 65534, 65534)
    for words in ((), ("--cron",)):
        code, out, err = desk(*words, "--inventory", str(file))
        assert (code, out) == (3, "") and "is not root's" in err and "runuser -u labctl-health" in err
    assert list(home.iterdir()) == []


def test_what_is_remembered_of_a_host_is_there_at_the_next_look(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, str | None]] = []

    def judge(case: Case) -> Sequence[Result]:
        seen.append({case.host: None if case.earlier is None else case.earlier.agent})
        return ()

    monkeypatch.setattr(
        rules,
        "of",
        lambda loaded, hosts: (
            Rules(evidence_of, judge, lambda cases, now: (), same),
            plain(loaded, hosts)[1],
        ),
    )
    desk("gpu-box")
    desk.hosts.plays["gpu-box"] = says("WARN")
    desk("gpu-box")
    assert seen == [{"gpu-box": None}, {"gpu-box": "OK"}]
