"""Real hosts for tests.

``rack`` is one virtual rack for each xdist worker, on a network of its own: two Debian 12 hosts and three
Debian 13 hosts, booted once. ``hosts`` lends hosts of it to one test, each as clean as after its first
boot; whatever a test does to a lent host is undone before the next test gets it. ``rack_file`` writes an
inventory for lent hosts.

    def test_something(rack, hosts, rack_file):
        one, two = hosts(2)                   # or hosts(1, suite="bookworm")
        inventory = rack_file([one, two])     # <dir>/inventory/rack.py with keys and pinned host keys
        rack.cut(two.name)

``gpu_host`` lends hosts of a second rack, which boots when first asked for and whose hosts have fake graphics
cards and no driver. It gives a ``DeclaredHost`` (see ``declared.py``) as clean as after its first boot:

    def test_something(gpu_rack, gpu_host):
        box = gpu_host("cuda")                # Debian 12, four RTX 3090; see GPU_HOSTS for the others
        box.declare(fields=f'gpus=[{box.gpus(cap_w=200, cap_reason="circuit")}], ')
        box.apply()
        gpu_rack.remove_gpu("cuda", 2)        # gpu_state, set_gpu, restore_gpus, gpu_fault likewise
        box.reboot()

``sleeper`` lends hosts of a third rack that really suspend, each fresh from a boot, its card not armed:

    def test_something(sleep_rack, sleeper, sleep_rack_file):
        one = sleeper("nspawn")               # a container; sleeper("qemu") is a virtual machine
        inventory = sleep_rack_file([one])    # each host with its WakeOnLan
        sleep_rack.await_state(one.name, "asleep")
        sleep_rack.packets(one.name)          # every magic packet for it, and what came of each

``site`` is a rack of three that sleeps, with controller and gateway: see ``sleeping_site.py``.

Without root or the packages that a rack needs, these tests are skipped and say why.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from declared import DeclaredHost, GpuHost
from sleeping_site import armed, site

from labctl import wiring
from labctl.domain.problem import LabctlError
from labctl.lab import Lab, LabHost, LabSpec
from labctl.lab.preflight import is_free, lacks_for_machines, require_able
from labctl.lab.sleeper import lacks as lacks_sleep
from labctl.lab.spec import mac_for
from labctl.lab.supplies import lacks, mirror_folder

__all__ = ["armed", "site"]

SUITES = {"b1": "bookworm", "b2": "bookworm", "t1": "trixie", "t2": "trixie", "t3": "trixie"}
GPU_HOSTS = {
    "cuda": ("bookworm", ("RTX 3090",) * 4),
    "blackwell": ("trixie", ("RTX 5090",) * 2),
    "pascal": ("trixie", ("P40",)),
    "rocm": ("trixie", ("RX 7900 XTX",)),
    "strix": ("bookworm", ("Radeon 8060S",)),
}
MACHINE = "vm"
SLEEPERS = {f"s{number}": ("trixie", "bookworm")[number % 2] for number in range(10)}
RACK_FILE = """\
from labctl.inventory import Host, Rack, Ssh, WakeOnLan

rack = Rack(
    name="test",
    ssh=Ssh(user="admin", key="keys/operator"),
    hosts=[
{hosts}
    ],
)
globals().update(rack.groups())
"""


@pytest.fixture(scope="session")
def able() -> None:
    """Skip what needs real hosts where there can't be any."""
    try:
        require_able()
    except LabctlError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def operator_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's private key; the public one lies beside it."""
    key = tmp_path_factory.mktemp("operator") / "operator"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


@pytest.fixture(scope="session")
def network(able: None) -> Iterator[IPv4Network]:
    """A /23 that no other test process uses: half for ``rack``, quarters for ``gpu_rack`` and health."""
    with _claimed(IPv4Network("10.213.0.0/16"), 23) as network:
        yield network


@contextmanager
def _claimed(among: IPv4Network, prefix: int) -> Iterator[IPv4Network]:
    """Yield a network that no other test process uses meanwhile."""
    locks = wiring.cache_home() / "lab" / "test-networks"
    locks.mkdir(parents=True, exist_ok=True)
    for network in among.subnets(new_prefix=prefix):
        with (locks / str(network.network_address)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if is_free(network):
                yield network
                return
    pytest.fail("no network is free")


@pytest.fixture(scope="session")
def spec(network: IPv4Network, operator_key: Path, tmp_path_factory: pytest.TempPathFactory) -> LabSpec:
    """What this worker's rack is."""
    mine, _ = network.subnets()
    addresses = [str(mine[10 + index]) for index in range(len(SUITES))]
    return LabSpec(
        name="test",
        hosts=tuple(
            LabHost(name, address, mac_for(address), suite)
            for (name, suite), address in zip(SUITES.items(), addresses, strict=True)
        ),
        network=mine,
        state_dir=tmp_path_factory.mktemp("lab"),
        cache_dir=wiring.cache_home() / "lab",
        operator_pubkey=operator_key.with_suffix(".pub").read_text(),
    )


@pytest.fixture(scope="session")
def rack(spec: LabSpec) -> Iterator[Lab]:
    """This worker's rack, up."""
    mirror_folder(spec.cache_dir).mkdir(parents=True, exist_ok=True)  # hosts see it if it is there at boot
    with Lab(spec) as lab:
        yield lab


@pytest.fixture(scope="session")
def gpu_rack(spec: LabSpec, network: IPv4Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """This worker's rack of hosts with graphics cards, up."""
    mine = list(network.subnets(new_prefix=25))[2]
    addresses = [str(mine[10 + index]) for index in range(len(GPU_HOSTS))]
    hosts = tuple(
        LabHost(name, address, mac_for(address), suite, gpus)
        for (name, (suite, gpus)), address in zip(GPU_HOSTS.items(), addresses, strict=True)
    )
    described = replace(
        spec, name="gpus", hosts=hosts, network=mine, state_dir=tmp_path_factory.mktemp("gpu-lab")
    )
    if reasons := lacks(described):
        pytest.skip("; ".join(reasons))
    with Lab(described) as lab:
        yield lab


@pytest.fixture(scope="session")
def sleep_rack(spec: LabSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """This worker's rack of hosts that can sleep, up; its hosts are off until ``sleeper`` lends them."""
    with _claimed(IPv4Network("10.214.0.0/16"), 25) as mine:
        hosts = [
            LabHost(name, str(mine[10 + index]), mac_for(str(mine[10 + index])), suite, sleeps=True)
            for index, (name, suite) in enumerate(SLEEPERS.items())
        ]
        if not lacks_for_machines():
            address = str(mine[9])
            hosts.append(LabHost(MACHINE, address, mac_for(address), "bookworm", sleeps=True, machine="qemu"))
        described = replace(
            spec,
            name="sleepers",
            hosts=tuple(hosts),
            network=mine,
            state_dir=tmp_path_factory.mktemp("sleep-lab"),
        )
        if reasons := lacks_sleep(described):
            pytest.skip("; ".join(reasons))
        lab = Lab(described)
        try:
            yield lab.up(hosts=())
        finally:
            lab.down()


@pytest.fixture(scope="session")
def used() -> set[str]:
    """The hosts that a test has had since their last fresh boot."""
    return set()


Lend = Callable[..., tuple[LabHost, ...]]


@pytest.fixture
def hosts(rack: Lab, used: set[str]) -> Lend:
    """Lend clean hosts: ``hosts(2)``, ``hosts(1, suite="bookworm")``."""
    lent: set[str] = set()

    def lend(number: int, suite: str | None = None) -> tuple[LabHost, ...]:
        fitting = [h for h in rack.spec.hosts if suite in (None, h.suite) and h.name not in lent]
        # Clean ones first, since a reset costs seconds.
        chosen = sorted(fitting, key=lambda host: (host.name in used, host.name))[:number]
        assert len(chosen) == number, f"this rack has only {len(fitting)} such hosts left"
        lent.update(host.name for host in chosen)
        with ThreadPoolExecutor() as pool:
            list(pool.map(rack.reset, [host.name for host in chosen if host.name in used]))
        used.update(lent)
        return tuple(chosen)

    return lend


@pytest.fixture
def rack_file(rack: Lab, operator_key: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write an inventory for some hosts, with key and true host keys; return the rack file."""

    def write(chosen: Sequence[LabHost], extra: str = "") -> Path:
        return _inventory(rack, operator_key, tmp_path / "inventory", chosen, extra)

    return write


@pytest.fixture
def gpu_rack_file(gpu_rack: Lab, operator_key: Path, tmp_path: Path) -> Callable[..., Path]:
    """Like ``rack_file``, for hosts of ``gpu_rack``."""

    def write(chosen: Sequence[LabHost], extra: str = "") -> Path:
        folder = tmp_path / "-".join(("inventory", *(host.name for host in chosen)))
        return _inventory(gpu_rack, operator_key, folder, chosen, extra)

    return write


@pytest.fixture
def gpu_host(gpu_rack: Lab, gpu_rack_file: Callable[..., Path], used: set[str]) -> GpuHost:
    """Lend a clean host with graphics cards by its name in GPU_HOSTS."""

    def lend(name: str) -> DeclaredHost:
        host = gpu_rack.spec.host(name)
        if f"gpus/{name}" in used:
            gpu_rack.reset(name)
        used.add(f"gpus/{name}")
        return DeclaredHost(gpu_rack, host, gpu_rack_file([host]))

    return lend


@pytest.fixture(scope="session")
def machine(sleep_rack: Lab) -> Iterator[Future[None]]:
    """The first boot of the virtual machine, which takes a while: ask early, wait (``result``) late."""
    with ThreadPoolExecutor(1) as pool:
        boot = pool.submit(sleep_rack.start, MACHINE)
        yield boot
        if not boot.done():
            with suppress(LabctlError):
                sleep_rack.kill(MACHINE)


Sleeper = Callable[..., LabHost]


@pytest.fixture(scope="session")
def lend_sleeper(sleep_rack: Lab, used: set[str], request: pytest.FixtureRequest) -> Callable[..., LabHost]:
    """Lend a host that sleeps and is none of those that are lent already; see ``sleeper``."""

    def lend(lent: set[str], machine: str, suite: str | None = None) -> LabHost:
        if machine == "qemu":
            if missing := lacks_for_machines():
                pytest.skip(f"virtual machines need {', '.join(missing)}")
            request.getfixturevalue("machine").result()
        fitting = [
            host
            for host in sleep_rack.spec.hosts
            if host.machine == machine and suite in (None, host.suite) and host.name not in lent
        ]
        assert fitting, f"no host on {machine} is left"
        host = min(fitting, key=lambda one: f"sleepers/{one.name}" in used)
        lent.add(host.name)
        (sleep_rack.reset if f"sleepers/{host.name}" in used else sleep_rack.start)(host.name)
        used.add(f"sleepers/{host.name}")
        return host

    return lend


@pytest.fixture
def sleeper(lend_sleeper: Callable[..., LabHost]) -> Sleeper:
    """Lend a clean host that sleeps: ``sleeper("nspawn")``, and another one with each call.

    ``sleeper("qemu")`` lends the only virtual machine. Its first boot takes a processor half a minute, so
    the files that want it are kept on one worker: see GROUPS in ``tests/conftest.py``.
    """
    return partial(lend_sleeper, set())


@pytest.fixture
def sleep_rack_file(sleep_rack: Lab, operator_key: Path, tmp_path: Path) -> Callable[..., Path]:
    """Like ``rack_file``, for hosts of ``sleep_rack``, each with its WakeOnLan."""

    def write(chosen: Sequence[LabHost], extra: str = "") -> Path:
        wake = ', wake=WakeOnLan(mac="{mac}")'
        return _inventory(sleep_rack, operator_key, tmp_path / "sleepers", chosen, wake + extra)

    return write


def _inventory(lab: Lab, key: Path, folder: Path, chosen: Sequence[LabHost], extra: str) -> Path:
    (folder / "keys").mkdir(parents=True)
    for suffix, mode in (("", 0o600), (".pub", 0o644)):
        copy = folder / "keys" / f"operator{suffix}"
        copy.write_text(Path(f"{key}{suffix}").read_text())
        copy.chmod(mode)
    lines = (
        f'        Host(name="{h.name}", address="{h.address}"{extra.replace("{mac}", h.mac)}),'
        for h in chosen
    )
    (folder / "rack.py").write_text(RACK_FILE.format(hosts="\n".join(lines)))
    known = (f"{host.address} {lab.host_key(host.name)}\n" for host in chosen)
    (folder / "known_hosts").write_text("".join(known))
    return folder / "rack.py"
