"""Health on a real host: each kind of finding appears when its cause is made there, and goes when it is gone.

One Debian 12 with two fake cards and two doubles of engines, set up by labctl, and a host that is off. All
faults are there at once and one look finds them, since a look at a real host costs a second; that each fault
causes its own finding and no other, the tables of ``tests/domain`` show. Between looks the memory of the
looks before is made a minute older, so that nobody waits.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from declared import DeclaredHost
from rack_driving import labctl
from tiny_model import tiny_gguf

from labctl.cli import health_run
from labctl.domain.health.terms import EnginePast, Level, Result
from labctl.health import looking, rules
from labctl.health.looking import Memory, Told
from labctl.inventory import load_rack
from labctl.lab import Lab, LabHost, LabSpec
from labctl.lab.fake import nvml
from labctl.lab.fake.programs import kmod, moody
from labctl.lab.fake.programs.moody import HARMLESS
from labctl.lab.gpus import HostGpus
from labctl.lab.spec import mac_for

pytestmark = pytest.mark.rack

PROGRAM = "/opt/moody/llama-server"
START = """\
#!/bin/sh
cd /opt/moody
exec python3 moody.py llama-server --mood mood --asked "$STATE_DIRECTORY/asked" "$@"
"""
CERTIFICATE = "/etc/ssl/own.pem"
RACK = """\
from labctl.inventory import *

rack = Rack(
    name="test",
    ssh=Ssh(user="admin", key="keys/operator"),
    health=Health(replace_by={{"a key": "2099-01-01"}}),
    circuits=[Circuit(name="wall", volts=230, amps=20)],
    models=[
        Model(id="tiny", source="file:///root/tiny.gguf", path="/srv/models/tiny.gguf", sha256="{sha256}"),
    ],
    hosts=[
        Host(
            name="{box.name}", address="{box.address}", base_w=100,
            psus=[Psu(name="psu", watts=1000, circuit="wall", feeds=["board", "slot0", "slot1"])],
            gpus=[
                Gpu(model="L40S", slot="slot0", uuid="{uuid[0]}", cap_w=300, cap_reason="circuit"),
                Gpu(model="RTX 3090", slot="slot1", uuid="{uuid[1]}"),
            ],
            certificates=["{certificate}"],
            services=[
                LlamaServer(name="chat", binary="{program}", model="tiny", port=8081, gpus=["slot0"]),
                LlamaServer(name="code", binary="{program}", model="tiny", port=8082, gpus=["slot1"]),
            ],
        ),
        Host(name="{bed.name}", address="{bed.address}", wake=WakeOnLan(mac="{bed.mac}"), base_w=50,
             idle=IdlePolicy(suspend=True)),
    ],
)
globals().update(rack.groups())
"""


class Box:
    """The host that is looked at; ``memory`` is what is remembered of the looks before."""

    def __init__(self, lab: Lab, box: LabHost, bed: LabHost, file: Path) -> None:
        self.lab, self.bed, self.file = lab, bed, file
        self.host = DeclaredHost(lab, box, file)
        self.name, self.run = box.name, self.host.run
        self.memory = Memory()
        self.late_s = 0.0
        asleep = {"host": bed.name, "mode": "asleep", "because": "idle", "since": 0}
        self.told = Told(declared=True, status={"hosts": [asleep], "ticked_s": 1})

    def set_up(self) -> None:
        """Have the driver on its disk and loaded, the doubles where the rack file says, and the agent."""
        root = self.lab.root(self.name)
        library = root / "usr/lib/x86_64-linux-gnu" / f"libnvidia-ml.so.{nvml.DRIVER}"
        library.write_bytes(nvml.library(self.lab.spec.cache_dir).read_bytes())
        library.with_name(nvml.SONAME).symlink_to(library.name)
        for path, content in (
            ("opt/moody/moody.py", Path(moody.__file__).read_bytes()),
            (PROGRAM.lstrip("/"), START.encode()),
            ("opt/moody/mood", b"idle"),
            ("root/tiny.gguf", tiny_gguf()),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        (root / PROGRAM.lstrip("/")).chmod(0o755)
        self.load_driver()
        self.certificate(days=100)
        only = ("--limit", self.name, "--only", "agent,services,power", "--yes", "--no-diff")
        done = labctl("apply", str(self.file), *only, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr

    def load_driver(self) -> None:
        """Have the kernel's module of the library's version loaded, whatever was."""
        cards = HostGpus(self.host.host, self.lab.root(self.name).with_name("gpu"))
        kmod.hide(cards.tree, "nvidia")
        kmod.load(cards.tree, cards.state, "nvidia", nvml.DRIVER)

    def certificate(self, days: int) -> None:
        argv = f"-x509 -newkey ed25519 -nodes -subj /CN=box -days {days} -keyout /dev/null -out {CERTIFICATE}"
        self.run(f"openssl req {argv} 2>/dev/null")

    def replace_by(self, day: str) -> None:
        """State in the rack file by which day a key is to be replaced."""
        self.file.write_text(re.sub('"a key": "[0-9-]+"', f'"a key": "{day}"', self.file.read_text()))

    def gpu(self, index: int = 0, **values: str | int | None) -> None:
        self.lab.set_gpu(self.name, index, **values)

    def holds(self, engine: str, index: int) -> None:
        """Have an engine's process hold memory on a card."""
        pid = self.run(f"systemctl show -p MainPID --value labctl-{engine}")
        self.gpu(index, procs=f"{pid}:{8 << 30}:llama-server")

    def look(self) -> dict[tuple[str, str], Result]:
        """Look at the rack once, as ``labctl health`` does; return what is found, by check and subject."""
        loaded = load_rack(self.file)
        judging, wanted = rules.of(loaded, (self.name, self.bed.name))

        def ask(hosts: Sequence[str]) -> Mapping[str, Any]:
            return health_run._ask(loaded, hosts, 20.0, deployed=False)

        def wall() -> float:
            return time.time() + self.late_s

        found = looking.look(wanted, lambda: self.told, ask, judging, self.memory, wall)
        self.memory = _older(found.memory, 60.0)
        return {(f"{one.host}:{one.code}", one.subject): one for one in found.results}

    def asked(self) -> set[str]:
        """Return what the doubles were asked since they were set up."""
        return set(
            self.run(
                "cat /var/lib/labctl-*/asked /var/lib/private/labctl-*/asked 2>/dev/null || true"
            ).split()
        )


def _older(memory: Memory, by_s: float) -> Memory:
    documents = {host: {**one, "at": one["at"] - by_s} for host, one in memory.documents.items()}
    engines = {
        host: tuple(
            EnginePast(one.service, tuple(look._replace(at=look.at - by_s) for look in one.looks))
            for one in past
        )
        for host, past in memory.engines.items()
    }
    return Memory(documents, engines)


@dataclass(frozen=True)
class Fault:
    """What is to be found, how it is caused, and how it is cleared."""

    code: str
    subject: str
    level: Level
    cause: Callable[[Box], object]
    clear: Callable[[Box], object]
    host: str = "box"


def gpu(code: str, level: Level, index: int = 0, **values: tuple[Any, Any]) -> Fault:
    """Return a fault that a card tells of: each value while it lasts, and after."""
    return Fault(
        code,
        f"slot{index}",
        level,
        lambda box: box.gpu(index, **{name: bad for name, (bad, _) in values.items()}),
        lambda box: box.gpu(index, **{name: good for name, (_, good) in values.items()}),
    )


def shell(code: str, subject: str, level: Level, cause: str, clear: str) -> Fault:
    """Return a fault that is made on the host by a shell."""
    return Fault(code, subject, level, lambda box: box.run(cause), lambda box: box.run(clear))


XID = "4,900,1,-;NVRM: Xid (PCI:0000:03:00): 79, pid=7, GPU has fallen off the bus."
SMARTCTL = """#!/bin/sh
printf '{"smartctl": {"exit_status": 8}, "smart_status": {"passed": false}, "temperature": {"current": 40}}'
"""
DISK = f"""
mount -t tmpfs none /sys/block
mkdir /sys/block/sda
printf %s {shlex.quote(SMARTCTL)} >/usr/sbin/smartctl
chmod 755 /usr/sbin/smartctl
"""
MEMINFO = "MemTotal: 1000000 kB\\nMemAvailable: 9000 kB\\nSwapTotal: 0 kB\\nSwapFree: 0 kB\\n"
FAULTS = (
    Fault("power-over", "psu", Level.CRIT, lambda box: box.gpu(power_mw=1_000_000),
          lambda box: box.gpu(power_mw=21_000)),
    gpu("gpu-recovery", Level.CRIT, recovery=(2, 0)),
    gpu("ecc", Level.CRIT, ecc_uncorr_volatile=(3, 0)),
    gpu("row-remap", Level.WARN, remap_corr=(0, None), remap_pending=(1, None)),
    gpu("pcie-width", Level.WARN, pcie_width=(4, 16)),
    gpu("pcie-gen", Level.WARN, util_gpu=(99, 0)),  # its link rests at generation 1
    gpu("pcie-replays", Level.WARN, pcie_replay=(9000, 9000)),
    gpu("temperature", Level.CRIT, temp=(96, 34)),
    gpu("throttle", Level.CRIT, throttle=("0x80", "0x1")),
    gpu("caps-drift", Level.WARN, power_limit_mw=(1_000_000, 300_000)),
    Fault("gpu-present", "slot1", Level.CRIT, lambda box: box.lab.gpu_fault(box.name, 1, "lost"),
          lambda box: box.lab.gpu_fault(box.name, None, "heal")),
    shell("xid", "slot0", Level.CRIT, f"printf '{XID}\\n' >/dev/kmsg", "rm /dev/kmsg"),
    shell("units", "", Level.WARN, "systemd-run -q --unit=broken false; sleep 0.2",
          "systemctl reset-failed broken"),
    shell("reboot-required", "", Level.WARN, "touch /run/reboot-required", "rm /run/reboot-required"),
    shell("memory", "", Level.CRIT,
          f"printf '{MEMINFO}' >/run/mem; mount --bind /run/mem /proc/meminfo", "umount /proc/meminfo"),
    shell("updates", "", Level.WARN, "cd /var/lib/apt; touch -d '60 days ago' lists/partial lists",
          "cd /var/lib/apt; touch lists/partial lists"),
    shell("disk-smart", "/dev/sda", Level.CRIT, DISK, "umount /sys/block; rm /usr/sbin/smartctl"),
    Fault("disk-space", "/", Level.CRIT, lambda box: box.lab.fill_disk(box.name),
          lambda box: box.lab.free_disk(box.name)),
    Fault("keys", "a key", Level.CRIT, lambda box: box.replace_by("2020-01-01"),
          lambda box: box.replace_by("2099-01-01"), host=""),
    Fault("certificates", CERTIFICATE, Level.CRIT, lambda box: box.certificate(days=2),
          lambda box: box.certificate(days=100)),
)  # fmt: skip


@pytest.fixture(scope="module")
def box(
    spec: LabSpec, network: IPv4Network, operator_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """A rack of two, set up; the bed is off."""
    if nvml.compiler() is None:
        pytest.skip("there is no C compiler for the fake library")
    mine = list(network.subnets(new_prefix=25))[3]
    where = [str(mine[10 + index]) for index in range(2)]
    box = LabHost("box", where[0], mac_for(where[0]), "bookworm", ("L40S", "RTX 3090"))
    bed = LabHost("bed", where[1], mac_for(where[1]), "trixie")
    state = tmp_path_factory.mktemp("health-lab")
    lab = Lab(replace(spec, name="health", hosts=(box, bed), network=mine, state_dir=state))
    try:
        lab.up(hosts=("box",))
        folder = tmp_path_factory.mktemp("health") / "inventory"
        (folder / "keys").mkdir(parents=True)
        for suffix in ("", ".pub"):
            (folder / "keys" / f"operator{suffix}").write_text(Path(f"{operator_key}{suffix}").read_text())
        (folder / "keys/operator").chmod(0o600)
        known = (f"{one.address} {lab.host_key(one.name)}\n" for one in (box, bed))
        (folder / "known_hosts").write_text("".join(known))
        uuid = [card["uuid"] for card in lab.gpu_state("box")["cards"]]
        text = RACK.format(
            box=box,
            bed=bed,
            uuid=uuid,
            sha256=hashlib.sha256(tiny_gguf()).hexdigest(),
            certificate=CERTIFICATE,
            program=PROGRAM,
        )
        (folder / "rack.py").write_text(text)
        made = Box(lab, box, bed, folder / "rack.py")
        made.set_up()
        yield made
    finally:
        lab.down()


def bad(found: Mapping[tuple[str, str], Result]) -> set[tuple[str, str]]:
    return {key for key, one in found.items() if one.level is not Level.OK}


def test_each_kind_of_finding_comes_with_its_cause_and_goes_with_it(box: Box) -> None:
    box.holds("chat", 0)
    box.holds("code", 1)
    before = box.look()
    wanted = {(f"{one.host}:{one.code}", one.subject): one.level for one in FAULTS}
    assert not bad(before) & set(wanted), {key: before[key] for key in bad(before)}
    for fault in FAULTS:
        fault.cause(box)
    found = box.look()
    assert {key: one.level for key, one in found.items() if key in wanted} == wanted
    assert all(found[key].reason and found[key].cure for key in wanted)
    for fault in FAULTS:
        fault.clear(box)
    after = box.look()
    assert bad(after) <= bad(before), {key: after[key] for key in bad(after) - bad(before)}


def test_engines_that_hang_or_fall_to_the_processor_are_found_and_saturated_ones_are_well(box: Box) -> None:
    chat, code = ("box:engine-progress", "chat"), ("box:engine-placement", "code")
    box.holds("chat", 0)
    box.gpu(1, procs=None)
    box.run("echo saturated >/opt/moody/mood")
    for _ in range(2):
        found = box.look()
        assert (found[chat].level, found[chat].informs) == (Level.OK, True)
    assert found[code].level is Level.CRIT
    assert "it runs on the processor: it is on no card" in found[code].reason
    box.run("echo hung >/opt/moody/mood")
    assert [box.look()[chat].level for _ in range(3)][-1] is Level.CRIT
    box.run("echo well >/opt/moody/mood")
    box.holds("code", 1)
    found = box.look()
    assert (found[chat].level, found[code].level) == (Level.OK, Level.OK)
    assert box.asked() and box.asked() <= HARMLESS["llama-server"]


def test_a_host_that_sleeps_is_not_connected_to_and_one_that_should_be_there_is_down(box: Box) -> None:
    asleep, before = box.told, len(box.lab.packets("bed"))
    found = box.look()["bed:reachable", ""]
    assert (found.level, "it sleeps" in found.reason) == (Level.OK, True)
    box.told = Told(declared=True, status={"hosts": [{"host": "bed", "mode": "ready"}], "ticked_s": 1})
    assert box.look()["bed:reachable", ""].level is Level.CRIT
    box.told = asleep
    assert len(box.lab.packets("bed")) == before


def test_a_card_whose_clocks_heat_holds_down_is_found(box: Box) -> None:
    held = "box:throttle", "slot1"
    box.gpu(1, throttle="0x20")
    assert box.look()[held].level is Level.WARN
    box.gpu(1, throttle="0x1")
    assert box.look()[held].level is Level.OK


def test_a_driver_older_than_its_library_and_a_clock_that_is_off_are_found(box: Box) -> None:
    box.lab.gpu_fault(box.name, None, "mismatch")
    box.late_s = 400.0
    found = box.look()
    assert found["box:driver-mismatch", ""].level is Level.CRIT
    assert found["box:clock", ""].level is Level.CRIT
    box.load_driver()
    box.late_s = 0.0
    after = box.look()
    assert after["box:driver-mismatch", ""].level is Level.OK
    assert after["box:clock", ""].level is not Level.CRIT
