"""What the kernel and systemd say about this host: cheap, and readable by anybody.

A value that is not there is null, never zero: no answer about sessions is not the answer "no sessions".
"""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

from .sections import Finding

ROOT = Path("/")
CAPS_OUTCOME = "var/lib/labctl/caps/outcome.json"
_DOCUMENT_AT_MOST = 4 << 20
_TIMEX_BYTES = 512  # struct timex has about 208; the kernel reads and writes its own size
_TIMEX_OFFSET_AT, _TIMEX_MAXERROR_AT, _TIMEX_STATUS_AT = 8, 24, 40
_STA_NANO = 0x2000
_SYNCHRONISED_BELOW_US = 16_000_000  # what systemd's NTPSynchronized and the kernel call unsynchronised


def text(path: Path) -> str | None:
    """Return what the file holds, without the space around it, or null where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def document(path: Path) -> Any:
    """Return the value of the JSON in the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, longer than any of ours, or no JSON.
    """
    # Opening a pipe would wait for somebody to write into it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(_DOCUMENT_AT_MOST + 1)
    if len(content) > _DOCUMENT_AT_MOST:
        raise ValueError("it is too long to be ours")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def number(path: Path) -> int | None:
    """Return the integer in the file, or null."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def system(root: Path = ROOT) -> dict[str, Any]:
    """Return what this machine is and how long and how hard it has been working."""
    kernel = os.uname()
    uptime = (text(root / "proc/uptime") or "").split()
    memory = _fields(root / "proc/meminfo", ":")
    release = {key: value.strip("\"'") for key, value in _fields(root / "etc/os-release", "=").items()}
    load = (text(root / "proc/loadavg") or "").split()[:3]
    return {
        "hostname": kernel.nodename,
        "machine": kernel.machine,
        "kernel": kernel.release,
        "boot_id": text(root / "proc/sys/kernel/random/boot_id"),
        "uptime_s": float(uptime[0]) if uptime else None,
        "os": {key: release.get(key.upper()) for key in ("id", "version_id", "pretty_name")},
        "cpu": {"model": _cpu_model(root), "threads": os.cpu_count()},
        "memory": {
            "total_mib": _mib(memory.get("MemTotal")),
            "available_mib": _mib(memory.get("MemAvailable")),
        },
        "load": [float(value) for value in load] or None,
    }


def _fields(path: Path, separator: str) -> dict[str, str]:
    """Return a file of ``name separator value`` lines; of a name that comes twice, the first value."""
    found: dict[str, str] = {}
    for line in (text(path) or "").splitlines():
        name, separated, value = line.partition(separator)
        if separated:
            found.setdefault(name.strip(), value.strip())
    return found


def _cpu_model(root: Path) -> str | None:
    """Return the processor's name; ARM boards keep theirs in the device tree."""
    named = _fields(root / "proc/cpuinfo", ":").get("model name")
    return named or (text(root / "proc/device-tree/model") or "").strip("\0") or None


def _mib(kib: str | None) -> int | None:
    return int(kib.split()[0]) // 1024 if kib else None


def upkeep(root: Path = ROOT) -> dict[str, Any]:
    """Return whether the distribution asks for a reboot, and for which packages."""
    packages = text(root / "run/reboot-required.pkgs") or ""
    return {
        "reboot_pending": (root / "run/reboot-required").exists(),
        "reboot_because": sorted(set(packages.split())),
    }


def caps(root: Path = ROOT) -> Any:
    """Return what the last run of ``caps`` left, null where there was none.

    Raises:
        Finding: there is something, and it cannot be read.
    """
    try:
        return document(root / CAPS_OUTCOME)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Finding(f"/{CAPS_OUTCOME} cannot be read: {error}", "run labctl apply", "bad-file") from None


def clock() -> dict[str, Any]:
    """Return whether the kernel calls the clock synchronised, by the rule of systemd's NTPSynchronized.

    ``offset_s`` is what it still has to correct, as its time daemon told it; some correct by steps and leave
    0.

    In a container, whose clock is kept outside, even the question may be forbidden: that is null, no finding.
    """
    import ctypes

    if struct.calcsize("l") != 8:
        raise Finding("the clock's state is read on 64-bit systems only")
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # all zero: modes = 0 asks and sets nothing
    if libc.adjtimex(buffer) < 0:
        return {
            "synchronised": None,
            "offset_s": None,
            "because": f"adjtimex: {os.strerror(ctypes.get_errno())}",
        }
    (error_us,) = struct.unpack_from("l", buffer.raw, _TIMEX_MAXERROR_AT)
    synchronised = error_us < _SYNCHRONISED_BELOW_US
    (offset,) = struct.unpack_from("l", buffer.raw, _TIMEX_OFFSET_AT)
    (status,) = struct.unpack_from("i", buffer.raw, _TIMEX_STATUS_AT)
    offset_s = offset / (1e9 if status & _STA_NANO else 1e6) if synchronised else None
    return {"synchronised": synchronised, "offset_s": offset_s, "because": None}


def sessions() -> dict[str, Any]:
    """Return how many logind sessions there are besides the one that asks.

    Sessions of the classes ``user...`` are people and their ssh, and so are those that logind does not class;
    the others are login screens, services and user managers.
    """
    import ctypes

    try:
        systemd = ctypes.CDLL("libsystemd.so.0")
    except OSError:
        raise Finding("libsystemd is not installed, so sessions cannot be counted") from None
    names = ctypes.POINTER(ctypes.c_char_p)()
    count = systemd.sd_get_sessions(ctypes.byref(names))
    if count < 0:
        raise Finding(f"logind does not say who is logged in: {os.strerror(-count)}")
    own = ctypes.c_char_p()
    systemd.sd_pid_get_session(0, ctypes.byref(own))
    people = others = 0
    for index in range(count):
        session = names[index]
        if session == own.value:
            continue
        kind = ctypes.c_char_p()
        systemd.sd_session_get_class(session, ctypes.byref(kind))
        if (kind.value or b"user").startswith(b"user"):
            people += 1
        else:
            others += 1
    return {"people": people, "others": others}
