"""The ground of every host: packages, name and clock, who may log in, journal, automatic updates, firewall.

Order matters in two places: sudo is installed before its rules are checked, and the firewall comes last, so
that a host which cannot load it has everything else. Nothing here can lock out the login in use: sshd's
drop-in is checked together with the whole configuration before it takes its place, root's key keeps working
where labctl comes as root, and the ports of SSH are the first that the firewall opens.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra import logger
from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack, clusters
from labctl.ops import apt, clock, files, firewall, hostname, systemd, users
from labctl.render import access, system
from labctl.render import firewall as packet_filter


@deploy("Base")
def base() -> None:
    """Bring a bare Debian or Ubuntu to labctl's common ground."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    keeper = host.get_fact(clock.TimeKeeping)

    packages = system.packages(rack, spec, timesyncd=keeper.daemon is None)
    apt.packages(name="packages", names=packages)
    hostname.hostname(name="host name", wanted=spec.name)
    clock.timezone(name="time zone", wanted=rack.timezone)
    time_sync(rack, keeper)
    operator()
    sshd()
    journal()
    updates()
    firewall_of(rack, spec)


def time_sync(rack: Rack, keeper: clock.Keeper) -> None:
    """Let systemd-timesyncd keep the clock, unless somebody chose another daemon for it."""
    if keeper.daemon is not None:
        if rack.ntp:
            logger.warning(f"{host.name}: {keeper.daemon} keeps the clock, so the rack's ntp= is not used")
        return
    if rack.ntp:
        files.directory(name="time servers: folder", path=str(Path(system.TIMESYNCD_DROP_IN).parent))
        servers = files.put(
            name="time servers",
            dest=system.TIMESYNCD_DROP_IN,
            content=system.timesyncd(rack),
            restarts=system.TIMESYNCD,
        )
    else:
        servers = files.absent_own(
            name="time servers", path=system.TIMESYNCD_DROP_IN, restarts=system.TIMESYNCD
        )
    # In a container the machine outside keeps the clock, and this service refuses to start.
    if not keeper.container:
        systemd.restart(name="time servers: restart", unit=system.TIMESYNCD, _if=servers.did_change)
    systemd.service(
        name="time synchronisation", unit=system.TIMESYNCD, running=None if keeper.container else True
    )


def operator() -> None:
    """Give the operator's key a user of its own that may become root."""
    key = Path(host.data.ssh_key)
    public = access.operator_key(
        private=key.read_bytes(), public=key.with_name(f"{key.name}.pub").read_text(), name=str(key)
    )
    users.user(name="operator", user=access.OPERATOR, shell="/bin/bash", authorized_keys=(public,))
    files.put(
        name="operator may become root",
        dest=access.OPERATOR_SUDOERS,
        content=access.operator_sudoers(),
        mode="440",
        validate=access.CHECK_SUDOERS,
    )


def sshd() -> None:
    """Let keys in, and nothing else."""
    drop_in = files.put(
        name="sshd drop-in",
        dest=access.SSHD_DROP_IN,
        content=access.sshd(host.data.ssh_user),
        validate=access.CHECK_SSHD,
        restarts=access.SSHD,
    )
    systemd.reload(name="sshd reads its drop-in", unit=access.SSHD, _if=drop_in.did_change)
    systemd.service(name="sshd", unit=access.SSHD, enabled=None, running=None)


def journal() -> None:
    """Bound what the journal takes of the disk."""
    files.directory(name="journal: folder", path=str(Path(system.JOURNALD_DROP_IN).parent))
    drop_in = files.put(
        name="journal limits",
        dest=system.JOURNALD_DROP_IN,
        content=system.journald(),
        restarts=system.JOURNALD,
    )
    systemd.restart(name="journal: restart", unit=system.JOURNALD, _if=drop_in.did_change)
    systemd.service(name="journal", unit=system.JOURNALD, enabled=None)


def updates() -> None:
    """Install security updates automatically, but never reboot and never touch kernel or GPU driver."""
    files.put(
        name="automatic updates",
        dest=system.UPGRADES_DROP_IN,
        content=system.unattended_upgrades(),
        validate=system.CHECK_APT_CONF,
    )


def firewall_of(rack: Rack, spec: Host) -> None:
    """Drop what the inventory does not declare."""
    listening = host.get_fact(firewall.SshdPorts)
    rules = packet_filter.rules(
        spec,
        (host.data.ssh_port, *listening),
        clusters.openings(rack, spec),
        packet_filter.own_ports(rack, spec),
    )
    unit = packet_filter.unit()
    files.directory(name="firewall: folder for your own rules", path=packet_filter.DROP_INS)
    files.put(
        name="firewall rules",
        dest=packet_filter.RULES,
        content=rules,
        mode="600",
        validate=packet_filter.CHECK_RULES,
    )
    # Started and reloaded below, by what the kernel says rather than by what the unit says.
    systemd.unit(name="firewall unit", unit=unit.name, content=unit.content, running=None)
    firewall.loaded(
        name="firewall is loaded",
        unit=unit.name,
        table=packet_filter.TABLE,
        marker=packet_filter.marker(rules),
    )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    base()
