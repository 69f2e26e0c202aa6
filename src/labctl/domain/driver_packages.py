"""Which packages bring the NVIDIA driver to a host, from which source, and which of them are held.

Where the distribution's archive is new enough it is used, because its packages fit its kernels and, on
Ubuntu, bring modules that are built and signed already: nothing is compiled on the host and Secure Boot
stays on. Where it is too old (Debian for Blackwell, or a kernel from backports) NVIDIA's own repository
serves, with its branch pinned before anything else comes from there. The two are never mixed. Headless
packages are preferred: a host that serves needs no display server.

What a person asked for is done or refused, never bent; what nobody asked for is chosen, and said in a note.
Driver and kernel are held together, since either without the other leaves a host without its cards.

Ubuntu's names lead to other branches now and then ("transitional" packages); they are resolved here, so that
what is written down is what gets installed. As of November 2026: on 24.04 610 is 615; on 26.04 also 535 and
570 are 580, and 590 is 595. Debian's names and versions are from its archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from labctl.domain import drivers
from labctl.domain.drivers import Flavour
from labctl.domain.problem import LabctlError

Source = Literal["distro", "nvidia"]

# Debian's archive has one branch for each release, built against that release's kernel.
_DEBIAN = {"12": (535, (6, 1)), "13": (550, (6, 12))}
# Its security updates bring a newer driver (535.309.01), and the open modules (535.261.03) no more.
_OPEN_LEFT_BEHIND = ("12",)
_UBUNTU_KERNEL = {"24.04": (6, 8), "26.04": (7, 0)}
_UBUNTU_LEADS_TO = {"24.04": {610: 615}, "26.04": {535: 580, 570: 580, 590: 595, 610: 615}}
_UBUNTU_BRANCHES = {"24.04": (535, 580, 590, 595, 615), "26.04": (580, 595, 615)}
# Branches with a "-server" series, which gets fixes only, and those that lie in multiverse.
_SERVER = (535, 580, 595, 615)
_MULTIVERSE = (595, 615)
# Kernels for which Ubuntu ships the modules built and signed, and the packages' names for their kinds.
_PREBUILT = {615: ((6, 8), (7, 0))}
_PREBUILT_ELSE = ((6, 8), (6, 17), (7, 0))
_PREBUILT_KINDS = ("generic", "nvidia")
_FOLDERS = ("debian12", "debian13", "ubuntu2404", "ubuntu2604")
_ARCH_FOLDER = {"amd64": "x86_64", "arm64": "sbsa"}
NEWEST = 595
_RELEASE = re.compile(r"(\d+)\.(\d+)[^-]*(?:-[0-9][^-]*)*-([a-z][a-z0-9-]*)")
CUDA_WITHOUT_LEGACY = 13


@dataclass(frozen=True, slots=True)
class Needs:
    """A host and what was asked for it; ``branch`` None and "auto" leave the choice to labctl.

    ``key_enrolled``: the key by which DKMS signs modules is known to the firmware.
    """

    os_id: str
    os_version: str
    arch: str
    kernel: str
    architectures: tuple[str, ...]
    branch: int | None = None
    flavour: str = "auto"
    source: str = "auto"
    secure_boot: bool | None = None
    key_enrolled: bool = False
    container: bool = False
    cuda_toolkit: str | None = None

    @property
    def folder(self) -> str:
        """The distribution's folder in NVIDIA's repository, such as "debian13"."""
        return f"{self.os_id}{self.os_version.replace('.', '')}"

    @property
    def system(self) -> str:
        """The distribution as a person says it."""
        return f"{self.os_id.capitalize()} {self.os_version}".strip() or "this system"


@dataclass(frozen=True, slots=True)
class DriverPlan:
    """What to install. ``first`` comes before ``packages``, so that it may pin their branch.

    ``components`` are those that the archive must offer, ``repository`` the folder of NVIDIA's repository
    ("debian13/x86_64") or None. ``dkms``: the modules are built on the host; ``newest`` are then the kernel's
    image and headers that come together where those of the running kernel are not to be had any more.
    ``metas`` are the kernel's packages that move it to another version, to be held with the driver.
    """

    branch: int
    flavour: Flavour
    source: Source
    packages: tuple[str, ...]
    first: tuple[str, ...] = ()
    toolkit: tuple[str, ...] = ()
    metas: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    repository: str | None = None
    dkms: bool = True
    newest: tuple[str, ...] = ()
    persistence_user: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> tuple[str, ...]:
        """The packages that stay as they are until a person moves them."""
        return (*self.first, *self.packages, *self.metas)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A running kernel's version and kind, such as ((6, 8), "generic")."""

    version: tuple[int, int]
    kind: str
    backported: bool


def kernel_of(release: str) -> Kernel | None:
    """Read what ``uname -r`` prints; None for a kernel that no distribution named."""
    match = _RELEASE.fullmatch(release)
    if match is None:
        return None
    return Kernel((int(match[1]), int(match[2])), match[3], "bpo" in release)


def choose(needs: Needs) -> DriverPlan:
    """Return what to install.

    Raises:
        LabctlError: no driver serves this host as it is and as it was asked for; says why and what to do.
    """
    if found := drivers.refusals(needs.architectures, needs.branch, needs.flavour):
        raise LabctlError("; ".join(found), hint="see nvidia=Nvidia(...) and gpus=[...] of this host")
    if drivers.unknown(needs.architectures) and (needs.branch is None or needs.flavour == "auto"):
        raise LabctlError(
            "which driver a card needs that labctl does not know cannot be told",
            hint='say nvidia=Nvidia(branch=..., flavour="open" or "proprietary")',
        )
    if needs.os_id == "debian" and needs.os_version in _DEBIAN:
        plan = _debian(needs)
    elif needs.os_id == "ubuntu" and needs.os_version in _UBUNTU_BRANCHES:
        plan = _ubuntu(needs)
    else:
        raise LabctlError(
            "labctl installs the NVIDIA driver on Debian 12 and 13 and on Ubuntu 24.04 and 26.04, "
            f"not on {needs.system}",
            hint="install it yourself and say nvidia=Nvidia(manage=False)",
        )
    _refuse_what_the_plan_cannot(needs, plan)
    return replace(plan, newest=_newest(plan)) if plan.dkms else plan


def _newest(plan: DriverPlan) -> tuple[str, ...]:
    headers = [name for name in plan.packages if name.startswith("linux-headers-")]
    return (*(name.replace("-headers-", "-image-") for name in headers), *headers)


def _refuse_what_the_plan_cannot(needs: Needs, plan: DriverPlan) -> None:
    # The branch may have been chosen here, so what depends on it is asked once more.
    if found := drivers.refusals(needs.architectures, plan.branch, plan.flavour):
        raise LabctlError("; ".join(found), hint="see nvidia=Nvidia(...) of this host")
    _, last = drivers.branches(needs.architectures)
    if (
        needs.cuda_toolkit
        and last is not None
        and int(needs.cuda_toolkit.split("-")[0]) >= CUDA_WITHOUT_LEGACY
    ):
        raise LabctlError(
            f"CUDA {needs.cuda_toolkit.replace('-', '.')} compiles nothing for these cards; their last is 12",
            hint='say nvidia=Nvidia(cuda_toolkit="12-8")',
        )
    if plan.dkms and needs.secure_boot and not needs.key_enrolled and not needs.container:
        raise LabctlError(
            "Secure Boot is on, and this driver's kernel modules are built on the host (DKMS), whose key the "
            "firmware does not know; nothing was installed",
            hint=_enrol(needs),
        )


def _enrol(needs: Needs) -> str:
    key = "/var/lib/dkms/mok.pub"
    make = f"test -e {key} || sudo dkms generate_mok"
    if needs.os_id == "ubuntu":
        key = "/var/lib/shim-signed/mok/MOK.der"
        make = f"test -e {key} || sudo update-secureboot-policy --new-key"
    elif needs.os_version == "12":
        make = (
            f"test -e {key} || sudo openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -outform DER "
            f"-subj /CN=DKMS/ -keyout /var/lib/dkms/mok.key -out {key}"
        )
    return (
        f"on the host: sudo apt install dkms mokutil openssl; {make}; sudo mokutil --import {key} with a "
        'password for once; reboot and choose "Enroll MOK" at its screen (monitor, BMC or PiKVM; SSH does '
        "not reach it); then apply again. Or turn Secure Boot off in the firmware"
    )


def _debian(needs: Needs) -> DriverPlan:
    branch, own = _DEBIAN[needs.os_version]
    kernel = _debian_kernel(needs)
    lowest, _ = drivers.branches(needs.architectures)
    newer = kernel is not None and not needs.container and (kernel.backported or kernel.version > own)
    why = ""
    if needs.branch not in (None, branch):
        why = f"{needs.system} has branch {branch}, not {needs.branch}"
    elif branch < lowest:
        why = f"the driver of {needs.system} is of branch {branch}, and these cards need {lowest} or later"
    elif needs.flavour == "open" and needs.os_version in _OPEN_LEFT_BEHIND:
        why = f"the open modules of {needs.system} are older than the rest of its driver and do not fit it"
    elif newer:
        why = (
            f"the driver of {needs.system} is made for its kernel {own[0]}.{own[1]} and may not build for "
            f"{needs.kernel}"
        )
    if needs.source == "distro" and why:
        raise LabctlError(why, hint='say nvidia=Nvidia(source="nvidia"), or leave `source` and `branch` out')
    if needs.source == "nvidia" or why:
        return _from_nvidia(needs, (f"{why}: taken from NVIDIA's repository",) if why else ())
    flavour = drivers.flavour_of(needs.architectures, branch, needs.flavour)
    module = "nvidia-open-kernel-dkms" if flavour == "open" else "nvidia-kernel-dkms"
    user_space = ("nvidia-smi", "libcuda1", "nvidia-persistenced", "nvidia-suspend-common")
    headers, metas, notes = _debian_kernel_packages(needs)
    plan = DriverPlan(
        branch=branch,
        flavour=flavour,
        source="distro",
        packages=user_space if needs.container else (*headers, module, *user_space),
        metas=metas,
        components=("contrib", "non-free", "non-free-firmware"),
        dkms=not needs.container,
        persistence_user="nvpd",
        notes=notes,
    )
    return _with_toolkit(needs, plan)


def _debian_kernel(needs: Needs) -> Kernel | None:
    """Return the running kernel if it is Debian's: its kind then ends with the architecture."""
    kernel = kernel_of(needs.kernel)
    return kernel if kernel is not None and kernel.kind.split("-")[-1] == needs.arch else None


def _debian_kernel_packages(needs: Needs) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the headers, the packages that would move the kernel, and what to say about them."""
    if needs.container:
        return (), (), _container_note(needs)
    kernel = _debian_kernel(needs)
    if kernel is None:
        said = f"the kernel {needs.kernel} is not Debian's: its headers have to be there already"
        return (), (f"linux-image-{needs.arch}", f"linux-headers-{needs.arch}"), (said,)
    return (f"linux-headers-{kernel.kind}",), (f"linux-image-{kernel.kind}",), ()


def _ubuntu(needs: Needs) -> DriverPlan:
    _, last = drivers.branches(needs.architectures)
    asked = needs.branch or (last if last is not None else NEWEST)
    if needs.source == "nvidia":
        return _from_nvidia(needs, ())
    branch = _UBUNTU_LEADS_TO[needs.os_version].get(asked, asked)
    notes = [f"{needs.system} installs branch {branch} under the name {asked}"] if branch != asked else []
    if branch not in _UBUNTU_BRANCHES[needs.os_version]:
        if needs.source == "distro":
            offered = ", ".join(map(str, _UBUNTU_BRANCHES[needs.os_version]))
            raise LabctlError(
                f"{needs.system} has the branches {offered}, not {asked}",
                hint='choose one of them, or say nvidia=Nvidia(source="nvidia")',
            )
        return _from_nvidia(needs, (f"{needs.system} lacks branch {asked}: taken from NVIDIA's repository",))
    flavour = drivers.flavour_of(needs.architectures, branch, needs.flavour)
    series = f"{branch}-server" if branch in _SERVER else f"{branch}"
    modules, metas, dkms, said = _ubuntu_modules(
        needs, branch, f"{series}{'-open' if flavour == 'open' else ''}"
    )
    plan = DriverPlan(
        branch=branch,
        flavour=flavour,
        source="distro",
        packages=_ubuntu_packages(needs, series, flavour, modules),
        metas=metas,
        components=("restricted", "multiverse") if branch in _MULTIVERSE else ("restricted",),
        dkms=dkms,
        persistence_user="nvidia-persistenced",
        notes=(*notes, *said, *_container_note(needs)),
    )
    return _with_toolkit(needs, plan)


def _ubuntu_packages(
    needs: Needs, series: str, flavour: Flavour, modules: tuple[str, ...]
) -> tuple[str, ...]:
    tools = f"nvidia-utils-{series}"
    if needs.container:
        return (f"libnvidia-compute-{series}", tools)
    opened = "-open" if flavour == "open" else ""
    return (*modules, f"nvidia-headless-no-dkms-{series}{opened}", tools)


def _ubuntu_modules(
    needs: Needs, branch: int, series: str
) -> tuple[tuple[str, ...], tuple[str, ...], bool, tuple[str, ...]]:
    """Return the modules' packages, the kernel's packages, whether DKMS builds, and what to say about it."""
    if needs.container:
        return (), (), False, ()
    kind = _ubuntu_kind(needs)
    headers, image = f"linux-headers-{kind}", f"linux-image-{kind}"
    metas = (f"linux-{kind}", image, headers)
    kernel = kernel_of(needs.kernel)
    built = kernel is not None and kernel.version in _PREBUILT.get(branch, _PREBUILT_ELSE)
    if built and kind.removesuffix(f"-hwe-{needs.os_version}") in _PREBUILT_KINDS:
        return (f"linux-modules-nvidia-{series}-{kind}",), metas, False, ()
    said = f"no ready modules for the kernel {needs.kernel}: they are built on the host"
    return (headers, f"nvidia-dkms-{series}"), metas, True, (said,)


def _ubuntu_kind(needs: Needs) -> str:
    """Return the kind of the running kernel as package names have it, such as "generic-hwe-24.04"."""
    kernel = kernel_of(needs.kernel)
    if kernel is None:
        raise LabctlError(
            f"the kernel {needs.kernel} is none of {needs.system}, so its headers cannot be named",
            hint="boot the distribution's kernel, or say nvidia=Nvidia(manage=False)",
        )
    own = kernel.version == _UBUNTU_KERNEL[needs.os_version]
    return kernel.kind if own else f"{kernel.kind}-hwe-{needs.os_version}"


def _from_nvidia(needs: Needs, notes: tuple[str, ...]) -> DriverPlan:
    """Return the plan that takes the driver from NVIDIA's repository, pinned to its branch."""
    _, last = drivers.branches(needs.architectures)
    branch = needs.branch or (last if last is not None else NEWEST)
    flavour = drivers.flavour_of(needs.architectures, branch, needs.flavour)
    modules: tuple[str, ...]
    if needs.os_id == "debian":
        headers, metas, said = _debian_kernel_packages(needs)
        modules = ("nvidia-kernel-open-dkms" if flavour == "open" else "nvidia-kernel-dkms",)
        user_space: tuple[str, ...] = ("nvidia-driver-cuda", "nvidia-persistenced")
    else:
        kind = "" if needs.container else _ubuntu_kind(needs)
        headers, metas, said = (f"linux-headers-{kind}",), (f"linux-{kind}", f"linux-image-{kind}"), ()
        modules = ("nvidia-open" if flavour == "open" else "cuda-drivers",)
        user_space = ()
    if needs.container:
        headers, metas, said = (), (), _container_note(needs)
        modules = modules if needs.os_id == "ubuntu" else ()
    plan = DriverPlan(
        branch=branch,
        flavour=flavour,
        source="nvidia",
        first=(f"nvidia-driver-pinning-{branch}",),
        packages=(*headers, *modules, *user_space),
        metas=metas,
        components=("contrib",) if needs.os_id == "debian" else (),
        repository=_repository(needs),
        dkms=not needs.container,
        notes=(*notes, *said),
    )
    return _with_toolkit(needs, plan)


def _repository(needs: Needs) -> str:
    if needs.folder not in _FOLDERS or needs.arch not in _ARCH_FOLDER:
        raise LabctlError(
            f"NVIDIA has no repository for {needs.system} on {needs.arch}",
            hint="install the driver yourself and say nvidia=Nvidia(manage=False)",
        )
    return f"{needs.folder}/{_ARCH_FOLDER[needs.arch]}"


def _with_toolkit(needs: Needs, plan: DriverPlan) -> DriverPlan:
    if needs.cuda_toolkit is None:
        return plan
    return replace(plan, toolkit=(f"cuda-toolkit-{needs.cuda_toolkit}",), repository=_repository(needs))


def _container_note(needs: Needs) -> tuple[str, ...]:
    if not needs.container:
        return ()
    return ("a container uses the kernel modules of the machine around it, so only programs and libraries",)
