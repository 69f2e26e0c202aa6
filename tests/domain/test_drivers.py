"""Which cards no driver serves together, and what is installed where.

The Ubuntu rows rest on recorded facts (names, versions and transitional packages of noble and resolute in
November 2026): no Ubuntu archive was at hand to install from. Debian's names are from its archives.
"""

from __future__ import annotations

from typing import Any

import pytest

from labctl.domain.driver_packages import DriverPlan, Needs, choose, kernel_of
from labctl.domain.drivers import branches, flavours, refusals
from labctl.domain.problem import LabctlError

BOOKWORM = {"os_id": "debian", "os_version": "12", "arch": "amd64", "kernel": "6.1.0-40-amd64"}
TRIXIE = {"os_id": "debian", "os_version": "13", "arch": "amd64", "kernel": "6.12.57+deb13-amd64"}
NOBLE = {"os_id": "ubuntu", "os_version": "24.04", "arch": "amd64", "kernel": "6.8.0-149-generic"}
NOBLE_HWE = {**NOBLE, "kernel": "7.0.0-43-generic"}
RESOLUTE = {"os_id": "ubuntu", "os_version": "26.04", "arch": "amd64", "kernel": "7.0.0-43-generic"}


def plan(system: dict[str, Any], *architectures: str, **asked: Any) -> DriverPlan:
    return choose(Needs(**system, architectures=architectures, **asked))


def refused(system: dict[str, Any], *architectures: str, **asked: Any) -> str:
    with pytest.raises(LabctlError) as caught:
        plan(system, *architectures, **asked)
    return str(caught.value)


@pytest.mark.parametrize(
    ("architectures", "branch", "flavour", "words"),
    [
        (["Pascal", "Blackwell"], None, "auto", "Pascal needs the proprietary kernel modules and Blackwell"),
        (["Volta", "Ampere", "Blackwell"], 580, "auto", "different hosts"),
        (["Pascal"], 595, "auto", "up to branch 580 only, not by 595"),
        (["Volta", "Ada"], 590, "auto", "up to branch 580 only"),
        (["Blackwell"], None, "proprietary", "only the open"),
        (["Blackwell", "Ada"], 595, "proprietary", "only the open"),
        (["Pascal"], None, "open", "only the proprietary"),
        (["Blackwell"], 550, "auto", "Blackwell needs branch 570 or later, not 550"),
        (["Ampere"], 615, "proprietary", "no proprietary kernel modules any more"),
        (["Fermi"], None, "auto", "no NVIDIA architecture 'Fermi'"),
    ],
)
def test_a_mix_that_no_driver_serves_is_refused(
    architectures: list[str], branch: int | None, flavour: str, words: str
) -> None:
    (said,) = refusals(architectures, branch, flavour)
    assert words in said


@pytest.mark.parametrize(
    ("architectures", "branch", "flavour"),
    [
        (["Ampere"], None, "auto"),
        (["Pascal", "Ampere"], 580, "proprietary"),
        (["Turing", "Blackwell"], 595, "open"),
        (["Ada Lovelace", "hopper"], 580, "auto"),
        (["unknown"], 580, "open"),
        ([], 580, "open"),
    ],
)
def test_a_mix_that_a_driver_serves_is_not(
    architectures: list[str], branch: int | None, flavour: str
) -> None:
    assert refusals(architectures, branch, flavour) == []


def test_mixed_hosts_get_what_serves_all_of_their_cards() -> None:
    assert flavours(["Pascal", "Ampere"]) == ("proprietary",)
    assert flavours(["Ampere", "Ada"]) == ("open", "proprietary")
    assert flavours(["Ada", "Blackwell"]) == ("open",)
    assert branches(["Pascal", "Ampere"]) == (0, 580)
    assert branches(["Ada", "Blackwell"]) == (570, None)


@pytest.mark.parametrize(
    ("release", "version", "kind", "backported"),
    [
        ("6.1.0-40-amd64", (6, 1), "amd64", False),
        ("6.1.0-40-cloud-amd64", (6, 1), "cloud-amd64", False),
        ("6.12.57+deb13-amd64", (6, 12), "amd64", False),
        ("6.12.57+deb13+1-rt-arm64", (6, 12), "rt-arm64", False),
        ("6.12.30+bpo-amd64", (6, 12), "amd64", True),
        ("6.8.0-149-generic", (6, 8), "generic", False),
        ("7.0.0-1025-nvidia", (7, 0), "nvidia", False),
        ("6.14.0-1013-nvidia-64k", (6, 14), "nvidia-64k", False),
    ],
)
def test_a_kernels_release_tells_its_version_and_kind(
    release: str, version: tuple[int, int], kind: str, backported: bool
) -> None:
    kernel = kernel_of(release)
    assert kernel is not None
    assert (kernel.version, kernel.kind, kernel.backported) == (version, kind, backported)


def test_a_kernel_that_nobody_named_has_no_kind() -> None:
    assert kernel_of("6.9.1") is None


# Debian.


def test_debians_own_driver_serves_what_it_is_new_enough_for() -> None:
    old = plan(BOOKWORM, "Ampere")
    assert (old.branch, old.flavour, old.source, old.repository) == (535, "proprietary", "distro", None)
    assert old.packages == (
        *("linux-headers-amd64", "nvidia-kernel-dkms", "nvidia-smi", "libcuda1"),
        *("nvidia-persistenced", "nvidia-suspend-common"),
    )
    assert set(old.packages) < set(old.holds)
    assert "linux-image-amd64" in old.holds
    assert old.components == ("contrib", "non-free", "non-free-firmware")
    assert old.newest == ("linux-image-amd64", "linux-headers-amd64")
    assert plan(TRIXIE, "Ampere", flavour="open").packages[1] == "nvidia-open-kernel-dkms"
    assert plan(TRIXIE, "Volta", "Ada").branch == 550


def test_debian_12s_open_modules_are_not_taken_as_they_do_not_fit_its_updated_driver() -> None:
    found = plan(BOOKWORM, "Ampere", flavour="open")
    assert (found.source, found.packages[1]) == ("nvidia", "nvidia-kernel-open-dkms")
    assert "do not fit" in found.notes[0]
    assert "do not fit" in refused(BOOKWORM, "Ampere", flavour="open", source="distro")


def test_blackwell_on_debian_comes_from_nvidia_with_its_branch_pinned_first() -> None:
    new = plan(TRIXIE, "Blackwell")
    assert (new.branch, new.flavour, new.source, new.repository) == (595, "open", "nvidia", "debian13/x86_64")
    assert new.first == ("nvidia-driver-pinning-595",)
    assert new.packages == (
        *("linux-headers-amd64", "nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"),
    )
    assert "NVIDIA's repository" in new.notes[0]
    assert "linux-image-amd64" in new.holds
    assert plan(BOOKWORM, "Blackwell").repository == "debian12/x86_64"
    assert "570 or later" in refused(TRIXIE, "Blackwell", source="distro")


def test_debians_driver_is_not_built_for_a_kernel_that_it_does_not_know() -> None:
    for kernel in ("6.12.30+bpo-amd64", "7.2.12+deb13-amd64"):
        backports = {**BOOKWORM, "kernel": kernel}
        assert plan(backports, "Ampere").source == "nvidia"
        assert "made for its kernel 6.1" in refused(backports, "Ampere", source="distro")


def test_a_kernel_of_ones_own_keeps_its_own_headers() -> None:
    own = plan({**BOOKWORM, "kernel": "6.18.44-fc-v657"}, "Ampere")
    assert own.source == "distro"
    assert not any(name.startswith("linux-") for name in own.packages)
    assert own.newest == ()
    assert "headers have to be there" in own.notes[0]


def test_a_branch_that_was_asked_for_is_installed_or_refused() -> None:
    assert plan(BOOKWORM, "Ampere", branch=535).source == "distro"
    asked = plan(BOOKWORM, "Ampere", branch=580, flavour="proprietary")
    assert (asked.branch, asked.source, asked.packages[1]) == (580, "nvidia", "nvidia-kernel-dkms")
    assert plan(BOOKWORM, "Pascal", source="nvidia").branch == 580
    assert "not 580" in refused(BOOKWORM, "Ampere", branch=580, source="distro")


def test_arm64_servers_have_a_folder_with_another_name() -> None:
    arm = {**TRIXIE, "arch": "arm64", "kernel": "6.12.57+deb13-arm64"}
    assert plan(arm, "Blackwell").repository == "debian13/sbsa"
    assert "linux-headers-arm64" in plan(arm, "Hopper").packages


def test_a_container_gets_no_kernel_modules() -> None:
    for system in (BOOKWORM, TRIXIE, NOBLE, RESOLUTE):
        inside = plan(system, "Ampere", container=True, secure_boot=True)
        assert not inside.dkms
        assert not any("dkms" in name or "linux-" in name for name in inside.holds)
        assert "machine around it" in inside.notes[-1]


# Secure Boot.


def test_secure_boot_stops_what_is_built_on_the_host_until_its_key_is_enrolled() -> None:
    said = refused(BOOKWORM, "Ampere", secure_boot=True)
    assert "nothing was installed" in said
    assert "mokutil --import /var/lib/dkms/mok.pub" in said
    assert "BMC or PiKVM" in said
    assert "generate_mok" in refused(TRIXIE, "Blackwell", secure_boot=True)
    assert plan(BOOKWORM, "Ampere", secure_boot=True, key_enrolled=True).dkms
    assert plan(BOOKWORM, "Ampere", secure_boot=None).dkms


# Ubuntu, by recorded facts.


def test_ubuntus_signed_modules_are_taken_where_they_exist() -> None:
    signed = plan(NOBLE, "Ampere", secure_boot=True)
    assert (signed.branch, signed.flavour, signed.dkms) == (595, "open", False)
    assert signed.packages == (
        "linux-modules-nvidia-595-server-open-generic",
        "nvidia-headless-no-dkms-595-server-open",
        "nvidia-utils-595-server",
    )
    assert signed.components == ("restricted", "multiverse"), "595-server lies in multiverse"
    assert {"linux-generic", "linux-image-generic", "linux-headers-generic"} < set(signed.holds)
    hwe = plan(NOBLE_HWE, "Blackwell", secure_boot=True)
    assert hwe.packages[0] == "linux-modules-nvidia-595-server-open-generic-hwe-24.04"
    assert "linux-generic-hwe-24.04" in hwe.holds
    nvidia = plan({**NOBLE, "kernel": "7.0.0-1025-nvidia"}, "Hopper")
    assert nvidia.packages[0] == "linux-modules-nvidia-595-server-open-nvidia-hwe-24.04"


def test_old_cards_on_ubuntu_stay_at_580_and_proprietary() -> None:
    old = plan(RESOLUTE, "Pascal", "Turing", secure_boot=True)
    assert old.packages == (
        "linux-modules-nvidia-580-server-generic",
        "nvidia-headless-no-dkms-580-server",
        "nvidia-utils-580-server",
    )
    assert old.components == ("restricted",)


@pytest.mark.parametrize(
    ("system", "asked", "branch"),
    [(RESOLUTE, 570, 580), (RESOLUTE, 590, 595), (RESOLUTE, 610, 615), (NOBLE, 610, 615), (NOBLE, 590, 590)],
)
def test_a_name_that_leads_to_another_branch_is_said_and_followed(
    system: dict[str, str], asked: int, branch: int
) -> None:
    found = plan(system, "Ada", branch=asked)
    assert found.branch == branch
    assert f"{branch}" in found.packages[-1]
    assert any("under the name" in note for note in found.notes) == (asked != branch)


def test_a_kernel_without_ready_modules_builds_them_and_then_secure_boot_counts() -> None:
    aws = {**NOBLE, "kernel": "6.8.0-1021-aws"}
    built = plan(aws, "Ampere")
    assert built.packages[:2] == ("linux-headers-aws", "nvidia-dkms-595-server-open")
    assert built.dkms
    assert "update-secureboot-policy" in refused(aws, "Ampere", secure_boot=True)
    gap = {**NOBLE, "kernel": "6.17.0-9-generic"}
    assert plan(gap, "Ada", branch=615).dkms
    assert not plan(gap, "Ada", branch=595).dkms


def test_what_ubuntu_lacks_comes_from_nvidia_unless_that_was_ruled_out() -> None:
    assert plan(RESOLUTE, "Ada", branch=620).repository == "ubuntu2604/x86_64"
    assert "not 620" in refused(RESOLUTE, "Ada", branch=620, source="distro")
    chosen = plan(NOBLE, "Ada", source="nvidia")
    assert (chosen.first, chosen.packages[-1]) == (("nvidia-driver-pinning-595",), "nvidia-open")


# The rest.


def test_a_card_that_nobody_knows_needs_words_from_the_inventory() -> None:
    assert "flavour=" in refused(TRIXIE, "unknown")
    assert "flavour=" in refused(TRIXIE, "unknown", branch=580)
    assert plan(TRIXIE, "unknown", branch=580, flavour="open").flavour == "open"


def test_a_system_that_nobody_knows_is_refused_with_a_way_out() -> None:
    said = refused({**TRIXIE, "os_id": "fedora", "os_version": "44"}, "Ada")
    assert "Fedora 44" in said
    assert "manage=False" in said


def test_the_toolkit_comes_from_nvidia_whatever_the_driver_comes_from() -> None:
    found = plan(NOBLE, "Ada", cuda_toolkit="12-8")
    assert (found.source, found.toolkit) == ("distro", ("cuda-toolkit-12-8",))
    assert found.repository == "ubuntu2404/x86_64"
    assert "12-8" in refused(NOBLE, "Pascal", cuda_toolkit="13-1")
    assert plan(NOBLE, "Pascal", cuda_toolkit="12-8").branch == 580
