"""A connection that is cut in the middle of any operation: named in time, alone, and healed by a rerun.

Every operation of the shipped deploys gets its own cut: the operations are dealt out to the hosts, and each
host is cut at one of its own after the other, every run going on where the cut left it. After the last rerun
/etc and the installed packages must be what an undisturbed run on the same host leaves behind.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from rack_driving import drive, end_of, ends

from labctl import content
from labctl.lab import Lab, LabHost
from labctl.provision.events import Event, OpStarted

pytestmark = pytest.mark.rack

HOSTS = 5
PATIENCE_S = 60.0
SITE = content.deploys_dir() / "site.py"
EXTRA = (
    ', services=[Command(name="docs", argv=["/usr/bin/python3", "-m", "http.server", "8090",'
    ' "--bind", "127.0.0.1"], port=8090)]'
)

# Backups that useradd and friends leave; what they hold depends on how often they ran.
NOT_STATE = ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-")
STATE = """
find /etc -type f -exec sha256sum {} + ; find /etc -printf '%p %y %m %u %g %l\\n'
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'
systemctl list-unit-files 'labctl*' --no-legend
"""


def state(rack: Lab, host: str) -> set[str]:
    lines = rack.run(host, ["sh", "-c", STATE], check=True, timeout=60).stdout.splitlines()
    return {line for line in lines if not any(path in line.split() for path in NOT_STATE)}


def inventory_for(rack_file, lent: tuple[LabHost, ...]) -> Path:
    path = rack_file(lent, EXTRA)
    path.write_text(path.read_text().replace("import Host,", "import Command, Host,"))
    return path


def learn(rack: Lab, inventory: Path, names: tuple[str, ...]) -> dict[str, set[str]]:
    """Apply without any fault, return what that leaves on each host, and make the hosts clean again."""
    reports = drive(inventory, SITE, names)
    assert set(ends(reports).values()) == {("ok", "")}, ends(reports)
    states = {name: state(rack, name) for name in names}
    rack.reset_all()
    return states


def deal(inventory: Path, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Return for each host the operations at which it is cut, in order; together they are all that change."""
    planned = {name: report.plan for name, report in drive(inventory, SITE, names, execute=False).items()}
    changing = {name: [op.index for op in plan if op.state != "no-change"] for name, plan in planned.items()}
    assert min(map(len, changing.values())) > HOSTS
    return {name: indexes[place::HOSTS] for place, (name, indexes) in enumerate(changing.items())}


class Cuts:
    """Cuts each host as soon as the next of its operations begins, once a run."""

    def __init__(self, rack: Lab, dealt: dict[str, list[int]]) -> None:
        self._rack = rack
        self.left = {name: list(indexes) for name, indexes in dealt.items()}
        self.struck: dict[str, int] = {}

    def strike(self, event: Event) -> None:
        if not isinstance(event, OpStarted) or event.host in self.struck:
            return
        if event.index in self.left[event.host]:
            self.left[event.host].remove(event.index)
            self.struck[event.host] = event.index
            threading.Thread(target=self._rack.cut, args=(event.host,)).start()

    def mend(self) -> None:
        for name in self.struck:
            self._rack.mend(name)
        self.struck.clear()


def cut_and_rerun(rack: Lab, inventory: Path, cuts: Cuts) -> None:
    """Run until nothing is left to do on any host, each run cut at the next operation that has a cut left."""
    moved = dict.fromkeys(cuts.left, time.monotonic())
    while True:
        ended = ends(reports := drive(inventory, SITE, tuple(cuts.left), cuts.strike))
        for name, (status, code) in ended.items():
            # A cut comes a moment after its operation has begun, so a fast last one may be through already.
            through = name not in cuts.struck or not cuts.left[name]
            # Until its heartbeat is overdue, the lock of the run that was cut off counts as a living one's.
            if (status, code) == ("failed", "locked"):
                assert time.monotonic() - moved[name] < PATIENCE_S, "the lock of a run that is gone stays"
                continue
            allowed = {("failed", "connection-lost")} if name in cuts.struck else set()
            assert (status, code) in allowed | ({("ok", "")} if through else set()), end_of(reports[name])
            moved[name] = time.monotonic()
        if set(ended.values()) == {("ok", "")} and not cuts.struck:
            return
        cuts.mend()
        time.sleep(1)


def test_a_cut_in_the_middle_of_any_operation_is_healed_by_a_rerun(rack: Lab, hosts, rack_file) -> None:
    lent = hosts(HOSTS)
    names = tuple(host.name for host in lent)
    inventory = inventory_for(rack_file, lent)
    undisturbed = learn(rack, inventory, names)
    dealt = deal(inventory, names)
    while dealt:
        cuts = Cuts(rack, dealt)
        cut_and_rerun(rack, inventory, cuts)
        for name in cuts.left:
            assert state(rack, name) == undisturbed[name], name
        # What an earlier run left behind (the folder of its lock) may spare a later one an operation: that
        # one is cut on a clean host.
        left = {name: indexes for name, indexes in cuts.left.items() if indexes}
        assert all(left[name] != dealt[name] for name in left), f"planned, and never begun: {left}"
        dealt = left
        if dealt:
            rack.reset_all()
