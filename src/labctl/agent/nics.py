"""Network cards, and whether a magic packet would wake this host through them.

Only root may ask a driver for its Wake-on-LAN flags (they are beside the SecureOn password, which is never
reported). For everybody else the kernel tells in sysfs whether the device may wake the machine, which drivers
set together with the flags; ``source`` says which of the two spoke. What neither tells is null.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Any

from .host import ROOT, number, text

_ETHERNET = 1  # ARPHRD_ETHER
_SIOCETHTOOL = 0x8946
_ETHTOOL_GWOL = 0x00000005
_FLAGS = "pumbagsf"  # by bit, as ethtool prints them; g is the magic packet, s its SecureOn form
_AT_MOST = 64


def nics(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return the Ethernet interfaces of this host, real ones first."""
    folder = root / "sys/class/net"
    found = [_nic(path) for path in sorted(folder.iterdir()) if number(path / "type") == _ETHERNET]
    return sorted(found, key=lambda nic: not nic["physical"])[:_AT_MOST]


def _nic(path: Path) -> dict[str, Any]:
    driver = path / "device/driver"
    speed = number(path / "speed")
    return {
        "name": path.name,
        "mac": text(path / "address"),
        "physical": (path / "device").exists(),
        "state": text(path / "operstate"),
        "speed_mbit": speed if speed and speed > 0 else None,
        "driver": driver.resolve().name if driver.exists() else None,
        "wol": wake_on_lan(path),
    }


def wake_on_lan(path: Path) -> dict[str, Any]:
    """Return whether a card is armed, by ethtool where that is allowed, else by sysfs."""
    try:
        supported, enabled = read_flags(path.name)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return _state(armed=False, source="ethtool", supported="", enabled="")
        return _by_sysfs(path, os.strerror(error.errno or 0))
    return _state(
        armed=bool({"g", "s"} & set(enabled)), source="ethtool", supported=supported, enabled=enabled
    )


def _by_sysfs(path: Path, because: str) -> dict[str, Any]:
    """Return what sysfs says, when ``because`` kept us from asking the driver."""
    said = text(path / "device/power/wakeup")
    if said not in ("enabled", "disabled"):
        return {**_state(armed=None, source=None), "because": f"ethtool: {because}"}
    return _state(armed=said == "enabled", source="sysfs")


def _state(
    *, armed: bool | None, source: str | None, supported: str | None = None, enabled: str | None = None
) -> dict[str, Any]:
    return {"armed": armed, "source": source, "supported": supported, "enabled": enabled}


def read_flags(interface: str) -> tuple[str, str]:
    """Return the Wake-on-LAN flags that the driver supports and those that are set, as ethtool's letters.

    Raises:
        OSError: not allowed (EPERM), or the driver knows no Wake-on-LAN (EOPNOTSUPP).
    """
    answer = array.array("B", struct.pack("III8x", _ETHTOOL_GWOL, 0, 0))
    request = struct.pack("16sP16x", interface.encode(), answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, _SIOCETHTOOL, request)
    _, supported, enabled = struct.unpack_from("III", answer)
    return _letters(supported), _letters(enabled)


def _letters(bits: int) -> str:
    return "".join(letter for bit, letter in enumerate(_FLAGS) if bits & 1 << bit)
