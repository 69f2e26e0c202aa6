"""What looks after health on the controller's host: the rack as data, few secrets, a timer, a tight unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from labctl.domain.problem import LabctlError
from labctl.inventory import (
    Controller,
    Health,
    Host,
    MailNotice,
    NtfyNotice,
    Rack,
    Secret,
    WakeOnLan,
    WebhookNotice,
)
from labctl.inventory.controlling import agent_data
from labctl.inventory.data import load_data
from labctl.inventory.health import FOLDER, RESULTS
from labctl.inventory.secrets import address_of, text_of
from labctl.render import controller
from labctl.render import health as wanted

NTFY = NtfyNotice(address=Secret(file=Path("keys/ntfy")), token=Secret(env="NTFY_TOKEN"))
HOOK = WebhookNotice(name="chat", address=Secret(file=Path("keys/hook")), form="slack", least="crit")
MAIL = MailNotice(
    server="mail.example.org",
    user="labctl",
    password=Secret(file=Path("keys/mail")),
    sender="labctl@example.org",
    to=("me@example.org",),
)
RACK = Rack(
    name="test",
    controller=Controller(host="hub"),
    controller_key=Path("keys/controller.pub"),
    hosts=(
        Host(name="hub", address="10.0.0.1", roles=("always-on",)),
        Host(name="box", address="10.0.0.2", wake=WakeOnLan(mac="52:54:00:00:00:02")),
    ),
    health=Health(notify=(NTFY, HOOK, MAIL), ping=Secret(file=Path("keys/ping")), every="2m"),  # type: ignore[arg-type]
)
CANARY = "canary-7f3a9c"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    lines = {
        "ntfy": f"https://ntfy.sh/{CANARY}",
        "hook": f"https://hooks.example.org/{CANARY}?x=1",
        "mail": f"p&w {CANARY}",
        "ping": f"https://hc-ping.com/{CANARY}",
    }
    for name, line in lines.items():
        path = tmp_path / "keys" / name
        path.write_text(f"{line}\n")
        path.chmod(0o600)
    return tmp_path


def test_it_runs_beside_the_controller_where_the_rack_file_says_so_and_nowhere_else() -> None:
    hub, box = RACK.hosts
    assert wanted.runs_on(RACK, hub) and not wanted.runs_on(RACK, box)
    assert not wanted.runs_on(RACK.model_copy(update={"health": None}), hub)
    assert not wanted.runs_on(RACK.model_copy(update={"controller": None}), hub)


def test_the_rack_as_data_is_the_rack_with_the_secrets_by_their_names_there(tmp_path: Path) -> None:
    file = tmp_path / "rack.json"
    file.write_text(wanted.rack_json(RACK))
    loaded = load_data(file)
    health = loaded.rack.health
    assert health is not None and health.every == RACK.health.every  # type: ignore[union-attr]
    ntfy, hook, mail = health.notify
    assert ntfy.model_dump() == NTFY.model_dump() | {
        "address": {"file": Path("notify.ntfy.address"), "env": None},
        "token": {"file": Path("notify.ntfy.token"), "env": None},
    }
    assert isinstance(hook, WebhookNotice) and (hook.form, hook.least) == ("slack", "crit")
    assert isinstance(mail, MailNotice) and mail.password == Secret(file=Path("notify.mail.password"))
    assert health.ping == Secret(file=Path("ping.address"))
    data = agent_data(loaded.host_data["box"], loaded.folder)
    assert data["ssh_key"] == str(tmp_path / "key") and data["ssh_forced"] is True


def test_each_secret_goes_there_as_itself_and_is_in_no_other_text(folder: Path, tmp_path: Path) -> None:
    environment = {"NTFY_TOKEN": f"tk-{CANARY}"}
    contents = {one.name: one.content(folder, environment) for one in wanted.kept(RACK)}
    assert contents == {
        "notify.ntfy.address": f"https://ntfy.sh/{CANARY}\n",
        "notify.ntfy.token": f"tk-{CANARY}\n",
        "notify.chat.address": f"https://hooks.example.org/{CANARY}?x=1\n",
        "notify.mail.password": f"p&w {CANARY}\n",
        "ping.address": f"https://hc-ping.com/{CANARY}\n",
    }
    for text in (wanted.rack_json(RACK), controller.rack_json(RACK), wanted.unit(RACK), wanted.timer(RACK)):
        assert CANARY not in text
    assert set(wanted.read(RACK)) == {
        f"{FOLDER}/{name}" for name in (*contents, "rack.json", "known_hosts", "key")
    }


def test_who_is_told_of_what_is_no_reason_to_start_the_controller_anew() -> None:
    other = RACK.model_copy(update={"health": Health(looks=3)})
    assert controller.rack_json(RACK) == controller.rack_json(other)
    assert controller.unit(RACK, "0" * 64) == controller.unit(other, "0" * 64)


def test_that_somebody_looks_after_health_is_since_the_controller_must_let_him_ask() -> None:
    without = RACK.model_copy(update={"health": None})
    assert controller.unit(RACK, "0" * 64) != controller.unit(without, "0" * 64)
    assert "PrivateUsers=yes" in controller.unit(without, "0" * 64)
    assert "PrivateUsers" not in controller.unit(RACK, "0" * 64)


def test_the_timer_starts_it_as_often_as_the_rack_file_says() -> None:
    text = wanted.timer(RACK)
    assert "OnUnitActiveSec=120s\n" in text and "Unit=labctl-health.service\n" in text


def test_what_it_finds_is_no_failure_of_its_unit() -> None:
    text = wanted.unit(RACK)
    assert (
        "SuccessExitStatus=1 2 3\n" in text
        and "health --cron --inventory /etc/labctl/health/rack.json" in text
    )
    assert "ReadWritePaths" not in text and RESULTS == "/var/lib/labctl-health/results.json"
    there = RACK.model_copy(update={"health": Health(textfile="/srv/prom/labctl.prom")})
    assert "ReadWritePaths=-/srv/prom\n" in wanted.unit(there)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_its_unit_is_hardened_and_systemd_takes_both(tmp_path: Path) -> None:
    unit, timer = tmp_path / wanted.UNIT, tmp_path / wanted.TIMER
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    unit.write_text(wanted.unit(RACK).replace("/opt/labctl/labctl/current/bin/python", str(python)))
    timer.write_text(wanted.timer(RACK))
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit), str(timer)], capture_output=True, text=True
    )
    assert [line for line in done.stderr.splitlines() if "labctl-health" in line] == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"notify": (NTFY, NTFY)}, "two notifiers are called ntfy"),
        ({"notify": ({"kind": "pigeon"},)}, "pigeon"),
        ({"looks": 0}, "looks"),
        ({"textfile": "labctl.prom"}, "absolute path"),
    ],
)
def test_what_could_not_work_is_refused_with_its_words(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Health(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"user": "labctl", "password": None}, "`user` and `password`, or neither"),
        ({"security": "none"}, "anyone on the way can read it"),
    ],
)
def test_a_mailbox_that_would_tell_its_password_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MailNotice(**{**MAIL.model_dump(), **fields})


def test_a_secret_of_several_lines_of_text_gives_its_first_and_an_empty_one_is_refused(folder: Path) -> None:
    (folder / "keys" / "mail").write_text("one two\nthree\n")
    mail = Secret(file=Path("keys/mail"))
    assert text_of(mail, folder, {}) == "one two"
    (folder / "keys" / "mail").write_text("\n")
    with pytest.raises(LabctlError, match="is empty or no line of text"):
        text_of(mail, folder, {})
    with pytest.raises(LabctlError, match="is no address"):
        address_of(mail, folder, {})
    with pytest.raises(LabctlError, match="the variable NOBODY is not set"):
        address_of(Secret(env="NOBODY"), folder, {})
