"""Settings of the operating system that are the same on every host: time, journal, automatic updates.

Numbers here are chosen for machines that serve and sleep: a journal that can be read back for a month but
never fills a disk, security updates without a reboot, and no automatic change of what a GPU depends on.
"""

from __future__ import annotations

from labctl import render
from labctl.inventory import Host, Rack

JOURNALD = "systemd-journald.service"
TIMESYNCD = "systemd-timesyncd.service"
JOURNALD_DROP_IN = "/etc/systemd/journald.conf.d/10-labctl.conf"
TIMESYNCD_DROP_IN = "/etc/systemd/timesyncd.conf.d/10-labctl.conf"
UPGRADES_DROP_IN = "/etc/apt/apt.conf.d/52labctl-unattended-upgrades"
# Without what is installed already: the file that is to be replaced may be the broken one.
_CHECK_APT_CONF = """\
set -eu
only=$(mktemp /run/labctl-apt.XXXXXXXX)
trap 'rm -f "$only"' EXIT
printf 'Dir::Etc::main "/dev/null";\\nDir::Etc::parts "/dev/null";\\n#include "%s";\\n' "$1" >"$only"
APT_CONFIG=$only apt-config dump --no-empty
"""
CHECK_APT_CONF = ("sh", "-c", _CHECK_APT_CONF, "labctl-apt")

PACKAGES = (
    "ca-certificates",
    "curl",
    "ethtool",
    "nftables",
    "python3",
    "sudo",
    "tzdata",
    "unattended-upgrades",
)
TIME_PACKAGE = "systemd-timesyncd"

_SECURITY_ORIGINS = (
    "origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
    "origin=Ubuntu,archive=${distro_codename}-security,label=Ubuntu",
)
# Regular expressions, matched at the start of a package's name.
_HELD = (
    "amdgpu",
    "amdrocm",
    "cuda",
    "firmware-nvidia",
    "libcuda",
    "libnvidia",
    "linux-generic",
    "linux-headers",
    "linux-image",
    "linux-modules",
    "linux-nvidia",
    "linux-oem",
    "nvidia",
    "rocm",
)


def packages(rack: Rack, host: Host, *, timesyncd: bool) -> tuple[str, ...]:
    """Return the packages of a host: labctl's, the rack's and its own, without repetition.

    Args:
        rack: whose packages go on every host.
        host: whose packages are added.
        timesyncd: whether systemd-timesyncd keeps the time; installing it would remove another time daemon.
    """
    wanted = (*PACKAGES, *((TIME_PACKAGE,) if timesyncd else ()), *rack.packages, *host.packages)
    return tuple(dict.fromkeys(wanted))


def journald() -> str:
    """Return the drop-in that bounds the journal."""
    return render.text(
        "journald.conf.j2", max_use="1G", keep_free="2G", runtime_max_use="128M", retention="1month"
    )


def timesyncd(rack: Rack) -> str:
    """Return the drop-in that names the rack's time servers."""
    return render.text("timesyncd.conf.j2", servers=rack.ntp)


def unattended_upgrades() -> str:
    """Return the policy of automatic updates."""
    return render.text("unattended-upgrades.conf.j2", origins=_SECURITY_ORIGINS, held=_HELD)
