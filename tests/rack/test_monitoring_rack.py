"""Prometheus, on the laptop, watches a rack that sleeps, by what labctl writes for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sleeping_site import KEY, WEB_KEY, Site

from labctl.lab.processes import wait_until
from prometheus_kit import Prometheus, prometheus

pytestmark = pytest.mark.rack


@pytest.fixture(scope="module")
def watching(site: Site, armed: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the rack every second; nobody has node_exporter."""
    folder = tmp_path_factory.mktemp("prometheus")
    (wrote,) = site.say("monitoring", "write", str(folder), "--on", "-", "--node-exporter", "9100")
    assert len(wrote["notes"]) == 2
    (folder / "keys").mkdir()
    for job, key in (("labctl", WEB_KEY), ("labctl-gateway", KEY)):
        (folder / "keys" / job).write_text(key)
    with prometheus(folder / "prometheus.yml", folder) as running:
        yield running


def _state(host: str, state: str) -> str:
    return f'labctl_host_state{{host="{host}", state="{state}"}} == 1'


def test_a_host_that_sleeps_is_watched_without_being_woken_and_without_an_alert(
    site: Site, watching: Prometheus
) -> None:
    box, hub = site.box.name, site.hub.name
    site.awake()
    site.say("suspend", box, "--why", "it is watched")
    assert wait_until(lambda: site.is_in("asleep"), within=60), site.explain(site.box)
    heard = len(site.rack.packets(box))
    asleep = (
        _state(box, "asleep"),
        f'labctl_gateway_host_mode{{host="{box}", mode="asleep"}} == 1',
        f'up{{job="labctl-node", host="{box}"}} == 0',
        f'ALERTS{{alertname="LabctlNodeDown", host="{hub}"}}',
    )
    watching.until_nothing(lambda: [expr for expr in asleep if not watching.ask(expr)])
    slept = watching.value(f'labctl_host_moves_total{{host="{box}", event="dark"}}') or 0.0
    looks = f"count_over_time(({_state(box, 'asleep')})[1m:1s]) >= 8"
    watching.until_nothing(lambda: [] if watching.ask(looks) else [looks])
    # Scraped again and again, it sleeps on; nobody has node_exporter, and for the box that is no news.
    assert site.is_in("asleep")
    assert len(site.rack.packets(box)) == heard
    assert slept >= 1
    assert ("LabctlNodeDown", hub) in watching.alerts()
    assert {name for name, host in watching.alerts() if host == box} == set()


def test_a_wake_is_seen_with_its_seconds(site: Site, watching: Prometheus) -> None:
    box = site.box.name
    wakes = f'labctl_host_wake_seconds_count{{host="{box}"}}'
    before = watching.value(wakes) or 0.0
    site.awake()
    ready = (_state(box, "ready"), f"{wakes} > {before}", 'up{job="labctl-gateway"} == 1')
    watching.until_nothing(lambda: [expr for expr in ready if not watching.ask(expr)])
