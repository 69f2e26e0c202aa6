"""What the controller reads lies on its host for it alone, and goes when it is needed no more."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rack_driving import labctl

from labctl import wiring
from labctl.lab import Lab, LabHost, wheels

pytestmark = pytest.mark.rack

RACK = """\
from labctl.inventory import Controller, Health, Host, IdlePolicy, Rack, Ssh, WakeOnLan

rack = Rack(
    name="test",
    ssh=Ssh(user="admin", key="keys/operator"),
    controller=Controller(host="{hub}", wheels="{wheels}", tick="2s"),
    controller_key="keys/controller.pub",
    health=Health(every="1h", looks=1),
    hosts=[
        Host(name="{hub}", address="{hub_address}", roles=["always-on"]),
        Host(
            name="{box}",
            address="{box_address}",
            wake=WakeOnLan(mac="{mac}", secureon_file="keys/secureon"),
        ),
    ],
)
globals().update(rack.groups())
"""


@pytest.fixture
def site(rack: Lab, hosts: Callable[..., tuple[LabHost, ...]], rack_file: Callable[..., Path]) -> Path:
    """The rack file of a hub, which is to run the controller, and a box."""
    hub, box = hosts(2, suite="trixie")
    wheels.make(wiring.cache_home() / "lab")
    file = rack_file([hub, box])
    key = file.parent / "keys/controller"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    secureon = file.parent / "keys/secureon"
    secureon.write_text("12:34:56:78:9a:bc\n")
    secureon.chmod(0o600)
    file.write_text(
        RACK.format(
            hub=hub.name,
            box=box.name,
            wheels=wheels.INSIDE,
            hub_address=hub.address,
            box_address=box.address,
            mac=box.mac,
        )
    )
    return file


BRING_BACK = """
systemctl stop labctl-controller
cd /var/lib/labctl-store && chown -h labctl-controller:labctl-controller * && chmod 600 *
mv * /var/lib/labctl-controller/ && systemctl start labctl-controller
test ! -e /var/lib/labctl-controller/store.db
"""


def stores(rack: Lab, hub: str) -> None:
    """The store is its group's, and one that lay where older versions had it is brought along."""
    look = ["sh", "-c", "cd /var/lib/labctl-store && stat -c '%n %a %U' . * && stat -c %G . store.db-wal"]
    wanted = ["store.db 660", "store.db-shm 660", "store.db-wal 660"]
    said = [
        ". 2770 labctl-controller",
        *(f"{one} labctl-controller" for one in wanted),
        *["labctl-store"] * 2,
    ]
    assert rack.run(hub, look, check=True).stdout.splitlines() == said
    assert "labctl-store" in rack.run(hub, ["id", "-nG", "labctl-controller"], check=True).stdout.split()
    rack.run(hub, ["sh", "-ec", BRING_BACK], check=True)
    assert rack.run(hub, look, check=True).stdout.splitlines() == said


def health(rack: Lab, hub: str) -> None:
    """Health is looked after by a user of its own, with a copy of the key, and what it finds is for all."""
    look = [
        "sh",
        "-c",
        "cd /etc/labctl/health && stat -c '%n %a %U %G' . *; systemctl is-active labctl-health.timer",
    ]
    assert rack.run(hub, look, check=True).stdout.splitlines() == [
        ". 750 root labctl-health",
        "key 400 labctl-health labctl-health",
        "known_hosts 640 root labctl-health",
        "rack.json 640 root labctl-health",
        "active",
    ]
    once = "systemctl start labctl-health && cat /var/lib/labctl-health/results.json"
    found = json.loads(rack.run(hub, ["sh", "-c", once], check=True).stdout)
    reached = {one["host"]: one["level"] for one in found["results"] if one["code"] == "reachable"}
    assert set(reached.values()) == {"OK"} and len(reached) == 2, found
    (works,) = [one for one in found["results"] if one["code"] == "controller-works"]
    assert works["level"] == "OK", works


def test_the_controllers_files_are_its_own_and_go_with_it(site: Path, rack: Lab) -> None:
    words = ["--yes", "--json", "--only=base,agent,controller,health"]
    done = labctl("apply", str(site), *words, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    again = labctl("apply", str(site), *words, timeout=400)
    assert [host["changed"] for host in json.loads(again.stdout)["hosts"]] == [0, 0]
    # A secret that others may read is refused by whoever uses it, so by the controller too.
    hub = json.loads(done.stdout)["hosts"][0]["host"]
    argv = ["sh", "-c", "stat -c '%a %U' /etc/labctl/controller/key /etc/labctl/controller/*.secureon_file"]
    assert rack.run(hub, argv, check=True).stdout.split("\n")[:2] == ["400 labctl-controller"] * 2
    stores(rack, hub)
    health(rack, hub)
    # A secret that is not in the rack file any more goes; on a host that it moved away from all of them go.
    site.write_text(site.read_text().replace(', secureon_file="keys/secureon"', ""))
    done = labctl("apply", str(site), *words, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    here = rack.run(hub, ["ls", "/etc/labctl/controller"], check=True).stdout.split()
    assert here == ["key", "known_hosts", "rack.json"]
    lines = site.read_text().splitlines(keepends=True)
    site.write_text("".join(line for line in lines if "controller=Controller" not in line))
    done = labctl("apply", str(site), "--yes", "--json", "--only=controller,health", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    units = "labctl-controller labctl-health.timer"
    script = f"ls /etc/labctl/controller /etc/labctl/health; systemctl is-active {units}"
    said = rack.run(hub, ["sh", "-c", script]).stdout.split()
    assert said == ["/etc/labctl/controller:", "/etc/labctl/health:", "inactive", "inactive"]
