"""A connection that is cut in the middle of any operation: named in time, alone, and healed by a rerun.

Every operation of the shipped deploys gets its own cut. After the rerun /etc and the installed packages must
be what an undisturbed run on the same host leaves behind.
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
ROUNDS = 6
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


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, set[str]]:
    """What an undisturbed run leaves on each host of this worker's rack."""
    return {}


def learn(rack: Lab, undisturbed: dict[str, set[str]], inventory: Path, names: tuple[str, ...]) -> None:
    """Apply without any fault, note what that leaves, and make the hosts clean again."""
    reports = drive(inventory, SITE, names)
    assert set(ends(reports).values()) == {("ok", "")}, ends(reports)
    undisturbed.update({name: state(rack, name) for name in names})
    rack.reset_all()


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_cut_in_the_middle_of_an_operation_is_healed_by_a_rerun(
    rack: Lab, hosts, rack_file, undisturbed: dict[str, set[str]], turn: int
) -> None:
    lent = hosts(HOSTS)
    names = tuple(host.name for host in lent)
    inventory = inventory_for(rack_file, lent)
    if not undisturbed:
        learn(rack, undisturbed, inventory, names)
    planned = {name: report.plan for name, report in drive(inventory, SITE, names, execute=False).items()}
    changing = {name: [op.index for op in plan if op.state != "no-change"] for name, plan in planned.items()}
    assert max(map(len, changing.values())) <= HOSTS * ROUNDS, "there are operations that no round cuts"
    # Each host of a round is cut at another operation; where a host has none left it runs undisturbed.
    cuts = {
        name: indexes[turn * HOSTS + place] if turn * HOSTS + place < len(indexes) else None
        for place, (name, indexes) in enumerate(changing.items())
    }
    struck: set[str] = set()

    def strike(event: Event) -> None:
        if isinstance(event, OpStarted) and event.index == cuts[event.host] and event.host not in struck:
            struck.add(event.host)
            threading.Thread(target=rack.cut, args=(event.host,)).start()

    reports = drive(inventory, SITE, names, strike)
    for name in names:
        expected = {("failed", "connection-lost")} if name in struck else {("ok", "")}
        # A cut comes a moment after the operation has begun, so a fast last one may be through already.
        if name in struck and cuts[name] == changing[name][-1]:
            expected.add(("ok", ""))
        assert ends(reports)[name] in expected, (name, end_of(reports[name]))
    for name in struck:
        rack.mend(name)
    # Until its heartbeat is overdue, the lock of the run that was cut off counts as that of a living one.
    deadline = time.monotonic() + 60
    while ("failed", "locked") in (ended := ends(drive(inventory, SITE, names)).values()):
        assert time.monotonic() < deadline, "the lock of a run that is gone is never given up"
        time.sleep(2)
    assert set(ended) == {("ok", "")}
    for name in names:
        assert state(rack, name) == undisturbed[name], name
