"""What of a host's hardware stays on while it sleeps or is off: its card, its alarm clock; and its faults.

A host in a container has no such hardware, so this imitates what its kernel would show of it: /sys/power,
the real-time clock, the card's Wake-on-LAN options. As on real machines a card forgets its options at a boot,
and udev sets them again from the first ``.link`` file that matches (there is no udev in a container, so it is
done here). A card keeps them in sleep and after a shutdown, and loses them with the power.
"""

from __future__ import annotations

import configparser
import errno
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.alarm import Alarm
from labctl.lab.knob import Knob
from labctl.lab.nic import MAGIC, SECURE, Card, Hearing
from labctl.ports import Clock

FAULTS = ("no-suspend", "wakes-itself", "deaf", "loses-packets", "slow-boot", "sleep-heal")
_GET_WOL = 5
_WOL = struct.Struct("III6s2x")  # struct ethtool_wolinfo
_STATES = b"freeze mem\n"
_FAILURES = ("failed_freeze", "failed_prepare", "failed_suspend", "failed_suspend_noirq", "failed_resume")
_USUAL_S = 2


@dataclass(slots=True)
class Faults:
    """What is wrong with the way a host sleeps and wakes; seconds where a time matters, else None or 0."""

    no_suspend: bool = False
    wakes_itself_s: float | None = None
    slow_boot_s: float = 0
    hearing: Hearing = field(default_factory=Hearing)

    def give(self, kind: str, value: float | None, seed: str) -> None:
        """Give one of FAULTS; ``seed`` decides which packets are lost, the same ones each time.

        Raises:
            LabctlError: there is no such fault, or the value makes no sense.
        """
        if kind == "no-suspend":
            self.no_suspend = True
        elif kind == "wakes-itself":
            self.wakes_itself_s = _USUAL_S if value is None else value
        elif kind == "slow-boot":
            self.slow_boot_s = _required(kind, value, "seconds", 600)
        elif kind == "deaf":
            self.hearing.deaf = True
        elif kind == "loses-packets":
            percent = int(_required(kind, value, "percent", 100))
            # Reproducible, no secret.
            self.hearing.loses_percent, self.hearing.luck = percent, random.Random(seed)
        elif kind == "sleep-heal":
            self.no_suspend, self.wakes_itself_s, self.slow_boot_s = False, None, 0
            self.hearing = Hearing()
        else:
            raise LabctlError(f"no such fault of sleep as {kind!r}", hint=f"there are {', '.join(FAULTS)}")

    def names(self) -> list[str]:
        """Return the names of the faults that were given."""
        given = {
            "no-suspend": self.no_suspend,
            "wakes-itself": self.wakes_itself_s is not None,
            "deaf": self.hearing.deaf,
            "loses-packets": self.hearing.loses_percent > 0,
            "slow-boot": self.slow_boot_s > 0,
        }
        return [name for name, is_given in given.items() if is_given]


class Board:
    """The hardware of one host that can sleep; ``suspend`` puts the host to sleep, ``ring`` wakes it."""

    def __init__(self, mac: str, clock: Clock, suspend: Callable[[], None], ring: Callable[[], None]) -> None:
        self.mac, self._suspend = mac, suspend
        self.alarm = Alarm(clock, ring)
        self.card = Card()
        self.faults = Faults()
        self.succeeded = self.failed = 0
        self._kind = "deep"

    def boot(self, root: Path) -> None:
        """Be as after a power-on of the host whose disk is at ``root``, when udev has done its part."""
        self.card = linked(root / "etc/systemd/network", self.mac)
        self.succeeded = self.failed = 0

    def lose_power(self) -> None:
        """Forget what the card was told."""
        self.card = Card()

    def knobs(self) -> dict[str, Knob]:
        """Return the files that the host sees, by their paths below /opt/lab/sleep/live."""
        counts = dict.fromkeys(_FAILURES, lambda: b"0\n")
        counts |= {"success": lambda: b"%d\n" % self.succeeded, "fail": lambda: b"%d\n" % self.failed}
        counts |= {f"last_failed_{what}": lambda: b"\n" for what in ("dev", "errno", "step")}
        return {
            "power/state": Knob(lambda: _STATES, self._state),
            "power/mem_sleep": Knob(self._mem_sleep, self._choose),
            **{f"power/suspend_stats/{name}": Knob(read) for name, read in counts.items()},
            "rtc/rtc0/name": Knob(lambda: b"rtc_lab\n"),
            "rtc/rtc0/since_epoch": Knob(lambda: b"%d\n" % self.alarm.now()),
            "rtc/rtc0/wakealarm": Knob(self.alarm.read, self.alarm.write),
            "nic/eth0": Knob(self._read_wol, self._write_wol, secret=True),
            "power-of-card/wakeup": Knob(lambda: b"enabled\n" if self.card.options else b"disabled\n"),
        }

    def _state(self, said: bytes) -> None:
        if said.strip() not in (b"mem", b"freeze"):
            raise OSError(errno.EINVAL, "state")
        if self.faults.no_suspend:
            self.failed += 1
            raise OSError(errno.EBUSY, "a device would not")
        self._suspend()

    def _mem_sleep(self) -> bytes:
        return (
            b" ".join(
                b"[%s]" % kind if kind.decode() == self._kind else kind for kind in (b"s2idle", b"deep")
            )
            + b"\n"
        )

    def _choose(self, said: bytes) -> None:
        if said.strip() not in (b"s2idle", b"deep"):
            raise OSError(errno.EINVAL, "mem_sleep")
        self._kind = said.strip().decode()

    def _read_wol(self) -> bytes:
        return _WOL.pack(_GET_WOL, MAGIC | SECURE, self.card.options, self.card.password)

    def _write_wol(self, said: bytes) -> None:
        if len(said) != _WOL.size:
            raise OSError(errno.EINVAL, "not a struct ethtool_wolinfo")
        _, _, options, password = _WOL.unpack(said)
        if options & ~(MAGIC | SECURE):
            raise OSError(errno.EINVAL, "no such option")
        self.card = Card(options, password if options & SECURE else bytes(6))


def linked(folder: Path, mac: str) -> Card:
    """Return how the first ``.link`` file for this card arms it; later ones count nothing, as in systemd."""
    for file in sorted(folder.glob("*.link")) if folder.is_dir() else ():
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            parser.read_string(file.read_text())
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        match = parser["Match"] if parser.has_section("Match") else {}
        macs = f"{match.get('macaddress', '')} {match.get('permanentmacaddress', '')}".lower().split()
        if mac not in macs:
            continue
        link = parser["Link"] if parser.has_section("Link") else {}
        words = link.get("wakeonlan", "").split()
        password = bytes.fromhex(link.get("wakeonlanpassword", "").replace(":", "").strip() or "00" * 6)
        options = (MAGIC if "magic" in words else 0) | (SECURE if "secureon" in words else 0)
        return Card(options, password if options & SECURE else bytes(6))
    return Card()


def _required(kind: str, value: float | None, what: str, most: float) -> float:
    if value is None or not 0 < value <= most:
        raise LabctlError(f"how much for {kind}? give it in {what}, up to {most:g}", hint="--value N")
    return value
