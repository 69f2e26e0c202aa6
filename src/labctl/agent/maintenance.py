"""What waits for a person: updates, units that failed, certificates that end, and memory that runs short.

Updates are counted by apt's own lists as they lie there; no network is used and nothing is written. An update
is one for security where the archive that it comes from is named so.
"""

from __future__ import annotations

import calendar
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

from . import config
from .calls import NOT_RUN, call
from .host import ROOT, text
from .sections import Finding, More

_APT_S = 8.0
_SYSTEMCTL_S = 3.0
_OPENSSL_S = 3.0
_LISTS = "var/lib/apt/lists"
_STAMP = "var/lib/apt/periodic/update-success-stamp"
_SIMULATED = (
    *("apt-get", "--simulate", "--quiet=2", "--with-new-pkgs", "-o", "Debug::NoLocking=true"),
    *("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "upgrade"),
)
_UPDATE = re.compile(r"^Inst \S+ (?:\[[^]]*\] )?\(([^)]*)\)", re.MULTILINE)
_SECURITY = re.compile(r"-security\b|Debian-Security:", re.IGNORECASE)
_UNITS = ("systemctl", "list-units", "--state=failed", "--all", "--plain", "--no-legend", "--no-pager")
_STALL = re.compile(r"^full .*\bavg60=([0-9.]+)", re.MULTILINE)
_MOST = 64


def memory(root: Path = ROOT) -> dict[str, Any]:
    """Return main memory and swap in MiB, and how hard it is waited for.

    Raises:
        Finding: the kernel does not tell.
    """
    lines = (line.partition(":") for line in (text(root / "proc/meminfo") or "").splitlines())
    kib = {name: int(words[0]) for name, _, rest in lines if (words := rest.split()) and words[0].isdigit()}
    if "MemTotal" not in kib or "MemAvailable" not in kib:
        raise Finding("/proc/meminfo does not tell how much memory there is")
    stall = _STALL.search(text(root / "proc/pressure/memory") or "")
    killed = re.search(r"^oom_kill (\d+)$", text(root / "proc/vmstat") or "", re.MULTILINE)
    return {
        "total_mib": kib["MemTotal"] >> 10,
        "available_mib": kib["MemAvailable"] >> 10,
        "swap_total_mib": kib.get("SwapTotal", 0) >> 10,
        "swap_free_mib": kib.get("SwapFree", 0) >> 10,
        "stall_percent": float(stall[1]) if stall else None,
        "oom_kills": int(killed[1]) if killed else None,
    }


def failed_units() -> list[str]:
    """Return the names of the units that failed.

    Raises:
        Finding: systemd does not say.
    """
    done = call(*_UNITS, within_s=_SYSTEMCTL_S)
    if not done.ok:
        raise Finding(f"systemctl does not answer: {done.why}")
    return sorted(line.split()[0] for line in done.out.splitlines() if line.strip())[:_MOST]


def updates(root: Path = ROOT) -> dict[str, Any]:
    """Return how many packages apt would bring up to date, how many of them for security.

    Raises:
        Finding: there is apt, and it cannot tell.
    """
    nothing: dict[str, Any] = {"pending": None, "security": None, "age_s": None}
    if not (root / _LISTS).is_dir():
        return nothing
    done = call(*_SIMULATED, within_s=_APT_S, env={"LC_ALL": "C"})
    if done.status == NOT_RUN:
        return nothing
    if not done.ok:
        raise Finding(f"apt-get cannot tell what is to be updated: {done.why}", "look at: apt-get check")
    return {**counted(done.out), "age_s": _age_s(root)}


def counted(out: str) -> dict[str, int]:
    """Return the updates that apt-get simulates, and those of them for security."""
    origins = _UPDATE.findall(out)
    return {"pending": len(origins), "security": sum(1 for one in origins if _SECURITY.search(one))}


def _age_s(root: Path) -> float | None:
    """Return how old apt's lists are; their own times are the server's, so the folder's count."""
    times = []
    for path in (root / _STAMP, root / _LISTS, root / _LISTS / "partial"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return round(max(0.0, time.time() - max(times)), 0) if times else None


def certificates(root: Path = ROOT) -> More:
    """Return the certificates that the configuration names as further sections, by their paths."""
    named = config.read(root).health.get("certificates", ())
    paths = [path for path in named if isinstance(path, str) and path.startswith("/")][:_MOST]
    return More([], {f"certificates/{path}": partial(_certificate, root, path) for path in paths})


def _certificate(root: Path, path: str) -> dict[str, Any]:
    file = root / path.lstrip("/")
    if not file.is_file():
        raise Finding("there is no such file", "labctl apply writes it")
    done = call("openssl", "x509", "-noout", "-enddate", "-subject", "-in", str(file), within_s=_OPENSSL_S)
    if not done.ok:
        raise Finding(f"openssl cannot read it: {done.why}")
    fields = dict(line.partition("=")[::2] for line in done.out.splitlines())
    try:
        until = calendar.timegm(time.strptime(fields["notAfter"].strip(), "%b %d %H:%M:%S %Y %Z"))
    except (KeyError, ValueError):
        raise Finding("openssl does not tell until when it holds") from None
    return {"path": path, "subject": fields.get("subject", "").strip()[:200], "not_after": float(until)}
