"""A rack that sleeps, from the commands that people type: a laptop, a controller, hosts that sleep.

labctl runs here, on the "laptop"; whatever it says to the controller goes by SSH to the hub. The sleepers are
woken by packets that the controller sends from inside its sandbox. See ``sleeping_site.py``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from rack_driving import labctl
from sleeping_site import UNIT, Site

from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack


def test_the_controller_is_set_up_once_and_runs_hardened(site: Site) -> None:
    process = site.do(site.hub, "systemctl", "show", "--property=MainPID", UNIT)
    assert site.apply("agent,wol,controller", site.hub, site.box) == {site.hub.name: 0, site.box.name: 0}
    assert site.do(site.hub, "systemctl", "show", "--property=MainPID", UNIT) == process
    site.do(site.hub, "systemd-analyze", "security", "--threshold=15", "--no-pager", UNIT)
    (status,) = site.say("controller", "status")
    assert (status["leading"], status["store"]) == (True, "")
    assert {site.hub.name, site.box.name} <= {host["host"] for host in status["hosts"]}


def test_a_sleep_test_arms_a_host_and_another_kernel_disarms_it_in_one_line(
    site: Site, armed: tuple[str, list[dict[str, Any]]]
) -> None:
    name, (before, said) = site.box.name, armed
    assert before == f"{name} has not shown yet that it comes back: `labctl sleep-test {name}` arms it"
    assert said[-1]["hosts"][name] == {"ok": True, "because": f"{name} sleeps by suspend (deep)"}
    assert site.explain(site.box)["proof"] == ""

    real = site.proven_with("6.1.0-25-amd64")
    site.say("wake", name)  # it looks at once
    stale = site.explain(site.box)
    site.proven_with(real)
    assert stale["proof"] in stale["against"]
    assert f"kernel 6.1.0-25-amd64 -> {real}" in stale["proof"]
    assert f"labctl sleep-test {name}" in stale["proof"] and "\n" not in stale["proof"]


def test_a_host_is_put_to_sleep_and_woken_and_each_state_is_shown_with_its_reason(
    site: Site, armed: object
) -> None:
    rack, name = site.rack, site.box.name
    site.awake()
    before, times, began = site.boot_id(site.box), site.sleeps(site.box), len(site.journal())
    said = site.say("suspend", name, "--why", "a demo")
    assert said[-1]["hosts"][name]["ok"] is True
    assert [line["mode"] for line in said[:-1]][-2:] == ["suspending", "asleep"]
    assert all(line["because"] for line in said[:-1])
    rack.await_state(name, "asleep", 5)
    assert {"ssh: dark", "ping: dark"} <= set(site.explain(site.box)["signs"])
    assert "asleep" in site.type("status", name)

    words = site.type("wake", name, "--wait")
    for part in (f"{name}  asleep", "(usually ", f"{name}  verifying", f"{name}: ready after "):
        assert part in words, words
    assert rack.packets(name)[-1]["source"] == site.hub.mac
    assert (site.boot_id(site.box), site.sleeps(site.box)) == (before, times + 1)
    told = [line for line in site.journal()[began:] if f"host={name} " in line]
    modes = [line.split("mode=")[1].split()[0] for line in told if "mode=" in line]
    assert [mode for at, mode in enumerate(modes) if modes[:at][-1:] != [mode]] == [
        "draining",
        "suspending",
        "asleep",
        "waking",
        "verifying",
        "ready",
    ]
    assert len(told) == len(set(told)) <= 8, told


def test_holds_and_pauses_win_over_a_wish_and_are_said(site: Site) -> None:
    name = site.box.name
    site.awake()
    held = site.say("hold", name, "10m", "--why", "a fine-tune")[0]["hosts"][name]["hold"]
    refused = site.say("suspend", name, code=1)[-1]["hosts"][name]
    assert refused["mode"] == "ready"
    assert "holds" in refused["because"] and refused["because"].endswith("a fine-tune")
    site.say("release", name, str(held))
    site.say("pause", name, "--why", "new fans")
    assert "paused: new fans" in site.say("suspend", name, code=1)[-1]["hosts"][name]["because"]
    assert "new fans" in site.type("controller", "status")
    site.say("resume", name)
    assert site.explain(site.box)["paused"] == ""


def test_who_wishes_a_host_awake_that_falls_asleep_gets_it_back(site: Site) -> None:
    name = site.box.name
    site.awake()
    times = site.sleeps(site.box)
    site.say("suspend", name, "--no-wait")
    assert wait_until(partial(site.is_in, "suspending"), within=60)
    woken = site.say("wake", name)
    assert woken[-1]["hosts"][name]["mode"] == "ready"
    assert site.sleeps(site.box) == times + 1


def test_a_controller_that_is_killed_in_the_middle_finds_every_host_as_it_is(site: Site) -> None:
    name = site.box.name

    def leads() -> bool:
        done = labctl("controller", "status", "--json", "--inventory", str(site.file))
        return done.returncode == 0 and json.loads(done.stdout)["leading"] is True

    with site.restarting:
        site.awake()
        site.say("suspend", name, "--no-wait")
        assert wait_until(partial(site.is_in, "suspending"), within=60)
        site.do(site.hub, "systemctl", "kill", "--signal=KILL", UNIT)
        assert wait_until(leads, within=25), "its successor need not wait for missed beats"
    assert wait_until(partial(site.is_in, "asleep"), within=25)
    assert site.rack.hosts()[name]["state"] == "asleep"
    assert site.explain(site.hub)["mode"] == "ready"
    site.awake()


@contextmanager
def _logged_in(site: Site) -> Iterator[None]:
    argv = site.rack.ssh_argv(site.box.name, "echo here; exec cat", key=site.key)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
        assert ssh.stdout is not None and ssh.stdout.readline() == b"here\n"
        yield
        ssh.communicate(timeout=20)


@contextmanager
def _inhibitor(site: Site) -> Iterator[None]:
    lock = ("systemd-inhibit", "--what=sleep", "--mode=block", "--who=backup", "--why=it writes the tape")
    site.do(site.box, "systemd-run", "--quiet", "--unit=made", *lock, "sleep", "infinity")
    try:
        yield
    finally:
        site.do(site.box, "systemctl", "stop", "made")


@contextmanager
def _file(site: Site, path: str, content: str) -> Iterator[None]:
    script = 'umask 022; cat >"$1"; chmod 755 "$1"'
    site.do(site.box, "sh", "-c", script, "sh", path, stdin=content)
    try:
        yield
    finally:
        site.do(site.box, "rm", path)


# The last test, since from here on the box falls asleep by itself.
def test_an_idle_host_falls_asleep_by_itself_and_whatever_uses_it_keeps_it_awake(
    site: Site, armed: object
) -> None:
    site.awake()
    uses: tuple[tuple[str, str, AbstractContextManager[None]], ...] = (
        ("sessions", "admin is logged in from", _logged_in(site)),
        ("inhibitors", "backup blocks sleep: it writes the tape", _inhibitor(site)),
        ("packages", "/var/lib/dpkg/lock", site.rack.hold_apt_lock(site.box.name)),
        ("holds", "the tape", _file(site, "/run/labctl/holds/tape", "the tape is being written\n")),
        (
            "checks",
            "the NAS",
            _file(site, "/etc/labctl/busy.d/nas", "#!/bin/sh\necho the NAS is here\nexit 1\n"),
        ),
    )
    with ExitStack() as all_of_them:

        def begin(use: AbstractContextManager[None]) -> ExitStack:
            own = ExitStack()
            own.enter_context(use)
            all_of_them.callback(own.close)
            return own

        last = begin(_file(site, "/run/labctl/holds/first", "until all is set up\n"))
        site.write(after="6s")
        assert site.apply("controller", site.hub)[site.hub.name] > 0
        for signal, reason, use in uses:
            before, last = last, begin(use)
            before.close()  # only now, so that it is never quiet in between
            assert wait_until(partial(_only_use, site, signal, reason), within=30), site.explain(site.box)
        times = site.sleeps(site.box)
    assert wait_until(partial(site.is_in, "asleep"), within=60), site.explain(site.box)
    assert "has been quiet for" in " ".join(one["text"] for one in site.say("events", site.box.name))
    site.awake()
    assert site.sleeps(site.box) == times + 1


def _only_use(site: Site, signal: str, reason: str) -> bool:
    """Return whether this and nothing else keeps the box awake, in words that say it."""
    found = site.explain(site.box)
    busy = [one["signal"] for one in found["readings"] if one["busy"] is not False]
    assert found["mode"] == "ready"
    return busy == [signal] and reason in found["verdict"] and not found["may_sleep"]
