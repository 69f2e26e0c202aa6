"""Which ROCm a host gets: each rule of the choice, by a table."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from labctl.domain.problem import LabctlError
from labctl.domain.rocm import AMD_TARGETS, Needs, kernel_floor, mesa, plan

NEW = "6.18.5+deb13-amd64"
TRIXIE = Needs("debian", "13", "amd64", "6.12.57+deb13-amd64", ("gfx1100",))
BOOKWORM = replace(TRIXIE, os_version="12", kernel="6.1.0-40-amd64")
NOBLE = replace(TRIXIE, os_id="ubuntu", os_version="24.04", kernel="6.8.0-90-generic")
RESOLUTE = replace(NOBLE, os_version="26.04", kernel="7.0.0-5-generic")
STRIX = ("gfx1151",)


@pytest.mark.parametrize(
    ("needs", "packages", "folder"),
    [
        (TRIXIE, ("amdrocm10.0-gfx1100",), "debian13"),
        (BOOKWORM, ("amdrocm10.0-gfx1100",), "debian12"),
        (NOBLE, ("amdrocm10.0-gfx1100",), "ubuntu2404"),
        (RESOLUTE, ("amdrocm10.0-gfx1100",), "ubuntu2604"),
        (replace(NOBLE, os_version="22.04"), ("amdrocm10.0-gfx1100",), "ubuntu2204"),
        (replace(TRIXIE, targets=("gfx1201", "gfx1201")), ("amdrocm10.0-gfx1201",), "debian13"),
        (
            replace(TRIXIE, targets=("gfx1201", "gfx1030")),
            ("amdrocm10.0-gfx1030", "amdrocm10.0-gfx1201"),
            "debian13",
        ),
        (replace(TRIXIE, targets=STRIX, kernel=NEW), ("amdrocm10.0-gfx1151",), "debian13"),
        (replace(RESOLUTE, targets=STRIX), ("amdrocm10.0-gfx1151",), "ubuntu2604"),
        (replace(TRIXIE, release="10.1"), ("amdrocm10.1-gfx1100",), "debian13"),
        (replace(TRIXIE, wanted="amd"), ("amdrocm10.0-gfx1100",), "debian13"),
    ],
)
def test_amds_own_packages_are_taken_by_target_where_amd_serves_the_system(
    needs: Needs, packages: tuple[str, ...], folder: str
) -> None:
    found = plan(needs)
    assert (found.source, found.packages, found.warnings) == ("amd", packages, ())
    assert found.uri == f"https://stable.repo.amd.com/rocm/core/packages/{folder}/"


def test_a_copy_of_amds_repository_serves_any_system_and_needs_no_address_of_amd() -> None:
    found = plan(replace(TRIXIE, os_version="14", mirror=True))
    assert (found.source, found.packages, found.uri) == ("amd", ("amdrocm10.0-gfx1100",), "")


@pytest.mark.parametrize(
    ("needs", "packages"),
    [
        (replace(TRIXIE, wanted="distro"), "rocminfo"),
        (replace(RESOLUTE, wanted="distro"), "rocm"),
        # AMD dropped Vega 20, the archive did not.
        (replace(TRIXIE, targets=("gfx906",)), "librocblas0"),
    ],
)
def test_the_distributions_rocm_is_taken_where_asked_for_or_where_amd_has_none(
    needs: Needs, packages: str
) -> None:
    found = plan(needs)
    assert found.source == "distro"
    assert packages in found.packages


@pytest.mark.parametrize(
    ("needs", "why"),
    [
        (replace(TRIXIE, arch="arm64"), "for amd64 only, not for arm64"),
        (replace(TRIXIE, targets=("",)), "target of its cards is not known"),
        (replace(TRIXIE, targets=()), "target of its cards is not known"),
        (replace(TRIXIE, targets=("gfx1036",)), "no ROCm for gfx1036 on debian 13"),
        (replace(TRIXIE, os_version="14"), "no ROCm for gfx1100 on debian 14"),
        (replace(TRIXIE, os_id="", os_version=""), "no ROCm for gfx1100 on this system"),
        (replace(TRIXIE, targets=STRIX), "kernel 6.12.57[+]deb13-amd64 is too old for ROCm on Strix Halo"),
        (replace(NOBLE, targets=STRIX), "which needs 6.17.0-19.19~24.04.2 or later"),
        (replace(TRIXIE, old=("rocm-core",)), "an older ROCm is installed"),
    ],
)
def test_every_doubt_ends_in_vulkan_with_its_reason(needs: Needs, why: str) -> None:
    found = plan(needs)
    assert (found.source, found.packages, found.uri) == ("none", (), "")

    assert re.search(why, found.why_not), found.why_not


def test_an_older_rocm_is_named_with_what_to_type_and_never_removed() -> None:
    found = plan(replace(TRIXIE, old=("rocm-core", "hip-runtime-amd")))
    assert found.source == "none"
    assert "`apt-get purge --autoremove rocm-core hip-runtime-amd`, then apply again" in found.warnings[0]


@pytest.mark.parametrize(
    ("needs", "what"),
    [
        (replace(TRIXIE, release="6.4"), "does not install ROCm 6.4"),
        (replace(TRIXIE, release="7.14"), "does not install ROCm 7.14"),
        (replace(TRIXIE, wanted="amd", os_version="14"), "in AMD's repository"),
        (replace(BOOKWORM, wanted="distro"), "in the distribution's archive"),
        (replace(RESOLUTE, wanted="distro", targets=STRIX), "in the distribution's archive"),
        (replace(TRIXIE, wanted="amd", arch="arm64"), "amd64 only"),
    ],
)
def test_what_the_inventory_insists_on_and_nobody_has_is_refused_with_a_hint(needs: Needs, what: str) -> None:
    with pytest.raises(LabctlError, match=what) as refused:
        plan(needs)
    assert refused.value.problems[0].hint


@pytest.mark.parametrize(
    ("system", "kernel", "good"),
    [
        (("debian", "13"), "6.18.4+deb13-amd64", True),
        (("debian", "13"), "6.18.3+deb13-amd64", False),
        (("debian", "13"), "6.19-amd64", True),
        (("debian", "13"), "7.0.1", True),
        (("debian", "13"), "6.17.0-19-generic", False),
        (("ubuntu", "24.04"), "6.17.0-19-generic", True),
        (("ubuntu", "24.04"), "6.17.0-18-generic", False),
        (("ubuntu", "24.04"), "7.0.0-3-generic", True),
        (("ubuntu", "24.04"), "6.14.0-1018-oem", True),
        (("ubuntu", "24.04"), "6.14.0-1017-oem", False),
        (("ubuntu", "24.04"), "6.14.0-1018-generic", False),
        (("ubuntu", "24.04"), "6.8.0-90-generic", False),
        (("ubuntu", "26.04"), "7.0.0-1-generic", True),
        (("debian", "13"), "", False),
        (("debian", "13"), "custom", False),
    ],
)
def test_strix_halo_needs_a_kernel_that_its_system_calls_fixed(
    system: tuple[str, str], kernel: str, good: bool
) -> None:
    assert (kernel_floor(*system, kernel) is None) is good


def test_an_old_kernel_matters_to_strix_halo_only() -> None:
    assert plan(replace(BOOKWORM, targets=("gfx1100",))).source == "amd"


def test_a_card_without_code_in_rocm_is_named_and_the_others_get_theirs() -> None:
    found = plan(replace(TRIXIE, targets=("gfx1031", "gfx1100")))
    assert found.packages == ("amdrocm10.0-gfx1100",)
    assert "no code for gfx1031" in found.warnings[0]


def test_amdgpu_dkms_on_an_apu_and_bad_firmware_are_warned_of() -> None:
    bad = replace(TRIXIE, targets=STRIX, kernel=NEW, dkms=True, firmware="20251125-1")
    warnings = plan(bad).warnings
    assert ["amdgpu-dkms" in warnings[0], "20251125-1" in warnings[1]] == [True, True]
    assert plan(replace(bad, targets=("gfx1100",), firmware="20260110-1")).warnings == ()
    assert plan(replace(bad, dkms=False, firmware="20240318.git3b128b60-0ubuntu2.21")).warnings == ()


def test_no_kernel_module_is_ever_installed() -> None:
    for target in AMD_TARGETS:
        for needs in (TRIXIE, BOOKWORM, NOBLE, RESOLUTE):
            found = plan(replace(needs, targets=(target,), kernel="7.1.0-1-generic"))
            assert not [name for name in found.packages if "dkms" in name or name.startswith("amdgpu")]


def test_debian_12_takes_mesa_from_backports_for_cards_that_are_newer_than_its_own() -> None:
    assert mesa(BOOKWORM).suite == ""
    for target in ("gfx1151", "gfx1200", "gfx1201"):
        needs = replace(BOOKWORM, targets=(target,))
        assert mesa(replace(needs, backports=True)).suite == "bookworm-backports"
        assert mesa(replace(needs, backports=True)).warnings == ()
        assert mesa(needs).suite == ""
        assert f"too old for {target}" in mesa(needs).warnings[0]
        assert mesa(replace(needs, os_version="13")).warnings == ()
