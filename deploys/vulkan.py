"""Vulkan for AMD graphics: Mesa's RADV, and the tool that shows what it sees.

It is installed beside ROCm, not instead of it: which of the two an engine computes with is found out by
trying (see the deploy ``backend``). AMD's own Vulkan driver was given up in 2025 and is not used.
"""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host
from labctl.ops import amd, apt, files, users
from labctl.render import amd as render

_PERMITTED = ("auto", "rocm", "vulkan")


@deploy("Vulkan")
def vulkan() -> None:
    """Install Mesa's Vulkan driver on a host with AMD graphics."""
    spec: Host = host.data.spec
    if not (spec.amd.manage and spec.backend in _PERMITTED and render.has_cards(spec)):
        files.absent_own(name="preference for a newer Mesa", path=render.BACKPORTS_PIN)
        return
    plan = amd.mesa_plan(spec)
    for group in amd.GROUPS:
        users.group(name=f"group {group}", group=group, system=True)
    if plan.suite:
        files.put(
            name="preference for a newer Mesa",
            dest=render.BACKPORTS_PIN,
            content=render.backports_pin(plan.suite),
        )
    else:
        files.absent_own(name="preference for a newer Mesa", path=render.BACKPORTS_PIN)
    apt.packages(name="packages", names=plan.packages)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    vulkan()
