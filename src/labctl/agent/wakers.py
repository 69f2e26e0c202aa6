"""What brings this host back: its network card's Wake-on-LAN flag, and the alarm of its clock.

A card may forget its flag with a reload of its driver or a resume, so it is looked at before each sleep and
after each wake, and set again where it is off; what could not be read back is not armed. The alarm is set
in the clock's own time, which need not be the system's (a clock in local time), and read back too.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from .host import number, text
from .nics import read_flags

_SIOCETHTOOL = 0x8946
_ETHTOOL_GWOL, _ETHTOOL_SWOL, _ETHTOOL_GPERMADDR = 0x05, 0x06, 0x20
_MAGIC = 1 << 5
_WOLINFO = "III8s"  # command, supported, set, SecureOn password and padding
_RTC = "sys/class/rtc/rtc0"
_CLOSE_S = 2.0


class Unarmed(Exception):
    """What should wake this host is not armed, and why."""


def arm_card(wanted: Any, root: Path) -> str:
    """See to it that a magic packet to the card wakes this host; return the interface's name.

    Args:
        wanted: ``{"mac": ..., "secureon": bool}``; SecureOn is set by the card's .link file, whose password
            is not ours to know, so there the flag is only looked at.
        root: where the host's file system begins.

    Raises:
        Unarmed: it is not armed and could not be.
    """
    if not isinstance(wanted, dict) or not isinstance(wanted.get("mac"), str):
        raise Unarmed("which network card wakes it is not understood: run labctl apply")
    mac = wanted["mac"].lower()
    name = interface_of(mac, root)
    if name is None:
        raise Unarmed(f"no network card has the MAC {mac} that Wake-on-LAN would call")
    needed = "s" if wanted.get("secureon") else "g"
    try:
        supported, enabled = read_flags(name)
        if needed not in enabled:
            if needed not in supported:
                raise Unarmed(f"{name} does not do Wake-on-LAN ({needed} is not in {supported or 'nothing'})")
            if needed == "s":
                raise Unarmed(f"{name} has lost its SecureOn password: run labctl apply")
            _set_magic(name)
            _, enabled = read_flags(name)
    except OSError as error:
        raise Unarmed(f"{name} does not do Wake-on-LAN: {os.strerror(error.errno or 0)}") from None
    if needed not in enabled:
        raise Unarmed(f"{name} does not keep its Wake-on-LAN flag (it shows {enabled or 'd'})")
    _let_device_wake(root / "sys/class/net" / name / "device/power/wakeup")
    return name


def interface_of(mac: str, root: Path) -> str | None:
    """Return the interface of the card with this MAC, by its permanent one where somebody changed it."""
    folder = root / "sys/class/net"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    same = [name for name in names if text(folder / name / "address") == mac]
    # A bridge or bond borrows the address of its card.
    real = [name for name in same if (folder / name / "device").exists()]
    permanent = [name for name in names if _permanent(name) == mac]
    return next(iter(real or permanent or same), None)


def _permanent(interface: str) -> str | None:
    buffer = array.array("B", struct.pack("II32x", _ETHTOOL_GPERMADDR, 32))
    try:
        _ethtool(interface, buffer)
    except OSError:
        return None
    return ":".join(f"{byte:02x}" for byte in buffer[8:14])


def _set_magic(interface: str) -> None:
    """Add the magic packet to the card's flags, and keep the others and the password.

    Raises:
        OSError: the driver refuses.
    """
    buffer = array.array("B", struct.pack("III8x", _ETHTOOL_GWOL, 0, 0))
    _ethtool(interface, buffer)
    _, supported, enabled, password = struct.unpack(_WOLINFO, buffer.tobytes())
    wanted = struct.pack(_WOLINFO, _ETHTOOL_SWOL, supported, enabled | _MAGIC, password)
    _ethtool(interface, array.array("B", wanted))


def _ethtool(interface: str, buffer: array.array[int]) -> None:
    request = struct.pack("16sP16x", interface.encode(), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, _SIOCETHTOOL, request)


def _let_device_wake(switch: Path) -> None:
    """Let the device wake the machine; the driver usually did so with the flag, and some have no switch."""
    if text(switch) == "disabled":
        with contextlib.suppress(OSError):
            switch.write_text("enabled")


def has_alarm(root: Path) -> bool:
    """Return whether there is a clock that can wake this host."""
    return (root / _RTC / "wakealarm").exists() and number(root / _RTC / "since_epoch") is not None


def arm_alarm(at: float, root: Path) -> None:
    """Have the clock wake this host at a Unix time.

    Raises:
        Unarmed: it did not take the alarm.
    """
    alarm = root / _RTC / "wakealarm"
    own = number(root / _RTC / "since_epoch")
    if own is None:
        raise Unarmed("this host has no clock that can wake it")
    due = round(at + own - time.time())
    try:
        alarm.write_text("0")  # one that is set cannot be changed
        alarm.write_text(str(due))
    except OSError as error:
        raise Unarmed(f"the clock does not take an alarm: {error.strerror}") from None
    shown = number(alarm)
    if shown is None or abs(shown - due) > _CLOSE_S:
        raise Unarmed(f"the clock shows another alarm than was set ({shown} instead of {due})")


def disarm_alarm(root: Path) -> None:
    """Take the alarm away; harmless where there is none."""
    with contextlib.suppress(OSError):
        (root / _RTC / "wakealarm").write_text("0")
