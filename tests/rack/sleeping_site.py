"""A rack that sleeps, and the laptop from which it is asked: hub, box, spare and machine, applied once.

The hub never sleeps: it runs the controller, its web page and the gateway, and serves a model. The box sleeps
as a container does, the machine with a kernel of its own, and the spare, which has a model of the box as
well, when it is told to. All of them serve by the real llama-server.

    def test_something(site):
        site.say("wake", site.box.name)       # types a command, which goes to the hub by SSH

``armed`` is the same site once the box has shown that it comes back. Test files that use it share one site,
and with it one worker: see GROUPS in ``tests/conftest.py``.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rack_driving import labctl

from labctl import wiring
from labctl.domain.problem import ExitCode, LabctlError
from labctl.lab import Lab, LabHost, mirror, wheels
from labctl.lab.preflight import lacks_for_machines

UNIT = "labctl-controller.service"
KEY = "the-key-of-the-laptop"
ENGINE_KEY = "the-key-of-the-engines"
WEB_KEY = "the-key-of-who-only-looks"
ANN_KEY = "sk-ann-0123456789abcdef"
PORT, WEB_PORT = 8000, 8090
TRIES = 5
CHANGE_KERNEL = """
import json, sqlite3, sys
with sqlite3.connect("/var/lib/labctl-store/store.db", timeout=30) as store:
    (kept,) = store.execute("SELECT proof FROM host WHERE name = ?", sys.argv[1:2]).fetchone()
    proof = json.loads(kept)
    print(proof["fingerprint"]["kernel"])
    proof["fingerprint"]["kernel"] = sys.argv[2]
    store.execute("UPDATE host SET proof = ? WHERE name = ?", (json.dumps(proof), sys.argv[1]))
"""
BROKEN = "/run/broken"  # the spare does not pass its gate while this is there
RACK = """\
from inventory.pins import engines, mirror, models
from labctl.inventory import *

# A machine that runs tests beside is no quiet one, and all hosts here share its load.
QUIET = Signals(load=False, network=False, timers=False)
ASKED = Secret(file="keys/engines")


def serves(name, model, port, **more):
    return LlamaServer(name=name, model=model, port=port, ctx_size=4096, parallel=2, **more)


def sleeper(name, address, mac, after, models, suspend=True, **more):
    return Host(
        name=name,
        address=address,
        wake=WakeOnLan(mac=mac),
        idle=IdlePolicy(suspend=suspend, after=after, min_up="0s", signals=QUIET),
        open_ports=[port for _, port in models.values()],
        services=[
            serves(name, model, port, listen="0.0.0.0", api_key=ASKED)
            for name, (model, port) in models.items()
        ],
        **more,
    )


# The same weights under a name of their own, for the model that only the box has.
models.append(models[-1].model_copy(update={{"id": "tiny-alone"}}))

rack = Rack(
    name="test",
    ssh=Ssh(user="admin", key="keys/operator"),
    engines=engines,
    models=models,
    mirror=mirror,
    controller=Controller(host="{hub.name}", wheels="{wheels}", tick="2s"),
    controller_key="keys/controller.pub",
    gateway=Gateway(
        host="{hub.name}",
        listen="0.0.0.0",
        port={port},
        wait="2m",
        models=[GatewayModel(model="tiny-alone", wait="12s")],
        keys=[GatewayKey(name="laptop", secret=Secret(file="keys/gateway"), per_minute={per_minute})],
    ),
    web=Web(
        listen="0.0.0.0",
        port={web_port},
        keys=[
            WebKey(name="prometheus", secret=Secret(file="keys/web"), acts=False),
            WebKey(name="ann", secret=Secret(file="keys/ann")),
        ],
    ),
    hosts=[
        Host(
            name="{hub.name}",
            address="{hub.address}",
            roles=["always-on"],
            services=[serves("coder", "tiny-coder", 8081)],
        ),
        sleeper("{box.name}", "{box.address}", "{box.mac}", "{after}",
            {{"writer": ("tiny-writer", 8081), "alone": ("tiny-alone", 8082)}}),
        sleeper("{spare.name}", "{spare.address}", "{spare.mac}", "30m",
            {{"writer": ("tiny-writer", 8081)}}, suspend=False,
            gate=Gate(command=["/usr/bin/test", "!", "-e", "{broken}"], reboot=False)),
{machine}
    ],
)
globals().update(rack.groups())
"""
MACHINE = """\
        sleeper("{host.name}", "{host.address}", "{host.mac}", "{after}", {{"chat": ("tiny-chat", 8081)}}),
"""


@dataclass(slots=True)
class Site:
    """The rack, and the laptop from which it is asked."""

    rack: Lab
    file: Path
    key: Path
    hub: LabHost
    box: LabHost
    spare: LabHost
    machine: LabHost | None
    cycle: Future[None] | None = field(default=None)
    restarting: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever restarts the controller, and by whoever cannot bear that meanwhile."""

    def write(self, *, after: str = "30m", machine_after: str = "30m", per_minute: int = 0) -> None:
        """Write the rack file; box and machine sleep after so long, and so many requests are let in."""
        machine = "" if self.machine is None else MACHINE.format(host=self.machine, after=machine_after)
        text = RACK.format(
            hub=self.hub,
            box=self.box,
            spare=self.spare,
            wheels=wheels.INSIDE,
            port=PORT,
            web_port=WEB_PORT,
            after=after,
            broken=BROKEN,
            machine=machine,
            per_minute=per_minute,
        )
        # Whoever reads it meanwhile reads the one or the other.
        written = self.file.with_suffix(".new")
        written.write_text(text)
        written.replace(self.file)

    def apply(self, only: str, *hosts: LabHost) -> dict[str, int]:
        """Apply the rack file to hosts, if not to all; return how much changed on each."""
        limit = (f"--limit={','.join(host.name for host in hosts)}",) if hosts else ()
        words = ("apply", str(self.file), "--yes", f"--only={only}", *limit)
        with self.restarting if "controller" in only else nullcontext():
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

    def proven_with(self, kernel: str) -> str:
        """Have the box shown with some kernel that it comes back; return with which one it was."""
        python = "/opt/labctl/labctl/current/bin/python"
        as_it = ("runuser", "-u", "labctl-controller", "--", python, "-I", "-c", CHANGE_KERNEL)
        return self.do(self.hub, *as_it, self.box.name, kernel)

    def journal(self) -> list[str]:
        """Return what the controller has said."""
        return self.do(self.hub, "journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager").splitlines()

    def boot_id(self, host: LabHost) -> str:
        """Return which boot of a host this is."""
        return self.do(host, "cat", "/proc/sys/kernel/random/boot_id")

    def sleeps(self, host: LabHost) -> int:
        """Return how often a host's kernel has slept."""
        return int(self.do(host, "cat", "/sys/power/suspend_stats/success"))


@pytest.fixture(scope="session")
def site(
    sleep_rack: Lab,
    lend_sleeper: Callable[..., LabHost],
    operator_key: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Site]:
    """The rack with its controller and gateway, applied from nothing; the machine is on its way to sleep."""
    cache = wiring.cache_home() / "lab"
    wheels.make(cache)
    try:
        wares = mirror.make(cache, lambda said: None)
    except LabctlError as reason:
        pytest.skip(str(reason))
    lent: set[str] = set()
    machine = None
    if not lacks_for_machines():
        request.getfixturevalue("machine")  # it boots while the others are set up
        machine = next(host for host in sleep_rack.spec.hosts if host.machine == "qemu")
    hub, box, spare = (lend_sleeper(lent, "nspawn", suite) for suite in ("trixie", "bookworm", "bookworm"))
    folder = tmp_path_factory.mktemp("site") / "inventory"
    (folder / "keys").mkdir(parents=True)
    for suffix in ("", ".pub"):
        (folder / "keys" / f"operator{suffix}").write_text(Path(f"{operator_key}{suffix}").read_text())
    for name, secret in (("gateway", KEY), ("engines", ENGINE_KEY), ("web", WEB_KEY), ("ann", ANN_KEY)):
        (folder / "keys" / name).write_text(f"{secret}\n")
    for name in ("operator", "gateway", "engines", "web", "ann"):
        (folder / "keys" / name).chmod(0o600)
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "keys/controller")]
    subprocess.run(keygen, check=True)
    (folder / "pins.py").write_text(mirror.recipe(wares, "pins"))
    hosts = [host for host in (hub, box, spare, machine) if host is not None]
    known = (f"{host.address} {sleep_rack.host_key(host.name)}\n" for host in hosts)
    (folder / "known_hosts").write_text("".join(known))
    made = Site(sleep_rack, folder / "rack.py", operator_key, hub, box, spare, machine)
    made.write()
    assert all(made.apply("agent,wol,engines,services,controller,gateway,web", hub, box, spare).values())
    with ThreadPoolExecutor(1) as pool:
        if machine is not None:
            made.cycle = pool.submit(_machine_is_set_up_and_sleeps, made, lend_sleeper, machine)
        yield made


def _machine_is_set_up_and_sleeps(site: Site, lend: Callable[..., LabHost], machine: LabHost) -> None:
    """Set the machine up, have it sleep and wake, and sleep again: it takes its time, so others go on."""
    lend(set(), "qemu")
    apply = ("apply", str(site.file), "--yes", "--only=agent,wol,engines,services", f"--limit={machine.name}")
    for _ in range(TRIES):
        done = labctl(*apply, timeout=500)
        if done.returncode != ExitCode.UNREACHABLE:
            break  # an emulated machine beside other tests may answer too late; a rerun goes on where it was
    assert done.returncode == 0, (done.stdout, done.stderr)

    def say(*argv: str) -> dict[str, Any]:
        with site.restarting:
            said: dict[str, Any] = site.say(*argv, timeout=400)[-1]["hosts"][machine.name]
        return said

    # Where the controller was away just as labctl was done, the hold of labctl has not ended yet.
    with site.restarting:
        labctl("release", machine.name, "--all", "--inventory", str(site.file))
    assert say("wake", machine.name)["mode"] == "ready"
    before, times = site.boot_id(machine), site.sleeps(machine)
    because = f"{machine.name} sleeps by suspend (deep)"
    assert say("sleep-test", machine.name, "--cycles", "1") == {"ok": True, "because": because}
    assert site.rack.packets(machine.name)[-1]["outcome"] in ("wakes", "awake")
    assert (site.boot_id(machine), site.sleeps(machine)) == (before, times + 1)
    assert "PM: suspend entry (deep)" in site.do(machine, "dmesg")
    say("suspend", machine.name)


@pytest.fixture(scope="session")
def armed(site: Site) -> tuple[str, list[dict[str, Any]]]:
    """The box has shown that it comes back; return what was said of that before, and by the test."""
    site.awake()
    before = site.explain(site.box)["proof"]
    return before, site.say("sleep-test", site.box.name, "--cycles", "1", timeout=400)
