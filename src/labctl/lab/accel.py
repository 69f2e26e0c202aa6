"""How fast a virtual machine may run here: by the processor itself (KVM), or by imitating one (TCG).

A machine may have ``/dev/kvm`` and yet run no guest by it, as inside of some virtual machines. So a guest is
started once, does nothing but say that it runs, and only what was seen is believed. The verdict is kept until
the machine boots again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from labctl.lab.guest import Guest

# Without a limit the translated code alone may take a gigabyte.
_TCG = ("-M", "pc", "-accel", "tcg,tb-size=256", "-cpu", "qemu64")
_KVM = ("-M", "pc", "-accel", "kvm", "-cpu", "host")
_DEVICE = Path("/dev/kvm")
_PATIENCE_S = 10
_SAID = b"the guest runs"


def arguments(cache: Path) -> tuple[str, ...]:
    """Return QEMU's arguments for the fastest way that was seen to work (``try_kvm``)."""
    verdict = _verdict(cache)
    return _KVM if verdict.exists() and verdict.read_text() == "kvm" else _TCG


def try_kvm(guest: Guest, cache: Path) -> bool:
    """Find out whether guests run by KVM on this machine, unless that is known; return whether they do."""
    verdict = _verdict(cache)
    if not verdict.exists():
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.write_text("kvm" if os.access(_DEVICE, os.R_OK | os.W_OK) and _runs(guest) else "tcg")
    return verdict.read_text() == "kvm"


def _runs(guest: Guest) -> bool:
    argv = (
        *("qemu-system-x86_64", *_KVM, "-m", "256", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-serial", "stdio", "-kernel", str(guest.kernel), "-initrd", str(guest.initrd)),
        *("-append", "console=ttyS0 quiet lab.probe"),
    )
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return _SAID in done.stdout


def _verdict(cache: Path) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return cache / "accelerators" / boot
