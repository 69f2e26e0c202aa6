"""Which ROCm a host with AMD graphics gets, or why it computes with Vulkan only.

Theory: Vulkan always works where the kernel shows a card, so every doubt ends there and never in a host
without a working backend. ROCm is added where all of this holds: AMD publishes it for the distribution (or
the distribution has one that serves the card), it holds code for the card's LLVM target, and the kernel is
new enough for the card. AMD's own packages go before the distribution's, which lag by years.

Kernel drivers are never installed. AMD requires the kernel's own driver on APUs; on cards that one serves
inference too, and no module then has to be built, signed or held back. A leftover ROCm of the old packaging
(up to 7.2.4) cannot stay beside the new one, but removing software that somebody uses is theirs to decide:
the plan is an instruction then, not a removal.

Sources: AMD's installation guide for ROCm 10.0 (repositories, package names, targets, kernels of Strix Halo)
and Debian's and Ubuntu's archives (versions).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from labctl.domain.problem import LabctlError

Source = Literal["amd", "distro", "none"]
Wanted = Literal["auto", "distro", "amd"]

RELEASE = "10.0"
FIRST_RELEASE = (10, 0)  # with it the packages got their names and their place
GROUPS = ("render", "video")
KEY_URL = "https://stable.repo.amd.com/rocm/gpg/packages.gpg"
# AMD's own build of its repository packages compares the key with this one before it embeds it.
KEY_FINGERPRINT = "D0F004A0025A1145C7807FCD0701EAC4D5E02107"
_ROOT = "https://stable.repo.amd.com/rocm/core/packages"
_REPOSITORIES = {
    ("debian", "12"): "debian12",
    ("debian", "13"): "debian13",
    ("ubuntu", "22.04"): "ubuntu2204",
    ("ubuntu", "24.04"): "ubuntu2404",
    ("ubuntu", "26.04"): "ubuntu2604",
}
AMD_TARGETS = frozenset(
    (
        *("gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1103"),
        *("gfx1150", "gfx1151", "gfx1152", "gfx1153", "gfx1200", "gfx1201"),
    )
)


@dataclass(frozen=True, slots=True)
class Archive:
    """A distribution's own ROCm: its packages, and the targets that it has code for."""

    packages: tuple[str, ...]
    targets: frozenset[str]


_OLD_TARGETS = frozenset(("gfx906", "gfx908", "gfx90a", "gfx1030", "gfx1100", "gfx1101", "gfx1102"))
_ARCHIVES = {
    ("debian", "13"): Archive(("libamdhip64-5", "libhipblas0", "librocblas0", "rocminfo"), _OLD_TARGETS),
    # 7.1; it does not serve Strix Halo on any kernel.
    ("ubuntu", "26.04"): Archive(
        ("rocm",), _OLD_TARGETS | {"gfx942", "gfx950", "gfx1103", "gfx1200", "gfx1201"}
    ),
}
STRIX_HALO = "gfx1151"
_APU_TARGETS = frozenset(("gfx1103", "gfx1150", STRIX_HALO, "gfx1152", "gfx1153"))
_KERNEL = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-(\d+))?(.*)")
_BAD_FIRMWARE = "20251125"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the choice depends on.

    ``targets`` are the cards' LLVM targets, "" for a card whose target is not known. ``wanted`` and
    ``release`` are the inventory's words; ``mirror`` says that it names a copy of AMD's repository. ``old``
    are installed packages of ROCm before 7.14. ``dkms``: AMD's kernel module is installed. ``firmware`` is
    the version of the firmware package, "" where none is known. ``backports``: the host has its
    distribution's backports among its package sources.
    """

    os_id: str
    os_version: str
    arch: str
    kernel: str
    targets: tuple[str, ...]
    wanted: Wanted = "auto"
    release: str | None = None
    mirror: bool = False
    old: tuple[str, ...] = ()
    dkms: bool = False
    firmware: str = ""
    backports: bool = False


@dataclass(frozen=True, slots=True)
class RocmPlan:
    """What to install and from where; ``why_not`` says why there is no ROCm, ``warnings`` what to mend."""

    source: Source
    packages: tuple[str, ...] = ()
    uri: str = ""
    why_not: str = ""
    warnings: tuple[str, ...] = ()


def plan(needs: Needs) -> RocmPlan:
    """Return which ROCm a host gets.

    Raises:
        LabctlError: the inventory insists on something that does not exist.
    """
    release = _checked_release(needs.release)
    warnings = hardware_warnings(needs)
    if not (targets := tuple(sorted({target for target in needs.targets if target}))):
        return _none("the LLVM target of its cards is not known", warnings)
    if needs.arch != "amd64":
        why = f"ROCm exists for amd64 only, not for {needs.arch or 'this machine'}"
        return _refused(needs, why, warnings)
    if STRIX_HALO in targets and (floor := kernel_floor(needs.os_id, needs.os_version, needs.kernel)):
        why = f"kernel {needs.kernel} is too old for ROCm on Strix Halo, which needs {floor}"
        return _none(why, warnings)
    if needs.wanted != "distro" and (found := _from_amd(needs, release, targets, warnings)):
        return found
    if needs.wanted != "amd" and (found := _from_distro(needs, targets, warnings)):
        return found
    where = {"amd": "AMD's repository", "distro": "the distribution's archive", "auto": "any repository"}
    name = f"{needs.os_id} {needs.os_version}".strip() or "this system"
    why = f"there is no ROCm for {', '.join(targets)} on {name} in {where[needs.wanted]}"
    return _refused(needs, why, warnings)


def hardware_warnings(needs: Needs) -> tuple[str, ...]:
    """Return what is wrong with the ground that ROCm and Vulkan stand on, each with what to do."""
    found = []
    if is_apu(needs.targets) and needs.dkms:
        found.append(
            "amdgpu-dkms is installed, but this processor's graphics need the kernel's own driver: "
            "`apt-get purge amdgpu-dkms` and reboot"
        )
    if needs.firmware.partition("-")[0].endswith(_BAD_FIRMWARE):
        found.append(
            f"firmware {needs.firmware} breaks ROCm on Strix Halo: upgrade the firmware package to 20260110 "
            "or later and reboot"
        )
    return tuple(found)


def is_apu(targets: tuple[str, ...]) -> bool:
    """Return whether one of these targets is a processor's own graphics."""
    return any(target in _APU_TARGETS for target in targets)


def kernel_floor(os_id: str, os_version: str, kernel: str) -> str | None:
    """Return the kernel that Strix Halo needs on this system, or None when ``kernel`` is new enough.

    The upload behind Ubuntu's ABI number does not show in ``uname -r``; of the first good ABI only later
    uploads are good too, which cannot be told here.
    """
    match = _KERNEL.match(kernel)
    numbers = tuple(int(part or 0) for part in match.groups()[:3]) if match else (0, 0, 0)
    abi = int(match[4] or 0) if match else 0
    rest = match[5] if match else ""
    if numbers >= (6, 18, 4):
        return None
    if (os_id, os_version) == ("ubuntu", "26.04") and numbers >= (7, 0, 0):
        return None
    if (os_id, os_version) != ("ubuntu", "24.04"):
        return "6.18.4 or later"
    if numbers[:2] == (6, 17) and abi >= 19:
        return None
    if numbers[:2] == (6, 14) and abi >= 1018 and "oem" in rest:
        return None
    return "6.17.0-19.19~24.04.2 or later (linux-generic-hwe-24.04), or OEM 6.14.0-1018"


def _checked_release(release: str | None) -> str:
    if release is None:
        return RELEASE
    major, _, minor = release.partition(".")
    if (int(major), int(minor)) < FIRST_RELEASE:
        raise LabctlError(
            f"labctl does not install ROCm {release}: its packages are of the old kind",
            hint=f'leave out rocm=, or say rocm="{RELEASE}"',
        )
    return release


def _from_amd(
    needs: Needs, release: str, targets: tuple[str, ...], warnings: tuple[str, ...]
) -> RocmPlan | None:
    folder = _REPOSITORIES.get((needs.os_id, needs.os_version))
    served = tuple(target for target in targets if target in AMD_TARGETS)
    if not served or (folder is None and not needs.mirror):
        return None
    if needs.old:
        names = " ".join(needs.old)
        why = "an older ROCm is installed, which cannot stay beside a new one"
        return _none(why, (*warnings, f"{why}: `apt-get purge --autoremove {names}`, then apply again"))
    missing = [target for target in targets if target not in served]
    if missing:
        warnings = (*warnings, f"AMD's ROCm {release} has no code for {', '.join(missing)}: use Vulkan there")
    packages = tuple(f"amdrocm{release}-{target}" for target in served)
    return RocmPlan("amd", packages, "" if needs.mirror else f"{_ROOT}/{folder}/", warnings=warnings)


def _from_distro(needs: Needs, targets: tuple[str, ...], warnings: tuple[str, ...]) -> RocmPlan | None:
    archive = _ARCHIVES.get((needs.os_id, needs.os_version))
    if archive is None or not archive.targets.issuperset(targets):
        return None
    return RocmPlan("distro", archive.packages, warnings=warnings)


def _none(why: str, warnings: tuple[str, ...]) -> RocmPlan:
    return RocmPlan("none", why_not=why, warnings=warnings)


def _refused(needs: Needs, why: str, warnings: tuple[str, ...]) -> RocmPlan:
    """Return "Vulkan only" where labctl chose, and refuse where the inventory insisted."""
    if needs.wanted != "auto":
        raise LabctlError(why, hint='leave out source= of Amd, or say amd=Amd(source="auto")')
    return _none(why, warnings)


@dataclass(frozen=True, slots=True)
class MesaPlan:
    """Which Mesa serves the cards: its packages, the suite to prefer if not the usual one, and warnings."""

    packages: tuple[str, ...]
    suite: str = ""
    warnings: tuple[str, ...] = ()


_VULKAN = ("mesa-vulkan-drivers", "vulkan-tools")


def mesa(needs: Needs) -> MesaPlan:
    """Return which Mesa brings Vulkan to the cards of a host.

    Debian 12's Mesa 22.3 is older than RDNA3.5 and RDNA4; its backports hold 25.0. They are preferred where
    the host has them among its sources and never added, since that changes what else may be installed.
    """
    too_new = sorted({target for target in needs.targets if target.startswith(("gfx115", "gfx120"))})
    if (needs.os_id, needs.os_version) != ("debian", "12") or not too_new:
        return MesaPlan(_VULKAN)
    if needs.backports:
        return MesaPlan(_VULKAN, "bookworm-backports")
    words = (
        f"Debian 12's Mesa 22.3 is too old for {', '.join(too_new)}: add bookworm-backports to the host's "
        "package sources, from where labctl then takes Mesa, or install Debian 13"
    )
    return MesaPlan(_VULKAN, warnings=(words,))
