"""What a host with AMD graphics needs: the decisions of the domain, put to what the host says of itself.

The questions are asked once, two commands for all of them, and each decision says its warnings where a person
sees them: in the plan and in the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra import logger
from pyinfra.context import host

from labctl.domain import rocm as choice
from labctl.domain import unified as memory
from labctl.domain.rocm import GROUPS, KEY_FINGERPRINT, KEY_URL, MesaPlan, RocmPlan
from labctl.inventory import Host
from labctl.ops import vendor_source
from labctl.ops.facts_amd import Amd, AmdInfo
from labctl.ops.facts_gpu import Machine, MachineInfo
from labctl.render import amd as render

__all__ = ("GROUPS", "KEY_FINGERPRINT", "KEY_URL", "Limit", "limit", "mesa_plan", "rocm_plan")


@dataclass(frozen=True, slots=True)
class Limit:
    """How much memory graphics may take; ``reboot``: what runs now has another limit."""

    gib: int
    pages: int
    reboot: bool


def rocm_plan(spec: Host) -> tuple[RocmPlan, bool]:
    """Return which ROCm the current host gets, and whether its own sources hold it already."""
    machine, seen = _ask()
    plan = choice.plan(_needs(spec, machine, seen))
    _warn(plan.warnings)
    if plan.source == "none":
        _warn((f"no ROCm, Vulkan only: {plan.why_not}",))
    offered = not seen.own_source and seen.offered.issuperset(plan.packages)
    return plan, offered


def mesa_plan(spec: Host) -> MesaPlan:
    """Return which Mesa the current host gets."""
    machine, seen = _ask()
    plan = choice.mesa(_needs(spec, machine, seen))
    _warn(plan.warnings)
    return plan


def limit(total_gib: int) -> Limit:
    """Return how much of ``total_gib`` the graphics of the current host may take.

    A container sees its machine's memory and modules, which say nothing of the host that it stands for.
    """
    machine, seen = _ask()
    division = memory.divide(total_gib, None if machine.container else seen.memory_mib)
    _warn(division.warnings)
    other = seen.ttm_pages not in (None, division.pages)
    return Limit(division.graphics_gib, division.pages, reboot=other and not machine.container)


def _ask() -> tuple[MachineInfo, AmdInfo]:
    return host.get_fact(Machine), host.get_fact(Amd, source=vendor_source.path(render.SOURCE))


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        logger.warning(f"{host.name}: {warning}")


def _needs(spec: Host, machine: MachineInfo, seen: AmdInfo) -> choice.Needs:
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
