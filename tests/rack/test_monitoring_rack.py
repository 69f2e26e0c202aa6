"""Prometheus watches a rack that sleeps, from the laptop, by what labctl writes for it.

The gateway is scraped over the network; the page of numbers runs on the laptop and asks the rack's own
controller, through SSH.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sleeping_site import KEY, Site

from labctl.adapters.shared_folder import write
from labctl.cli import asking
from labctl.inventory import Web, load_rack
from labctl.lab.processes import wait_until
from labctl.render.monitoring import Scraper, files
from labctl.web.metrics import Metrics, Sources
from prometheus_kit import Prometheus, page, prometheus

pytestmark = pytest.mark.rack


@pytest.fixture(scope="module")
def watching(site: Site, armed: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the rack every second; nobody has node_exporter."""
    folder = tmp_path_factory.mktemp("prometheus")
    loaded = load_rack(site.file)
    with ExitStack() as held:
        controller = held.enter_context(asking.controller(asking.aim(str(site.file), ())))
        guard = threading.Lock()

        def status() -> Mapping[str, Any]:
            with guard:
                return controller.tell("status")

        port = held.enter_context(page(Metrics(Sources(status, lambda: None))))
        rack = loaded.rack.model_copy(update={"web": Web(port=port, listen="0.0.0.0")})
        write(folder, files(rack, loaded.folder, Scraper(None, 9100)).files)
        here = [{"targets": [f"127.0.0.1:{port}"], "labels": {"rack": rack.name}}]
        (folder / "targets" / "labctl.json").write_text(json.dumps(here))
        (folder / "keys").mkdir()
        (folder / "keys" / "labctl-gateway").write_text(KEY)
        yield held.enter_context(prometheus(folder / "prometheus.yml", Path(folder)))


def _state(host: str, state: str) -> str:
    return f'labctl_host_state{{host="{host}", state="{state}"}} == 1'


def test_a_host_that_sleeps_is_watched_without_being_woken_and_without_an_alert(
    site: Site, watching: Prometheus
) -> None:
    box, hub = site.box.name, site.hub.name
    site.say("suspend", box, "--why", "it is watched")
    assert wait_until(lambda: site.is_in("asleep"), within=60), site.explain(site.box)
    heard, slept = len(site.rack.packets(box)), 0.0
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
