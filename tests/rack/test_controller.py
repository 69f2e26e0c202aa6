"""A rack that sleeps, from the commands that people type: a laptop, a controller, hosts that sleep.

labctl runs here, on the "laptop"; whatever it says to the controller goes by SSH to the hub. The box sleeps
as a container does, the machine with a kernel of its own; both are woken by packets that the controller sends
from inside its sandbox. The rack is set up once for all tests here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rack_driving import labctl

from labctl import wiring
from labctl.lab import Lab, LabHost, wheels
from labctl.lab.preflight import lacks_for_machines
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

UNIT = "labctl-controller.service"
RACK = """\
from labctl.inventory import Controller, Host, IdlePolicy, Rack, Signals, Ssh, WakeOnLan

# A machine that runs tests beside is no quiet one, and all hosts here share its load.
QUIET = Signals(load=False, network=False, timers=False)

rack = Rack(
    name="test",
    ssh=Ssh(user="admin", key="keys/operator"),
    controller=Controller(host="{hub.name}", wheels="{wheels}", tick="2s"),
    controller_key="keys/controller.pub",
    hosts=[
        Host(name="{hub.name}", address="{hub.address}", roles=["always-on"]),
{sleepers}
    ],
)
globals().update(rack.groups())
"""
SLEEPER = """\
        Host(
            name="{host.name}",
            address="{host.address}",
            wake=WakeOnLan(mac="{host.mac}"),
            idle=IdlePolicy(suspend={suspend}, after="{after}", min_up="0s", signals=QUIET),
        ),
"""
CHANGE_KERNEL = """
import json, sqlite3, sys
with sqlite3.connect("/var/lib/labctl-store/store.db", timeout=30) as store:
    (kept,) = store.execute("SELECT proof FROM host WHERE name = ?", sys.argv[1:2]).fetchone()
    proof = json.loads(kept)
    print(proof["fingerprint"]["kernel"])
    proof["fingerprint"]["kernel"] = sys.argv[2]
    store.execute("UPDATE host SET proof = ? WHERE name = ?", (json.dumps(proof), sys.argv[1]))
"""


@dataclass(slots=True)
class Site:
    """The rack, and the laptop from which it is asked."""

    rack: Lab
    file: Path
    key: Path
    hub: LabHost
    box: LabHost
    machine: LabHost | None
    cycle: Future[None] | None = field(default=None)

    def write(self, after: str) -> None:
        """Write the rack file; the box sleeps after so long."""
        hosts = [SLEEPER.format(host=self.box, suspend=True, after=after)]
        if self.machine is not None:
            hosts.append(SLEEPER.format(host=self.machine, suspend=False, after="30m"))
        text = RACK.format(hub=self.hub, wheels=wheels.INSIDE, sleepers="".join(hosts))
        self.file.write_text(text)

    def apply(self, only: str, *hosts: LabHost) -> dict[str, int]:
        """Apply the rack file to hosts, if not to all; return how much changed on each."""
        limit = (f"--limit={','.join(host.name for host in hosts)}",) if hosts else ()
        words = ("apply", str(self.file), "--yes", f"--only={only}", *limit)
        ends = self.say(*words, timeout=500)[-1]["hosts"]
        return {end["host"]: end["changed"] for end in ends}

    def say(self, *argv: str, code: int = 0, timeout: float = 200) -> list[dict[str, Any]]:
        """Type a command, and return what it says as JSON."""
        where = () if argv[0] == "apply" else ("--inventory", str(self.file))
        done = labctl(*argv, "--json", *where, timeout=timeout)
        assert done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
        found, text = [], done.stdout.strip()
        while text:
            one, end = json.JSONDecoder().raw_decode(text)
            found.append(one)
            text = text[end:].strip()
        return found

    def type(self, *argv: str) -> str:
        """Type a command, and return what a person reads."""
        done = labctl(*argv, "--inventory", str(self.file), timeout=200)
        assert done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def explain(self, host: LabHost) -> dict[str, Any]:
        """Return why a host is as it is."""
        one: dict[str, Any] = self.say("explain", host.name)[0]["hosts"][0]
        return one

    def is_in(self, mode: str) -> bool:
        """Return whether the box is in a mode."""
        found: str = self.explain(self.box)["mode"]
        return found == mode

    def awake(self) -> None:
        """See that the box serves."""
        self.say("wake", self.box.name, "--timeout", "90s")

    def do(self, host: LabHost, *argv: str, stdin: str = "") -> str:
        """Have root do something on a host."""
        return self.rack.run(host.name, list(argv), stdin=stdin, check=True).stdout.strip()

    def journal(self) -> list[str]:
        """Return what the controller has said."""
        return self.do(self.hub, "journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager").splitlines()

    def boot_id(self, host: LabHost) -> str:
        """Return which boot of a host this is."""
        return self.do(host, "cat", "/proc/sys/kernel/random/boot_id")

    def sleeps(self, host: LabHost) -> int:
        """Return how often a host's kernel has slept."""
        return int(self.do(host, "cat", "/sys/power/suspend_stats/success"))


@pytest.fixture(scope="module")
def site(
    sleep_rack: Lab,
    lend_sleeper: Callable[..., LabHost],
    operator_key: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The rack with its controller, applied from nothing; the virtual machine is on its way to sleep."""
    wheels.make(wiring.cache_home() / "lab")
    lent: set[str] = set()
    machine = None if lacks_for_machines() else lend_sleeper(lent, "qemu")
    hub, box = (lend_sleeper(lent, "nspawn", suite) for suite in ("trixie", "bookworm"))
    folder = tmp_path_factory.mktemp("controller") / "inventory"
    (folder / "keys").mkdir(parents=True)
    for suffix in ("", ".pub"):
        (folder / "keys" / f"operator{suffix}").write_text(Path(f"{operator_key}{suffix}").read_text())
    (folder / "keys/operator").chmod(0o600)
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "keys/controller")]
    subprocess.run(keygen, check=True)
    hosts = [host for host in (hub, box, machine) if host is not None]
    known = (f"{host.address} {sleep_rack.host_key(host.name)}\n" for host in hosts)
    (folder / "known_hosts").write_text("".join(known))
    made = Site(sleep_rack, folder / "rack.py", operator_key, hub, box, machine)
    made.write(after="30m")
    assert all(made.apply("agent,wol,controller").values())
    with ThreadPoolExecutor(1) as pool:
        if machine is not None:
            made.cycle = pool.submit(_machine_sleeps_and_wakes, made, machine)
        yield made


def _machine_sleeps_and_wakes(site: Site, machine: LabHost) -> None:
    """Have the virtual machine sleep and wake while the others are tried: it takes its time."""
    assert site.say("wake", machine.name, timeout=400)[-1]["hosts"][machine.name]["mode"] == "ready"
    before, times = site.boot_id(machine), site.sleeps(machine)
    assert site.say("suspend", machine.name, timeout=400)[-1]["hosts"][machine.name]["mode"] == "asleep"
    site.rack.await_state(machine.name, "asleep", 5)
    woken = site.say("wake", machine.name, timeout=400)
    assert woken[-1]["hosts"][machine.name]["because"] == "it passed the gate"
    assert site.rack.packets(machine.name)[-1]["outcome"] in ("wakes", "awake")
    assert (site.boot_id(machine), site.sleeps(machine)) == (before, times + 1)
    assert "PM: suspend entry (deep)" in site.do(machine, "dmesg")


@pytest.fixture(scope="module")
def armed(site: Site) -> tuple[str, list[dict[str, Any]]]:
    """The box has shown that it comes back; return what was said of that before, and by the test."""
    site.awake()
    before = site.explain(site.box)["proof"]
    return before, site.say("sleep-test", site.box.name, "--cycles", "1", timeout=400)


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

    def kernel(other: str) -> str:
        python = "/opt/labctl/labctl/current/bin/python"
        as_it = ("runuser", "-u", "labctl-controller", "--", python, "-I", "-c", CHANGE_KERNEL)
        return site.do(site.hub, *as_it, name, other)

    real = kernel("6.1.0-25-amd64")
    site.say("wake", name)  # it looks at once
    stale = site.explain(site.box)
    kernel(real)
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
    assert "asleep" in site.type("status")

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
    site.awake()
    site.say("suspend", name, "--no-wait")
    assert wait_until(partial(site.is_in, "suspending"), within=60)
    site.do(site.hub, "systemctl", "kill", "--signal=KILL", UNIT)

    def leads() -> bool:
        done = labctl("controller", "status", "--json", "--inventory", str(site.file))
        return done.returncode == 0 and json.loads(done.stdout)["leading"] is True

    assert wait_until(leads, within=25), "its successor need not wait for missed beats"
    assert wait_until(partial(site.is_in, "asleep"), within=25)
    assert site.rack.hosts()[name]["state"] == "asleep"
    assert site.explain(site.hub)["mode"] == "ready"
    site.awake()


def test_a_virtual_machine_truly_sleeps_and_is_woken_by_the_same_commands(site: Site) -> None:
    if site.cycle is None:
        pytest.skip(f"virtual machines need {', '.join(lacks_for_machines())}")
    site.cycle.result(timeout=400)


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
