"""The NVIDIA driver: the right branch and kernel modules for the host's cards, held, loaded and kept loaded.

What is installed follows from the cards, the system and the kernel; a mix that no driver serves, or modules
that Secure Boot would refuse, stop the host before anything is installed. Driver and kernel are held
together, and automatic updates leave them out (see ``base``). A vendor's own image (DGX OS) is only looked
at. Where the host's package sources offer NVIDIA's packages already (an admin's own mirror), none is added.

When the cards, or the wish to manage them, leave the inventory, holds and labctl's own files go; the driver
stays, since something may use it.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra import logger
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host
from labctl.ops import apt, files, holds, initramfs, leftovers, reboot, systemd
from labctl.ops import nvidia as driver
from labctl.ops.components import components
from labctl.ops.facts_gpu import Machine, MachineInfo
from labctl.ops.nvidia import Offered, Room
from labctl.render import nvidia as render
from labctl.render.nvidia import DriverPlan, Key

OWNER = "nvidia"
_SOURCES = "/etc/apt/sources.list.d"
OPTIONS_CHANGED = "options of the NVIDIA kernel module changed"


@deploy("NVIDIA")
def nvidia() -> None:
    """Bring the driver that serves the host's cards, or let go of what labctl did for one."""
    spec: Host = host.data.spec
    if not render.cards(spec) or not spec.nvidia.manage or spec.vendor_image:
        leave(spec)
        return
    machine: MachineInfo = host.get_fact(Machine)
    plan = choose(spec, machine)
    if spec.nvidia.suspend == "preserve" and not machine.container:
        render.require_room(spec, *host.get_fact(Room, path=spec.nvidia.suspend_path))

    holds.released(name="holds of another driver", owner=OWNER, keep=held(spec, plan))
    sources(spec, machine, plan)
    if plan.first:
        apt.packages(name="branch is pinned", names=plan.first)
    driver.headers(name="headers of the kernel", newest=plan.newest)
    apt.packages(name=f"driver {plan.branch} ({plan.flavour})", names=(*plan.packages, *plan.toolkit))
    container_toolkit(spec, machine)
    holds.held(
        name="driver and kernel stay together",
        owner=OWNER,
        names=held(spec, plan),
        will=(*plan.first, *plan.packages, *container_packages(spec)),
    )
    modules(spec, machine, plan)
    persistence(plan)
    sleep(spec)
    if spec.nvidia.container_toolkit:
        described_to_containers()
    if machine.mismatch:
        reboot.needed(name="driver and library do not fit", reasons=(machine.mismatch,))
    if machine.misfit:
        logger.warning(
            f"{host.name}: {machine.misfit}, which no reboot mends: "
            "`apt list --installed '*nvidia*'` shows what is of another version"
        )


def choose(spec: Host, machine: MachineInfo) -> DriverPlan:
    """Return what to install on this host, and say what is not obvious about it."""
    plan = render.plan(spec, machine)
    for note in plan.notes:
        logger.info(f"{host.name}: {note}")
    return plan


def held(spec: Host, plan: DriverPlan) -> tuple[str, ...]:
    """Return what is held: driver, kernel, and what containers use of the driver."""
    return (*plan.holds, *container_packages(spec))


def container_packages(spec: Host) -> tuple[str, ...]:
    """Return the container toolkit's packages, if it is wanted."""
    return render.CONTAINER_PACKAGES if spec.nvidia.container_toolkit else ()


def sources(spec: Host, machine: MachineInfo, plan: DriverPlan) -> None:
    """Let apt know where the packages are, and keep what is not wanted from there out."""
    components(name="components of the archive", codename=machine.codename, names=plan.components)
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent
    if plan.repository is not None and plan.source == "distro":
        files.put(name="the archive's driver only", dest=render.PIN, content=render.pin())
    else:
        files.absent_own(name="the archive's driver only", path=render.PIN)
    if plan.repository is None:
        files.absent_own(
            name=f"package source {render.CUDA_SOURCE}", path=f"{_SOURCES}/{render.CUDA_SOURCE}.sources"
        )
        return
    first = (*plan.first, *plan.toolkit)[0]
    url, key = render.repository(plan, spec.nvidia.mirror, folder)
    if spec.nvidia.mirror is not None or not offered_elsewhere(first, url):
        repository(render.CUDA_SOURCE, url, key)


def offered_elsewhere(package: str, url: str) -> bool:
    """Return whether apt knows a package from another place than ``url``."""
    places: tuple[str, ...] = host.get_fact(Offered, package=package)
    return any(not place.startswith(url.rstrip("/")) for place in places)


def repository(source: str, url: str, key: Key) -> None:
    """Add a flat repository that its own key signs."""
    apt.source(
        name=f"package source {source}",
        source=source,
        uris=(url,),
        suites=("/",),
        components=(),
        key=key.armored,
        fingerprint=key.fingerprint,
    )


def modules(spec: Host, machine: MachineInfo, plan: DriverPlan) -> None:
    """Load the driver, and nothing else that would take its cards."""
    if machine.container:
        forget_options()
        return
    if spec.nvidia.suspend == "preserve":
        files.directory(name="room for video memory", path=spec.nvidia.suspend_path, mode="700")
    content = render.modprobe(spec, plan, machine.os_id)
    options = files.put(name="options of the kernel's modules", dest=render.MODPROBE, content=content)
    initramfs.built_with(name="what is loaded at boot", subject=OWNER, content=content)
    # A blacklist says nothing to a module that is loaded; its options it reads only then.
    if machine.nvidia_loaded and spec.nvidia.suspend == "preserve":
        reboot.needed(
            name="options wait for the next boot", reasons=(OPTIONS_CHANGED,), _if=options.did_change
        )
    driver.loaded(name="driver is loaded")


def forget_options() -> None:
    """Take back what the kernel's modules were told, also where the early boot reads it."""
    gone = files.absent_own(name="options of the kernel's modules", path=render.MODPROBE)
    initramfs.built_with(name="what is loaded at boot", subject=OWNER, content=None, _if=gone.did_change)


def persistence(plan: DriverPlan) -> None:
    """Keep the driver loaded, so that caps and clocks hold."""
    files.directory(name="persistence: folder", path=str(Path(render.PERSISTENCE_DROP_IN).parent))
    files.put(
        name="persistence mode",
        dest=render.PERSISTENCE_DROP_IN,
        content=render.persistence(plan),
        restarts=render.PERSISTENCED,
    )
    driver.persistent(name="driver is kept loaded", unit=render.PERSISTENCED)


def sleep(spec: Host) -> None:
    """Let the cards survive sleep: the driver's own units, and what frees or preserves video memory."""
    driver.enabled(name="the driver's sleep units", units=render.DRIVERS_SLEEP_UNITS)
    if spec.nvidia.suspend == "preserve" or not spec.services:
        forget_sleep()
        return
    files.directory(name="sleep: folder", path=str(Path(render.SLEEP_SCRIPT).parent))
    files.put(
        name="services leave the cards before sleep",
        dest=render.SLEEP_SCRIPT,
        content=render.sleep_script(spec),
    )
    for unit in render.sleep_units():
        systemd.unit(name=f"unit {unit.name}", unit=unit.name, content=unit.content, running=None)


def forget_sleep() -> None:
    """Take back that services leave the cards before sleep."""
    leftovers.units(name="units around sleep", pattern=f"/etc/systemd/system/{render.SLEEP_PATTERN}", keep=())
    files.absent_own(name="script around sleep", path=render.SLEEP_SCRIPT)


def container_toolkit(spec: Host, machine: MachineInfo) -> None:
    """Install what lets container engines use the cards."""
    if not spec.nvidia.container_toolkit:
        files.absent_own(
            name=f"package source {render.CONTAINER_SOURCE}",
            path=f"{_SOURCES}/{render.CONTAINER_SOURCE}.sources",
        )
        return
    folder = Path(host.data.ssh_known_hosts_file).parent
    url, key = render.container_repository(machine.arch, spec.nvidia.container_mirror, folder)
    if spec.nvidia.container_mirror is not None or not offered_elsewhere(render.CONTAINER_PACKAGES[0], url):
        repository(render.CONTAINER_SOURCE, url, key)
    apt.packages(name="container toolkit", names=render.CONTAINER_PACKAGES)


def described_to_containers() -> None:
    """Describe the cards by CDI, which Docker and Podman both read."""
    driver.enabled(name="cards for containers: units", units=render.CDI_UNITS)
    driver.described_to_containers(
        name="cards for containers", spec=render.CDI_SPEC, unit=render.CDI_UNITS[-1]
    )


def leave(spec: Host) -> None:
    """Let go of holds and of labctl's own files; of a vendor's image, only say what does not fit."""
    holds.released(name="holds", owner=OWNER)
    forget_options()
    files.absent_own(name="persistence mode", path=render.PERSISTENCE_DROP_IN)
    files.absent_own(name="the archive's driver only", path=render.PIN)
    for source in (render.CUDA_SOURCE, render.CONTAINER_SOURCE):
        files.absent_own(name=f"package source {source}", path=f"{_SOURCES}/{source}.sources")
    forget_sleep()
    if render.cards(spec) and spec.vendor_image:
        machine: MachineInfo = host.get_fact(Machine)
        if machine.mismatch:
            logger.warning(f"{host.name}: {machine.mismatch}; reboot it, the vendor's driver is left alone")


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    nvidia()
