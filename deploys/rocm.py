"""ROCm for AMD graphics: AMD's packages for the cards' targets, or none, with the reason said.

The kernel's own driver is used and no other is ever installed. Where a host's package sources hold AMD's
packages already (an admin's own mirror), they are taken from there; else AMD's repository is added, or the
copy that the inventory names. ROCm is never removed here: what runs may use it.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import AptMirror, Host
from labctl.ops import amd, apt, files, users, vendor_source
from labctl.render import amd as render

_PERMITTED = ("auto", "rocm")


@deploy("ROCm")
def rocm() -> None:
    """Install the ROCm that suits the cards of a host, where there is one."""
    spec: Host = host.data.spec
    if not wanted(spec):
        files.absent_own(name="AMD's package source", path=vendor_source.path(render.SOURCE))
        return
    plan, offered = amd.rocm_plan(spec)
    groups()
    if plan.source == "none":
        return
    if plan.source == "amd" and (spec.amd.mirror is not None or not offered):
        source_of(spec.amd.mirror, plan.uri)
    apt.packages(name=f"packages from {plan.source}", names=plan.packages)


def wanted(spec: Host) -> bool:
    """Return whether labctl is to install ROCm on a host."""
    manages = spec.amd.manage and not spec.vendor_image
    return manages and spec.backend in _PERMITTED and render.has_cards(spec)


def groups() -> None:
    """Have the groups that own the cards' devices; units put their services into them."""
    for group in amd.GROUPS:
        users.group(name=f"group {group}", group=group, system=True)


def source_of(mirror: AptMirror | None, uri: str) -> None:
    """Have a package source that holds AMD's packages: the copy that the inventory names, else AMD's own."""
    if mirror is not None and mirror.key is not None and mirror.fingerprint is not None:
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
        content=render.rocm_source(mirror.url if mirror else uri, vendor_source.ring(render.SOURCE)),
        key_url=amd.KEY_URL,
        fingerprint=amd.KEY_FINGERPRINT,
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    rocm()
