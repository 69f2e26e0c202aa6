"""Machines whose processor and graphics share their memory: Strix Halo, DGX Spark.

AMD's driver gets a larger limit, which counts from the next boot. Every such machine gets guards against the
freeze that running out of shared memory is: earlyoom, and a limit on each of labctl's services. Nothing here
touches a driver, so all of it suits a vendor's own system too.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host
from labctl.ops import amd, apt, files, initramfs, leftovers, reboot, systemd
from labctl.render import unified as render

_SUBJECT = "unified-memory"


@deploy("Unified memory")
def unified() -> None:
    """Divide shared memory and guard it, or take back what an earlier inventory asked for."""
    spec: Host = host.data.spec
    wanted = (
        *((render.TTM_CONF,) if render.has_amd_graphics(spec) else ()),
        *((render.EARLYOOM_DROP_IN, render.SERVICES_DROP_IN) if spec.unified_memory_gib else ()),
    )
    gone = leftovers.files(
        name="settings that left the inventory", pattern=" ".join(render.OWN_FILES), keep=wanted
    )
    systemd.daemon_reload(name="systemd forgets them", _if=gone.did_change)
    if not render.has_amd_graphics(spec):
        initramfs.built_with(
            name="initial ramdisk forgets them", subject=_SUBJECT, content=None, _if=gone.did_change
        )
    if spec.unified_memory_gib is not None:
        if render.has_amd_graphics(spec):
            graphics(spec.unified_memory_gib)
        guards(spec.unified_memory_gib)


def graphics(total_gib: int) -> None:
    """Let AMD graphics take all of the memory but what the system needs."""
    limit = amd.limit(total_gib)
    content = render.ttm(limit.pages)
    files.put(name="limit of graphics memory", dest=render.TTM_CONF, content=content)
    initramfs.built_with(name="initial ramdisk", subject=_SUBJECT, content=content)
    if limit.reboot:
        reboot.needed(
            name="limit of graphics memory: reboot",
            reasons=(f"graphics may take {limit.gib} GiB of memory from the next boot on",),
        )


def guards(total_gib: int) -> None:
    """Keep a host alive whose memory runs out."""
    apt.packages(name="earlyoom", names=("earlyoom",))
    files.directory(name="earlyoom: folder", path=str(Path(render.EARLYOOM_DROP_IN).parent))
    drop_in = files.put(
        name="earlyoom: settings",
        dest=render.EARLYOOM_DROP_IN,
        content=render.earlyoom(),
        restarts=render.EARLYOOM,
    )
    systemd.daemon_reload(name="systemd reads earlyoom's settings", _if=drop_in.did_change)
    systemd.service(name="earlyoom runs", unit=render.EARLYOOM)
    files.directory(name="limit of the services: folder", path=str(Path(render.SERVICES_DROP_IN).parent))
    limit = files.put(
        name="limit of the services",
        dest=render.SERVICES_DROP_IN,
        content=render.services(total_gib),
    )
    systemd.daemon_reload(name="systemd reads the limit of the services", _if=limit.did_change)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    unified()
