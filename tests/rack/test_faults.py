"""What breaks on a host is named, ends that host alone and in time, and a rerun mends it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rack_driving import LABCTL, drive, end_of, ends, labctl, write_deploy

from labctl.lab import Lab
from labctl.provision.events import Event, OpStarted

pytestmark = pytest.mark.rack

TOUCH = 'server.shell(name="touch", commands=["touch /root/touched"])\n'
WRITE = """
from labctl.ops import files
files.directory(name="folder", path="/etc/tried")
files.put(name="file", dest="/etc/tried/file", content="new\\n" * 20000)
"""
SLOW = """
server.shell(name="before", commands=["touch /root/before"])
server.shell(name="slow", commands=["sleep 20 && touch /root/slow"])
server.shell(name="after", commands=["touch /root/after"])
"""


def exists(rack: Lab, host: str, path: str) -> bool:
    return rack.run(host, ["test", "-e", path]).returncode == 0


def wait_until(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_a_host_that_is_down_is_unreachable_and_the_others_finish(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    rack.kill(one.name)
    started = time.monotonic()
    reports = drive(inventory, write_deploy(inventory, TOUCH), (one.name, two.name))
    assert ends(reports) == {one.name: ("unreachable", "timeout"), two.name: ("ok", "")}
    assert time.monotonic() - started < 10
    rack.start(one.name)
    done = labctl("apply", str(inventory), str(inventory.parent.parent / "deploys/tried.py"), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_exit_code_says_how_many_could_be_reached(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    deploy = write_deploy(inventory, TOUCH)
    rack.kill(one.name)
    assert labctl("apply", str(inventory), str(deploy), "--yes").returncode == 4
    assert labctl("apply", str(inventory), str(deploy), "--yes", "--limit", one.name).returncode == 3


def test_a_frozen_sshd_is_named_within_the_time_limit(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    rack.stop_sshd(one.name)
    started = time.monotonic()
    try:
        reports = drive(inventory, write_deploy(inventory, TOUCH), (one.name, two.name))
    finally:
        rack.cont_sshd(one.name)
    assert ends(reports) == {one.name: ("unreachable", "frozen"), two.name: ("ok", "")}
    assert time.monotonic() - started < 10


def test_a_wrong_host_key_is_refused_before_anything_is_sent(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    rack.reset(one.name, new_host_key=True)
    reports = drive(inventory, write_deploy(inventory, TOUCH), (one.name, two.name))
    assert ends(reports) == {one.name: ("unreachable", "host-key"), two.name: ("ok", "")}
    assert "labctl enroll" in end_of(reports[one.name]).hint
    log = rack.run(one.name, ["journalctl", "-b", "--no-pager", "-t", "sshd", "-t", "sshd-session"]).stdout
    assert "Accepted" not in log.split("Server listening")[-1]


def test_a_wrong_user_is_named(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    inventory.write_text(
        inventory.read_text().replace(
            f'address="{one.address}"',
            f'address="{one.address}", ssh=Ssh(user="nobody-here", key="keys/operator")',
        )
    )
    reports = drive(inventory, write_deploy(inventory, TOUCH), (one.name, two.name))
    assert ends(reports) == {one.name: ("unreachable", "auth"), two.name: ("ok", "")}
    assert "nobody-here" in end_of(reports[one.name]).reason


def test_a_user_without_sudo_is_named(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    rack.run(one.name, ["rm", "/etc/sudoers.d/90-lab"], check=True)
    reports = drive(inventory, write_deploy(inventory, TOUCH), (one.name, two.name))
    assert ends(reports) == {one.name: ("unreachable", "no-sudo"), two.name: ("ok", "")}


def test_a_full_disk_is_named_and_leaves_the_old_file_whole(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, WRITE)
    rack.run(one.name, ["sh", "-c", "mkdir /etc/tried && echo old > /etc/tried/file"], check=True)
    rack.fill_disk(one.name)
    reports = drive(inventory, deploy, (one.name,))
    assert ends(reports) == {one.name: ("failed", "disk-full")}
    rack.free_disk(one.name)
    assert rack.run(one.name, ["cat", "/etc/tried/file"]).stdout == "old\n"
    assert rack.run(one.name, ["ls", "-A", "/etc/tried"]).stdout.split() == ["file"]
    assert ends(drive(inventory, deploy, (one.name,))) == {one.name: ("ok", "")}
    assert rack.run(one.name, ["wc", "-l", "/etc/tried/file"]).stdout.startswith("20000")


def test_a_held_apt_lock_is_named_in_time(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(
        inventory,
        'from labctl.ops import apt\napt.packages(name="tree", names=["tree"], lock_timeout_s=3)\n',
    )
    started = time.monotonic()
    with rack.hold_apt_lock(one.name):
        reports = drive(inventory, deploy, (one.name,))
    assert ends(reports) == {one.name: ("failed", "apt-locked")}
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("fault", ["cut", "freeze", "stop_sshd", "kill"])
def test_a_host_that_goes_away_in_the_middle_is_named_and_a_rerun_resumes(
    rack, hosts, rack_file, fault: str
) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    deploy = write_deploy(inventory, SLOW.replace("sleep 20", "sleep 4"))

    def strike(event: Event) -> None:
        if isinstance(event, OpStarted) and (event.host, event.name) == (one.name, "slow"):
            getattr(rack, fault)(one.name)

    started = time.monotonic()
    reports = drive(inventory, deploy, (one.name, two.name), strike)
    assert ends(reports) == {one.name: ("failed", "connection-lost"), two.name: ("ok", "")}
    assert time.monotonic() - started < 25
    assert [op.status for op in reports[one.name].ops] == ["changed", "failed", "not-run"]
    undo = {"cut": "mend", "freeze": "thaw", "stop_sshd": "cont_sshd", "kill": "start"}[fault]
    getattr(rack, undo)(one.name)

    def resumed() -> bool:
        return ends(drive(inventory, deploy, (one.name,)))[one.name][0] == "ok"

    wait_until(resumed, within=60)
    assert all(exists(rack, one.name, f"/root/{name}") for name in ("before", "slow", "after"))


def test_an_exception_in_a_deploy_ends_its_host_alone(rack, hosts, rack_file) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    deploy = write_deploy(inventory, f'{TOUCH}\nif host.name == "{one.name}":\n    1 / 0\n')
    reports = drive(inventory, deploy, (one.name, two.name))
    assert ends(reports) == {one.name: ("failed", "deploy-error"), two.name: ("ok", "")}
    assert "tried.py:6: ZeroDivisionError" in end_of(reports[one.name]).reason
    assert not exists(rack, one.name, "/root/touched")


def test_a_second_apply_is_refused_and_told_who_is_at_work(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, SLOW.replace("sleep 20", "sleep 6"))
    seen = threading.Event()
    second: list[dict] = []

    def intrude() -> None:
        seen.wait(20)
        done = labctl("apply", str(inventory), str(deploy), "--yes", "--json")
        second.append({"code": done.returncode, "text": done.stdout})

    intruder = threading.Thread(target=intrude)
    intruder.start()

    def on_event(event: Event) -> None:
        if isinstance(event, OpStarted) and event.name == "slow":
            seen.set()

    reports = drive(inventory, deploy, (one.name,), on_event)
    intruder.join(60)
    assert ends(reports) == {one.name: ("ok", "")}
    assert second[0]["code"] == 1
    assert "another apply is at work here: the test since 20" in second[0]["text"]
    assert labctl("apply", str(inventory), str(deploy), "--yes").returncode == 0


@pytest.mark.parametrize(("signals", "slow_done"), [(1, True), (2, False)])
def test_ctrl_c_ends_in_time_and_says_what_was_done(
    rack, hosts, rack_file, signals: int, slow_done: bool
) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, SLOW.replace("sleep 20", "sleep 5"))
    command = [LABCTL, "apply", str(inventory), str(deploy), "--yes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: exists(rack, one.name, "/root/before"))
    time.sleep(0.5)  # into the slow operation; what is being tested is an interruption in the middle of it
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    out, _ = process.communicate(timeout=40)
    assert process.returncode == 130, out
    assert exists(rack, one.name, "/root/slow") is slow_done, out
    assert not exists(rack, one.name, "/root/after"), out
    assert "not run" in out.lower()
    wait_until(lambda: "sleep 5" not in rack.run(one.name, ["ps", "axo", "args"]).stdout)
    assert labctl("apply", str(inventory), str(deploy), "--yes").returncode == 0
    assert exists(rack, one.name, "/root/after")


def test_a_killed_labctl_leaves_nothing_running_and_a_rerun_works(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, SLOW.replace("sleep 20", "sleep 3"))
    process = subprocess.Popen(
        [LABCTL, "apply", str(inventory), str(deploy), "--yes"], stdout=subprocess.DEVNULL
    )
    wait_until(lambda: exists(rack, one.name, "/root/before"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: exists(rack, one.name, "/root/slow"))
    wait_until(lambda: "labctl-lock" not in rack.run(one.name, ["ps", "axo", "args"]).stdout)
    assert not exists(rack, one.name, "/root/after")
    assert labctl("apply", str(inventory), str(deploy), "--yes").returncode == 0


def test_a_plan_changes_nothing(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, TOUCH + WRITE)
    # What a boot and a log-in write, whoever logs in: journals, time stamps, sudo's note of its first use.
    rack.run(one.name, ["systemctl", "is-system-running", "--wait"])
    exclude = (
        "/var/log",
        "/var/tmp",
        "/var/lib/systemd",
        "/var/lib/dbus",
        "/home/admin/.sudo_as_admin_successful",
    )
    roots = ("/etc", "/usr", "/var", "/root", "/home", "/opt", "/srv")
    before = rack.digest(one.name, roots, exclude)
    for command in (("plan",), ("apply", "--check")):
        done = labctl(*command, str(inventory), str(deploy))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "+new" in done.stdout
    assert rack.digest(one.name, roots, exclude) == before
    assert labctl("apply", str(inventory), str(deploy), "--yes").returncode == 0
    assert rack.digest(one.name, roots, exclude) != before, "this digest notices nothing"


def test_fail_percent_stops_the_hosts_that_have_not_begun(rack, hosts, rack_file) -> None:
    one, two, three = hosts(3)
    inventory = rack_file([one, two, three])
    deploy = write_deploy(
        inventory, f'if host.name == "{one.name}":\n    server.shell(name="no", commands=["false"])\n{TOUCH}'
    )
    names = (one.name, two.name, three.name)
    reports = drive(inventory, deploy, names, serial=True, fail_percent=10)
    assert ends(reports) == {
        one.name: ("failed", "op-failed"),
        two.name: ("not-run", "fail-percent"),
        three.name: ("not-run", "fail-percent"),
    }
    assert not exists(rack, two.name, "/root/touched")


def test_serial_changes_one_host_after_the_other_in_the_order_of_the_rack(rack, hosts, rack_file) -> None:
    lent = hosts(3)
    inventory = rack_file(lent)
    names = tuple(host.name for host in lent)
    began: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, OpStarted) and event.name == "touch":
            began.append(event.host)

    drive(inventory, write_deploy(inventory, TOUCH), names, on_event, serial=True)
    assert tuple(began) == names


def test_operations_that_need_all_hosts_together_are_refused_with_the_way_out(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, 'server.shell(name="once", commands=["true"], _run_once=True)\n')
    report = end_of(drive(inventory, deploy, (one.name,))[one.name])
    assert (report.status, report.code) == ("failed", "deploy-error")
    assert "_run_once" in report.reason and "--serial" in report.hint


def test_stock_operations_upload_and_fetch_files(rack, hosts, rack_file, tmp_path: Path) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    local = tmp_path / "fetched"
    deploy = write_deploy(
        inventory,
        "from io import StringIO\nfrom pyinfra.operations import files\n"
        'files.put(name="put", src=StringIO("x" * 300000), dest="/root/put", mode="600")\n'
        f'files.get(name="get", src="/etc/hostname", dest="{local}")\n',
    )
    assert ends(drive(inventory, deploy, (one.name,))) == {one.name: ("ok", "")}
    assert rack.run(one.name, ["stat", "-c", "%s %a", "/root/put"]).stdout == "300000 600\n"
    assert local.read_text() == f"{one.name}\n"
