"""What a line of the watch says besides its readings: which boot and sleep this is, what a proof rests on.

``resumes`` is the kernel's count of sleeps that succeeded, together with the seconds slept that its clocks
tell: hibernation is in the second alone, and a kernel without the first still has the second. It is a number
that grows with each sleep and begins anew with each boot, no more.

``up_s`` counts from the boot, or from the last sleep that was seen to end. Of a sleep before the first look
nobody knows when it ended, so then it counts from that look: never too long.

The fingerprint is read from what the kernel knows, and wakes no card.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

from . import nics
from .host import document, number, text
from .signals.terms import plain

ORDER = "run/labctl/order.json"
STEPS = "var/lib/labctl/caps/steps.json"
_SUCCESS = "sys/power/suspend_stats/success"
_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 0x00000003
_DRVINFO_BYTES = 196
_FIELD_BYTES = 32
_DISPLAY = "0x03"
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SAID = ("going", "refused", "failed")
_HOW = ("suspend", "hibernate", "power-off", "unload")
_SLEPT_LEAST_S = 0.5
_TOGETHER_S = 5e-6


class Clocks(NamedTuple):
    """Seconds since the boot with sleep, and without."""

    boot: float
    awake: float


def clocks() -> Clocks:
    """Return both clocks, read together."""
    best = (float("inf"), Clocks(0.0, 0.0))
    for _ in range(20):  # who is interrupted between the two would find a sleep that was none
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        apart = time.clock_gettime(time.CLOCK_MONOTONIC) - before
        best = min(best, (apart, Clocks(boot, before)))
        if apart < _TOGETHER_S:
            break
    return best[1]


class Uptime:
    """Since when the host has been up, as one who looks again and again can tell."""

    def __init__(self, root: Path, now: Clocks) -> None:
        self._root = root
        self._resumes = resumes(root, now)
        # Having slept before, it may have come back just now.
        self._since = now.boot if self._resumes else 0.0

    def look(self, now: Clocks) -> tuple[int, float]:
        """Return how often it slept, and for how many seconds it has been up since."""
        count = resumes(self._root, now)
        if count != self._resumes:
            self._resumes, self._since = count, now.boot
        return count, max(0.0, now.boot - self._since)


def resumes(root: Path, now: Clocks) -> int:
    """Return a number that grows with each sleep since the boot."""
    slept = now.boot - now.awake
    return (number(root / _SUCCESS) or 0) + (round(slept) if slept >= _SLEPT_LEAST_S else 0)


def order(root: Path) -> dict[str, str] | None:
    """Return the host's last word on an order to sleep, None where there is none that can be believed."""
    try:
        found = document(root / ORDER)
        nonce, said = found["nonce"], found["said"]
        if not _NONCE.fullmatch(nonce) or said not in _SAID:
            return None
        return {"nonce": nonce, "said": said, "because": plain(str(found.get("because") or ""))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def wakes_by(root: Path, mac: str | None) -> Path | None:
    """Return the folder of the network card that wakes this host: the configured one, else the default's."""
    folder = root / "sys/class/net"
    cards = sorted(folder.iterdir()) if folder.is_dir() else []
    if mac:
        return next((card for card in cards if text(card / "address") == mac.lower()), None)
    for line in (text(root / "proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[1] == "00000000" and folder / fields[0] in cards:
            return folder / fields[0]
    return next((card for card in cards if (card / "device").exists()), None)


def fingerprint(root: Path, sleep: dict[str, Any]) -> dict[str, str]:
    """Return what a proof that the host wakes depends on."""
    how = sleep.get("how") if sleep.get("how") in _HOW else "suspend"
    card = wakes_by(root, mac_of(sleep))
    chosen = re.search(r"\[([a-z0-9_]+)\]", text(root / "sys/power/mem_sleep") or "")
    return {
        "kernel": plain(text(root / "proc/sys/kernel/osrelease") or os.uname().release),
        "driver": plain(_drivers(root)),
        "nic": plain(_nic(card)) if card is not None else "",
        "how": str(how),
        "mem_sleep": chosen[1] if chosen and how == "suspend" else "",
    }


def mem_sleeps(root: Path) -> list[str]:
    """Return the ways to sleep to memory that the kernel offers, whichever of them is chosen."""
    return [word.strip("[]") for word in (text(root / "sys/power/mem_sleep") or "").split()]


def caps(root: Path) -> dict[str, Any] | None:
    """Return which cards stepped down for other hosts since the last boot or sleep, None where nobody knows.

    ``n`` is the number of the last change, ``caps_w`` the watts by the names that the controller uses.
    """
    try:
        found = document(root / STEPS)
        wake = (text(root / "proc/sys/kernel/random/boot_id"), resumes(root, clocks()))
        steps = found["steps"] if (found["boot_id"], found["resumes"]) == wake else []
        return {"n": int(found["n"]), "caps_w": {str(one["name"]): int(one["watts"]) for one in steps}}
    except FileNotFoundError:
        return {"n": 0, "caps_w": {}}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def wol_armed(root: Path, sleep: dict[str, Any]) -> bool | None:
    """Return whether a magic packet would wake this host, None where that cannot be told."""
    card = wakes_by(root, mac_of(sleep))
    armed = None if card is None else nics.wake_on_lan(card)["armed"]
    return armed if isinstance(armed, bool) else None


def mac_of(sleep: dict[str, Any]) -> str | None:
    """Return the MAC address of the card that wakes the host, as its configuration names it."""
    wol = sleep.get("wol")
    mac = wol.get("mac") if isinstance(wol, dict) else None
    return mac if isinstance(mac, str) else None


def _drivers(root: Path) -> str:
    """Return the drivers of the display controllers with their versions; one of the kernel's has none."""
    found = set()
    folder = root / "sys/bus/pci/devices"
    for path in folder.iterdir() if folder.is_dir() else ():
        driver = path / "driver"
        if (text(path / "class") or "").startswith(_DISPLAY) and driver.exists():
            name = driver.resolve().name
            version = text(root / "sys/module" / name.replace("-", "_") / "version")
            found.add(f"{name} {version}" if version else name)
    return ", ".join(sorted(found))


def _nic(path: Path) -> str:
    driver = path / "device/driver"
    name = driver.resolve().name if driver.exists() else ""
    return " ".join(word for word in (text(path / "address"), name, firmware(path.name)) if word)


def firmware(interface: str) -> str:
    """Return the firmware version of a network card, as its driver tells everybody; "" for none."""
    answer = array.array("B", struct.pack("I", _ETHTOOL_GDRVINFO) + bytes(_DRVINFO_BYTES - 4))
    request = struct.pack("16sP16x", interface.encode()[:15], answer.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            fcntl.ioctl(door, _SIOCETHTOOL, request)
    except OSError:
        return ""
    start = 4 + 2 * _FIELD_BYTES  # after the command, the driver's name and its version
    said = answer.tobytes()[start : start + _FIELD_BYTES].split(b"\0")[0].decode(errors="replace").strip()
    return "" if said.lower() in ("n/a", "none", "unknown") else said
