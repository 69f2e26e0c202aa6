"""From which number on something is worth a word, and from which on it is wrong.

Each number is a default that the rack file may replace (``Health(limits=Limits(...))``), and says where it is
from. "Experience" is what boards of that kind bear, of no datasheet: a rack that knows better says so. Times
are seconds, temperatures degrees Celsius, shares percent.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits; ``_warn`` is the first number that warns, ``_crit`` the first that is critical."""

    temperature_warn_c: float = 84.0  # experience: boards of NVIDIA slow down from 83 to 93
    temperature_crit_c: float = 92.0
    slowdown_margin_c: float = 5.0  # this near to where the card itself says that it slows down
    hotspot_warn_c: float = 100.0  # experience: AMD's junction slows down at 110
    hotspot_crit_c: float = 108.0
    memory_warn_c: float = 96.0  # experience: GDDR6X slows down at 110, and ages above 95
    memory_crit_c: float = 106.0
    disk_free_warn_percent: float = 10.0
    disk_free_crit_percent: float = 5.0
    disk_free_warn_mib: int = 50 * 1024  # a disk of terabytes has much room at 10 percent
    disk_free_crit_mib: int = 10 * 1024
    inodes_free_warn_percent: float = 10.0
    inodes_free_crit_percent: float = 2.0
    wear_warn_percent: float = 90.0  # NVMe's "percentage used": at 100 its maker's promise ends
    spare_warn_percent: float = 10.0  # what most NVMe drives themselves take for their threshold
    disk_warn_c: float = 70.0
    memory_free_warn_percent: float = 5.0
    memory_free_crit_percent: float = 2.0
    stall_warn_percent: float = 10.0  # pressure stall information, "full avg60"
    stall_crit_percent: float = 40.0
    clock_warn_s: float = 60.0  # less cannot be told apart from the time that an answer takes
    clock_crit_s: float = 300.0
    offset_warn_s: float = 1.0
    replays_per_hour: float = 60.0  # a sound link replays next to never; a bad riser thousands of times
    replays_least: int = 10
    ecc_corrected_per_hour: float = 100.0
    xid_fresh_s: float = DAY_S
    xid_repeated: int = 5
    loaded_percent: float = 50.0  # from here on a card is busy, so its link has to run at full speed
    certificate_warn_s: float = 21 * DAY_S  # ACME clients renew with 30 days left
    certificate_crit_s: float = 7 * DAY_S
    lists_warn_s: float = 14 * DAY_S
    power_warn_percent: float = 95.0  # of what a supply gives, or a circuit carries, for hours
    waking_factor: float = 2.0  # how many times its usual time a wake may take
    waking_least_s: float = 300.0
    suspending_s: float = 600.0


USUAL = Thresholds()
"""What counts where the rack file says nothing."""
