"""ROCm for AMD graphics: AMD's packages for the cards' targets, or none, with the reason said.

The kernel's own driver is used and no other is ever installed. Where a host's package sources hold AMD's
packages already (an admin's own mirror), they are taken from there; else AMD's repository is added, or the
copy that the inventory names. ROCm is never removed here: what runs may use it.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra import logger
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.domain import rocm as choice
from labctl.inventory import AptMirror, Host
from labctl.ops import apt, files, users, vendor_source
from labctl.ops.facts_amd import Amd, AmdInfo
from labctl.ops.facts_gpu import Machine, MachineInfo
from labctl.render import amd as render

_PERMITTED = ("auto", "rocm")


@deploy("ROCm")
def rocm() -> None:
    """Install the ROCm that suits the cards of a host, where there is one."""
    spec: Host = host.data.spec
    if not wanted(spec):
        files.absent_own(name="AMD's package source", path=vendor_source.path(render.SOURCE))
        return
    machine: MachineInfo = host.get_fact(Machine)
    seen: AmdInfo = host.get_fact(Amd, source=vendor_source.path(render.SOURCE))
    plan = choice.plan(needs(spec, machine, seen))
    for warning in plan.warnings:
        logger.warning(f"{host.name}: {warning}")
    groups()
    if plan.source == "none":
        logger.warning(f"{host.name}: no ROCm, Vulkan only: {plan.why_not}")
        return
    if plan.source == "amd":
        source_of(spec, plan, seen)
    apt.packages(name=f"packages from {plan.source}", names=plan.packages)


def wanted(spec: Host) -> bool:
    """Return whether labctl is to install ROCm on a host."""
    manages = spec.amd.manage and not spec.vendor_image
    return manages and spec.backend in _PERMITTED and render.has_cards(spec)


def needs(spec: Host, machine: MachineInfo, seen: AmdInfo) -> choice.Needs:
    """Return what the choice depends on: the inventory's wishes and what the host says."""
    return choice.Needs(
        os_id=machine.os_id,
        os_version=machine.os_version,
        arch=machine.arch,
        kernel=machine.kernel,
        targets=render.targets(spec, machine.gfx),
        wanted=spec.amd.source,
        release=spec.amd.rocm,
        mirror=spec.amd.mirror is not None,
        old=seen.old,
        dkms=seen.dkms,
        firmware=seen.firmware,
        backports=seen.backports,
    )


def groups() -> None:
    """Have the groups that own the cards' devices; units put their services into them."""
    for group in choice.GROUPS:
        users.group(name=f"group {group}", group=group, system=True)


def source_of(spec: Host, plan: choice.RocmPlan, seen: AmdInfo) -> None:
    """Have a package source that holds AMD's packages."""
    mirror = spec.amd.mirror
    if mirror is None and not seen.own_source and seen.offered.issuperset(plan.packages):
        # Somebody gave this host AMD's packages already; a second source would only be able to differ.
        return
    url, key = choice.KEY_URL, choice.KEY_FINGERPRINT
    if isinstance(mirror, AptMirror) and mirror.key is not None and mirror.fingerprint is not None:
        apt.source(
            name="copy of AMD's repository",
            source=f"labctl-{render.SOURCE}",
            uris=(mirror.url,),
            suites=("stable",),
            components=("main",),
            key=Path(mirror.key),
            fingerprint=mirror.fingerprint,
        )
        return
    vendor_source.source(
        name="AMD's repository",
        source=render.SOURCE,
        content=render.rocm_source(mirror.url if mirror else plan.uri, vendor_source.ring(render.SOURCE)),
        key_url=url,
        fingerprint=key,
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    rocm()
