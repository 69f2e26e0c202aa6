"""A real Prometheus scrapes the web page and a gateway, by the files that labctl writes for it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from assembled_kit import SECRET, Rack, assembled, table_for, upstream
from upstream_double import Double

from labctl.adapters.shared_folder import write
from labctl.controller.answers import HostStatus
from labctl.domain.health.results import Findings
from labctl.domain.sleep.lifecycle import Mode
from labctl.inventory import Gateway, GatewayKey, Web
from labctl.render.monitoring import Scraper, files
from labctl.render.monitoring.dashboard import dashboard
from labctl.render.monitoring.rules import ALERTS, RECORDED
from monitoring_kit import COUNTS, HUB, NOON, RACK, finding, measuring, metrics, program, status
from prometheus_kit import Prometheus, prometheus
from scripted_service import Scripted
from web_kit import served

CHAT: dict[str, Any] = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}
SEEN = {
    'count(up{rack="desk"} == 1)': 2.0,
    'sum(labctl_host_state{host="rig", state="ready"})': 1.0,
    'sum(labctl_host_state{host="mini", state="asleep"})': 1.0,
    'labctl_gpu_power_watts{gpu="GPU-1"}': 27.5,
    "labctl:rack_gpu_power_watts": 27.5,
    'sum(labctl_gateway_requests_total{model="qwen", status="200"})': 6.0,
    "sum(labctl_gateway_refused_total)": 2.0,
}
NAMED = re.compile(r"\b(?:labctl[a-z_:0-9]*|up)\b(?=[{\s\)\[]|$)")


def written(folder: Path, page_port: int, gateway_port: int) -> Path:
    """Write what Prometheus needs, as `labctl monitoring write` does, with the key that it asks for."""
    keys = (GatewayKey(name="prometheus", sha256=sha256(SECRET.encode()).hexdigest()),)
    rack = RACK.model_copy(
        update={
            "gateway": Gateway(host="hub", port=gateway_port, keys=keys),
            "web": Web(port=page_port),
        }
    )
    write(folder, files(rack, folder, Scraper(HUB)).files)
    (folder / "keys").mkdir()
    (folder / "keys" / "labctl-gateway").write_text(SECRET)
    return folder / "prometheus.yml"


def panels() -> dict[str, list[str]]:
    """Return the expressions of the dashboard by their panel, for all racks and hosts."""
    return {
        panel["title"]: [
            one["expr"].replace('"$rack"', '".*"').replace('"$host"', '".*"') for one in panel["targets"]
        ]
        for panel in json.loads(dashboard())["panels"]
    }


async def _some_requests(gateway: Rack) -> None:
    for stream in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
        assert (await gateway.post("/v1/chat/completions", {**CHAT, **stream})).status == 200
    assert (await gateway.post("/v1/chat/completions", {"model": "nothing"})).status == 404


def _look(found: Prometheus) -> tuple[dict[str, float], set[str], set[tuple[str, str]]]:
    """Wait until every panel shows something; return what is seen, all names, and the alerts."""
    found.until_nothing(
        lambda: [title for title, each in panels().items() if not any(found.ask(expr) for expr in each)]
    )
    seen = {expr: found.value(expr) or 0.0 for expr in SEEN}
    return seen, found.names(), found.alerts()


def _hosts() -> dict[str, HostStatus]:
    asleep = HostStatus("mini", Mode.ASLEEP, NOON, "quiet", counts=COUNTS)
    return {"rig": replace(measuring(), leases=1, usual_s=40.0), "mini": asleep}


async def _watched(folder: Path, port: int) -> tuple[dict[str, float], set[str], set[tuple[str, str]]]:
    """Run a gateway, and have Prometheus see it and the page on that port; return what it saw."""
    async with Double() as double:
        async with assembled(folder, table_for(upstream(double), folder=folder)) as gateway:
            await _some_requests(gateway)
            config = written(folder / "prometheus", port, gateway.port)
            with prometheus(config, folder) as found:
                await asyncio.to_thread(found.until_nothing, found.not_up)
                await _some_requests(gateway)
                return await asyncio.to_thread(_look, found)


def test_prometheus_sees_the_rack_and_every_panel_shows_something(tmp_path: Path) -> None:
    service = Scripted(names=("rig", "mini"), statuses=_hosts())
    with served(tmp_path, service, adds=lambda ask: ask) as address:
        seen, names, alerts = asyncio.run(_watched(tmp_path, int(address.rpartition(":")[2])))
        for thread in threading.enumerate():
            if thread.name == "store":  # the gateway's, which ends in its own time
                thread.join(10)
    assert seen == SEEN
    assert alerts <= {("LabctlHealthStale", "")}  # the test's run of the checks was at another time
    assert sorted(named() - names) == []
    assert {name for name in names if name.startswith("labctl_gateway_")} <= _told_of_gateways()


def named() -> set[str]:
    """Return the metrics that rules and panels name."""
    expressions = [one.expr for one in (*ALERTS, *RECORDED)]
    expressions += [expr for each in panels().values() for expr in each]
    found = {name for expr in expressions for name in NAMED.findall(re.sub(r'"[^"]*"', '""', expr))}
    assert len(found) > 30
    return found


def _told_of_gateways() -> set[str]:
    """Return the series of a gateway, as docs/monitoring.md lists them."""
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(labctl_gateway_\w+)` \| ([^|]*) \|", text, re.M)
    parts = ("_bucket", "_sum", "_count")
    return {name + part for name, labels in rows for part in (parts if "`le`" in labels else ("",))}


def test_promtool_finds_no_fault_with_the_page_and_the_files(tmp_path: Path) -> None:
    asleep, _ = metrics(status()).page()
    whole, _ = metrics(status(measuring()), Findings(NOON, (finding(),))).page()
    for body in (asleep, whole):
        done = subprocess.run(
            [program("promtool"), "check", "metrics"],
            input=body,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    config = written(tmp_path / "prometheus", 8090, 8000)
    done = subprocess.run(
        [program("promtool"), "check", "config", str(config)], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS) + len(RECORDED)} rules found".encode() in done.stdout
