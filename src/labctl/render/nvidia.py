"""What the NVIDIA driver needs besides its packages: files of labctl's own, derived from the inventory.

The driver forgets caps and clocks when its last user leaves, so the daemon that keeps it loaded runs with
persistence mode. What lies in video memory does not outlive sleep by itself: either the services leave the
cards before and come back after (the default, which cannot fail for want of room), or the driver writes all
of it to a folder with room for it, which is checked before it is promised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from labctl import render
from labctl.domain.driver_packages import DriverPlan as DriverPlan
from labctl.domain.driver_packages import Needs, choose
from labctl.domain.problem import LabctlError
from labctl.inventory import AptMirror, Gpu, Host, profiles
from labctl.render import nvidia_keys, units
from labctl.render.nvidia_keys import Key as Key

CUDA = "https://developer.download.nvidia.com/compute/cuda/repos"
CONTAINERS = "https://nvidia.github.io/libnvidia-container/stable/deb"
CUDA_SOURCE = "labctl-nvidia"
CONTAINER_SOURCE = "labctl-nvidia-container"
# The last of its kind wins, so it comes after the distributions' own files.
MODPROBE = "/etc/modprobe.d/zz-labctl-nvidia.conf"
PIN = "/etc/apt/preferences.d/labctl-nvidia.pref"
PERSISTENCED = "nvidia-persistenced.service"
PERSISTENCE_DROP_IN = f"{units.UNIT_DIR}/{PERSISTENCED}.d/10-labctl.conf"
SLEEP_SCRIPT = "/usr/local/lib/labctl/gpu-sleep"
# Not called labctl-*: that name could be a service's.
SLEEP_UNITS = ("gpu-sleep-labctl.service", "gpu-wake-labctl.service")
SLEEP_PATTERN = "gpu-*-labctl.service"
DRIVERS_SLEEP_UNITS = ("nvidia-suspend.service", "nvidia-resume.service", "nvidia-hibernate.service")
CONTAINER_PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
CDI_UNITS = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service")
CDI_SPEC = "/var/run/cdi/nvidia.yaml"

_BLACKLIST = ("nouveau", "lbm-nouveau", "nova", "nova_core", "nova_drm")
# Debian's archive names the modules by its alternatives.
_DEBIAN_MODULES = ("nvidia", "nvidia-current", "nvidia-current-open")
_DRIVER_PACKAGES = (
    *("/^nvidia-/", "/^libnvidia-/", "/^cuda-drivers/", "/^libcuda1/", "/^libnvcuvid1/"),
    *("/^firmware-nvidia/", "/^xserver-xorg-video-nvidia/", "/^libxnvctrl/"),
)
# NVIDIA asks for the sum of video memory and 5 %.
_ROOM = 1.05


class System(Protocol):
    """What a host says of itself, as far as the choice of a driver asks for it."""

    @property
    def os_id(self) -> str:
        """The distribution, such as "debian"."""

    @property
    def os_version(self) -> str:
        """Its release, such as "12"."""

    @property
    def arch(self) -> str:
        """Debian's word for the architecture."""

    @property
    def kernel(self) -> str:
        """What ``uname -r`` prints."""

    @property
    def secure_boot(self) -> bool | None:
        """Whether the firmware refuses unsigned modules; None: not known."""

    @property
    def key_enrolled(self) -> bool:
        """Whether the firmware knows the key by which DKMS signs."""

    @property
    def container(self) -> bool:
        """Whether the kernel's modules belong to the machine around the host."""


def plan(host: Host, system: System) -> DriverPlan:
    """Return which driver is installed on a host, and from where.

    Raises:
        LabctlError: no driver serves it as it is and as the inventory asks.
    """
    wanted = host.nvidia
    return choose(
        Needs(
            os_id=system.os_id,
            os_version=system.os_version,
            arch=system.arch,
            kernel=system.kernel,
            architectures=architectures(host),
            branch=wanted.branch,
            flavour=wanted.flavour,
            source=wanted.source,
            secure_boot=system.secure_boot,
            key_enrolled=system.key_enrolled,
            container=system.container,
            cuda_toolkit=wanted.cuda_toolkit,
        )
    )


def cards(host: Host) -> tuple[Gpu, ...]:
    """Return the host's NVIDIA cards."""
    return tuple(gpu for gpu in host.gpus if profiles.of(gpu).vendor == "nvidia")


def architectures(host: Host) -> tuple[str, ...]:
    """Return the architectures of the host's NVIDIA cards, each once."""
    return tuple(dict.fromkeys(profiles.of(gpu).architecture for gpu in cards(host)))


def video_memory(host: Host) -> int | None:
    """Return how many bytes of video memory the NVIDIA cards have together; None: not known of one."""
    found = [profiles.of(gpu) for gpu in cards(host)]
    if any(profile.memory_gib is None and not profile.unified for profile in found):
        return None
    return int(sum((profile.memory_gib or 0) * 2**30 for profile in found))


def require_room(host: Host, kind: str, free: int) -> None:
    """Raise ``LabctlError`` unless ``suspend_path`` can hold the video memory.

    Args:
        host: whose inventory asks to preserve video memory.
        kind: type of the file system there, as the host names it.
        free: bytes free there.
    """
    path, needed = host.nvidia.suspend_path, video_memory(host)
    hint = 'give suspend_path= another place, or say nvidia=Nvidia(suspend="unload")'
    if kind in ("tmpfs", "ramfs"):
        raise LabctlError(
            f"{path} lies in memory ({kind}), which video memory would fill", hint=hint, host=host.name
        )
    if needed is None:
        raise LabctlError(
            "how much video memory there is to preserve is not known of every card",
            hint='say nvidia=Nvidia(suspend="unload")',
            host=host.name,
        )
    if free < needed * _ROOM:
        raise LabctlError(
            f"{path} has {free / 2**30:.0f} GiB free, and the cards' memory with 5 % more needs "
            f"{needed * _ROOM / 2**30:.0f} GiB",
            hint=hint,
            host=host.name,
        )


def repository(chosen: DriverPlan, mirror: AptMirror | None, folder: Path) -> tuple[str, Key]:
    """Return the address and the key of NVIDIA's repository or of its copy.

    Args:
        chosen: says which repository; it must name one.
        mirror: the copy that the inventory states.
        folder: the rack file's folder, to which paths of the inventory are relative.

    Raises:
        LabctlError: labctl does not carry the key of this repository, and the inventory names none.
    """
    path = chosen.repository or ""
    return _place(f"{CUDA}/{path}", nvidia_keys.of_repository(path.partition("/")[0]), mirror, folder)


def container_repository(arch: str, mirror: AptMirror | None, folder: Path) -> tuple[str, Key]:
    """Return the address and the key of the container toolkit's repository or of its copy."""
    return _place(f"{CONTAINERS}/{arch}", nvidia_keys.CONTAINER_TOOLKIT, mirror, folder)


def _place(url: str, key: Key | None, mirror: AptMirror | None, folder: Path) -> tuple[str, Key]:
    if mirror is not None and mirror.key is not None and mirror.fingerprint is not None:
        file = folder / Path(mirror.key).expanduser()
        return mirror.url, Key(mirror.fingerprint, file.read_text())
    if key is None:
        raise LabctlError(
            f"labctl does not carry the key that signs {url}",
            hint="fetch it there, compare its fingerprint with what NVIDIA states, and give "
            "mirror=AptMirror(url=..., key=..., fingerprint=...)",
        )
    return (url if mirror is None else mirror.url), key


def pin() -> str:
    """Return the preferences that keep the driver's packages of NVIDIA's repository, or of a copy, out."""
    return render.text("nvidia-pin.pref.j2", packages=" ".join(_DRIVER_PACKAGES))


def modprobe(host: Host, chosen: DriverPlan, os_id: str) -> str:
    """Return the options of the kernel's modules."""
    modules = _DEBIAN_MODULES if os_id == "debian" and chosen.source == "distro" else ("nvidia",)
    preserve = host.nvidia.suspend_path if host.nvidia.suspend == "preserve" else None
    return render.text("nvidia-modprobe.conf.j2", blacklist=_BLACKLIST, modules=modules, preserve=preserve)


def persistence(chosen: DriverPlan) -> str:
    """Return the drop-in by which the daemon keeps the driver loaded."""
    return render.text("nvidia-persistenced.conf.j2", user=chosen.persistence_user)


def sleep_script(host: Host) -> str:
    """Return the script that takes the rack's services off the cards and brings them back."""
    services = [units.unit_name(service) for service in host.services]
    return render.text("nvidia-sleep.sh.j2", path=SLEEP_SCRIPT, services=services)


def sleep_units() -> tuple[units.Unit, ...]:
    """Return the units that run that script before and after sleep."""
    texts = ("nvidia-sleep.service.j2", "nvidia-wake.service.j2")
    return tuple(
        units.Unit(name, render.text(text, script=SLEEP_SCRIPT))
        for name, text in zip(SLEEP_UNITS, texts, strict=True)
    )
