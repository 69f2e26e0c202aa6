"""Health on a rack that sleeps, by the command that people type: what keeps hosts from coming back is found.

The controller's word, cards that listen for packets, agents and gates are real; each fault is made on a host,
and goes as the finding says.
"""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from rack_driving import labctl
from sleeping_site import BROKEN, Site

from labctl import __version__
from labctl.agent.access import AGENT_PATH
from labctl.domain.problem import ExitCode
from labctl.lab import LabHost
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

OTHER = "0.0.1"


def levels(site: Site, host: LabHost, *codes: str) -> tuple[str, ...]:
    """Look at a host; return the level of each of these checks."""
    done = labctl("health", host.name, "--all", "--json", "--inventory", str(site.file), timeout=120)
    assert not done.stderr, done.stderr
    found = {one["code"]: one["level"] for one in json.loads(done.stdout)["results"]}
    return tuple(found[code] for code in codes)


def another_agent(site: Site, host: LabHost) -> None:
    """Have an agent of another version on a host."""
    path = site.rack.root(host.name) / AGENT_PATH.lstrip("/")
    whole, other = path.read_bytes(), io.BytesIO()
    other.write(whole[: whole.index(b"\n") + 1])
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(other, "a") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(__version__.encode(), OTHER.encode()))
    path.write_bytes(other.getvalue())


def test_what_keeps_a_host_from_coming_back_is_found_and_goes_when_it_is_mended(
    site: Site, armed: object
) -> None:
    box, codes = site.box, ("wake-proof", "wol-armed", "agent-old")
    site.awake()
    assert levels(site, box, *codes) == ("OK", "OK", "OK")
    proven = site.proven_with("6.1.0-25-amd64")
    site.do(box, "ethtool", "-s", "eth0", "wol", "d")
    another_agent(site, box)
    site.awake()  # the controller looks at once
    assert levels(site, box, *codes) == ("WARN", "CRIT", "WARN")
    site.proven_with(proven)
    assert site.apply("agent,wol", box)[box.name] > 0
    site.awake()
    assert levels(site, box, *codes) == ("OK", "OK", "OK")


def test_a_host_that_does_not_pass_its_gate_is_found_as_set_apart_until_it_is_mended(site: Site) -> None:
    spare, codes = site.spare, ("reachable", "quarantined")
    site.say("wake", spare.name, "--timeout", "90s")
    site.say("suspend", spare.name)
    assert levels(site, spare, *codes) == ("OK", "OK")
    site.do(spare, "touch", BROKEN)
    site.say("wake", spare.name, "--timeout", "90s", code=ExitCode.HOST_FAILED)
    assert levels(site, spare, *codes) == ("OK", "CRIT")
    site.do(spare, "rm", BROKEN)
    site.say("resume", spare.name)
    site.say("wake", spare.name, "--timeout", "90s")
    assert levels(site, spare, *codes) == ("OK", "OK")


def test_status_shows_which_models_a_host_has_loaded(site: Site) -> None:
    site.awake()

    def loaded() -> set[str]:
        (box,) = (host for host in site.say("status")[0]["hosts"] if host["host"] == site.box.name)
        return {model["model"] for service in box["services"] for model in service["models"]}

    assert wait_until(lambda: loaded() == {"tiny-writer", "tiny-alone"}, within=30), loaded()
