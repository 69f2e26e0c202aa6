"""Settings of machines whose processor and graphics share their memory.

Each of labctl's services gets a limit, so that none alone can take what the system needs, and earlyoom
watches over the sum. A limit does not count all memory that a driver takes for graphics, hence both.
"""

from __future__ import annotations

from labctl import render
from labctl.domain import unified
from labctl.inventory import Host, profiles

TTM_CONF = "/etc/modprobe.d/labctl-ttm.conf"
EARLYOOM = "earlyoom.service"
EARLYOOM_DROP_IN = "/etc/systemd/system/earlyoom.service.d/10-labctl.conf"
# systemd applies a drop-in of "labctl-.service.d" to every unit whose name begins so.
SERVICES_DROP_IN = "/etc/systemd/system/labctl-.service.d/10-labctl-unified-memory.conf"
OWN_FILES = (TTM_CONF, EARLYOOM_DROP_IN, SERVICES_DROP_IN)

# earlyoom compares a process's name, which the kernel cuts at 15 characters.
SPARED = (
    r"^(systemd|systemd-.*|init|sshd|sshd-session|sshd-auth|dbus-daemon|dbus-broker.*|earlyoom|agetty|login)$"
)
PREFERRED = r"^(llama-.*|vllm.*|sglang.*|ollama.*|python3?)$"


def has_amd_graphics(host: Host) -> bool:
    """Return whether the graphics that share a host's memory are AMD's, whose limit is a module's option."""
    found = [profiles.of(gpu) for gpu in host.gpus]
    return host.unified_memory_gib is not None and any(
        profile.vendor == "amd" and profile.unified for profile in found
    )


def ttm(pages: int) -> str:
    """Return the options of the modules that hand memory to AMD graphics."""
    return render.text("ttm.conf.j2", pages=pages)


def earlyoom() -> str:
    """Return the drop-in that makes earlyoom end engines and spare the ways in."""
    return render.text(
        "earlyoom.conf.j2", spared=SPARED.replace("$", "$$"), preferred=PREFERRED.replace("$", "$$")
    )


def services(total_gib: int) -> str:
    """Return the drop-in that leaves the system its part of ``total_gib``."""
    limit = max(1, total_gib - unified.reserve_gib(total_gib))
    return render.text("unified-services.conf.j2", limit_gib=limit)
