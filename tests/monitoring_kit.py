"""What the tests of metrics share: a rack, its page as Prometheus reads it, and Prometheus' own programs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from labctl.controller.answers import Counts, HostStatus, RackStatus
from labctl.controller.api import shown
from labctl.domain.health.results import Finding, Findings
from labctl.domain.health.terms import Level, Result
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.telemetry_words import telemetry_of
from labctl.domain.web_table import Meter, Share
from labctl.inventory import Controller, Gateway, Host, Rack, WakeOnLan, Web
from labctl.web.metrics import Metrics, Sources

NOON = 1_800_000_000.0
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

HUB = Host(name="hub", address="10.0.0.2", roles=("always-on",))
RIG = Host(name="rig", address="10.0.0.3", wake=WakeOnLan(mac="52:54:00:66:00:11"))
RACK = Rack(
    name="desk",
    hosts=(HUB, RIG),
    controller=Controller(host="hub"),
    controller_key="keys/controller.pub",
    gateway=Gateway(host="hub", port=8000),
    web=Web(port=8090),
)

TELEMETRY: dict[str, Any] = {
    "wall": NOON - 2,
    "gpus": [
        {
            "uuid": "GPU-1",
            "pci": "0000:01:00.0",
            "name": "RTX 3090",
            "asleep": False,
            "power_w": 27.5,
            "energy_mj": 812_345,
            "cap_w": 280.0,
            "busy_percent": 50,
            "temperature_c": 31.0,
            "vram_mib": 24576,
            "vram_used_mib": 1024,
        },
        {"uuid": "", "pci": "0000:02:00.0", "name": "", "asleep": True, "power_w": None},
    ],
    "rapl_uj": {"package-0": 5_000_000},
    "rapl_max_uj": {"package-0": 262_143_328_850},
    "engines": [
        {
            "service": "chat",
            "kind": "llama-server",
            "active": True,
            "models": ["qwen"],
            "running": 0,
            "waiting": 0,
            "tokens": 81230.0,
        }
    ],
}

COUNTS = Counts({"wished": 3, "passed": 2, "refused": 1}, (10.0, 60.0), (1, 1, 0), 47.5)


def status(*hosts: HostStatus, **more: Any) -> dict[str, Any]:
    """Return what the controller answers to ``status``, as it comes over its socket."""
    told = {"leader": "hub pid 1", "leading": True, "store": "", "paused": "", "ticked_s": 2.0, **more}
    said: dict[str, Any] = json.loads(json.dumps(shown.rack(RackStatus(NOON, hosts=hosts, **told), hosts)))
    return said


def host(name: str = "rig", mode: Mode = Mode.READY, **more: Any) -> HostStatus:
    more.setdefault("talking", mode in (Mode.READY, Mode.DRAINING))
    return HostStatus(name, mode, NOON - 60, "of a test", counts=COUNTS, **more)


def measuring() -> HostStatus:
    """Return a host that serves, and tells what it measured."""
    return host(telemetry=telemetry_of(TELEMETRY))


def finding(level: Level = Level.CRIT, code: str = "disk-space", subject: str = "/srv") -> Finding:
    return Finding(Result(code, level, "rig", subject, "it is full"), NOON - 600)


METERS = (
    Meter("psu0 of rig", "psu", 1200.0, (Share("rig", 60.0, {"GPU-1": 1.0}, 1.0),)),
    Meter("circuit office", "circuit", 2944.0, (Share("rig", 60.0, {}, 1.1), Share("box", 90.0, {}, 1.0))),
)
Said = Mapping[str, Any] | LabctlError


def metrics(said: Said | Callable[[], Said], found: Findings | None = None) -> Metrics:
    """Return the page of a controller that says this, or fails so."""

    def ask() -> Mapping[str, Any]:
        answer = said() if callable(said) else said
        if isinstance(answer, LabctlError):
            raise answer
        return answer

    return Metrics(Sources(ask, lambda: found, lambda: NOON, METERS))


def read(page: bytes) -> Samples:
    """Return the samples of a page, as Prometheus' own parser has them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def program(name: str) -> str:
    """Return the path of prometheus or promtool; skip the test where there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    unpacked = cache / "labctl" / "prometheus" / "usr" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"there is no {name}: ./lab test unpacks it")
        pytest.skip(f"no {name}; `./lab test` unpacks it")
    return found
