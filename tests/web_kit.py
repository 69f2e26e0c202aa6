"""A web page over a scripted controller, behind the controller's real door and uvicorn's real server."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.cli.web_run import asks
from labctl.controller.answers import HostStatus, Ticket
from labctl.controller.api.peers import Allowed
from labctl.domain.health.results import Finding, Findings
from labctl.domain.health.terms import Level, Result
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.web_table import Key, Meter, Share, Table
from labctl.ports.store import Happening
from labctl.web import app, serving
from labctl.web.sight import Ask, Seen, Sources
from labctl.web.stream import Streams
from scripted_service import NOON, Scripted, hold
from scripted_service import serving as keeping

ADMIN, LOOKER = "k-admin-0123456789abcdef", "k-looker-0123456789abcdef"
KEYS = tuple(
    Key(name, hashlib.sha256(value.encode()).hexdigest(), acts)
    for name, value, acts in (("ann", ADMIN, True), ("prometheus", LOOKER, False))
)
HOSTS = ("gpu-box", "nas", "rig")


class Nobody:
    """Is told how the server is, and keeps it."""

    def __init__(self) -> None:
        self.up = threading.Event()

    def ready(self, status: str) -> None:
        self.up.set()

    def alive(self, status: str) -> None: ...

    def stopping(self) -> None: ...


def table(port: int = 0, socket: str = "/nowhere", **changes: Any) -> Table:
    rig = Share("rig", 60.0, {"GPU-1": 1.0}, 1.0)
    wall = (Share("rig", 66.7, {}, 1.11), Share("gpu-box", 90.0, {}, 1.11))
    made = Table(
        1, "desk", "127.0.0.1", port, socket, "/nowhere", KEYS,
        meters=(
            Meter("psu0 of rig", "psu", 1200.0, (rig,)),
            Meter("circuit office", "circuit", 2944.0, wall),
        ),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


TELEMETRY = {
    "wall": NOON,
    "gpus": [
        {"uuid": "GPU-1", "pci": "0000:01:00.0", "name": "RTX 3090", "asleep": False,
         "power_w": 248.4, "cap_w": 280.0, "busy_percent": 97, "temperature_c": 66.0,
         "vram_mib": 24576, "vram_used_mib": 21300},
        {"uuid": "GPU-2", "pci": "0000:02:00.0", "name": "RTX 3090", "asleep": True},
    ],
    "engines": [
        {"service": "chat", "kind": "llama-server", "active": True,
         "models": ["qwen3-30b-a3b"], "running": 2, "waiting": 1, "tokens": 81230.0},
        {"service": "old", "kind": "ollama", "active": False, "models": []},
    ],
}  # fmt: skip


@dataclass
class Rack(Scripted):
    """A controller with three hosts, one asleep; what is woken wakes until the test says that it is up."""

    names: tuple[str, ...] = HOSTS
    moved: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.become("gpu-box", Mode.ASLEEP, "quiet for 30 min", since=NOON - 7 * 3600)
        self.become("nas", Mode.READY, "it is always on", since=NOON - 9 * 86400)
        self.become("rig", Mode.READY, "2 requests run", since=NOON - 5 * 3600)
        self.statuses["rig"] = dataclasses.replace(
            self.statuses["rig"],
            talking=True,
            holds=(hold(12),),
            leases=1,
            next="sleeps 30 min after the last",
        )
        for hours, host, before, after, why in (
            (23, "rig", "verifying", "ready", "the gate has passed"),
            (20, "rig", "ready", "draining", "quiet for 30 min"),
            (19.9, "rig", "draining", "asleep", "dark by two signs"),
            (14, "gpu-box", "waking", "ready", "the gate has passed"),
            (7, "gpu-box", "draining", "asleep", "dark by two signs"),
            (5.1, "rig", "asleep", "waking", "ann wants it"),
            (5, "rig", "waking", "ready", "the gate has passed"),
        ):
            text = f"{before} -> {after}: {why}"
            self.log.append(Happening(len(self.log) + 1, NOON - hours * 3600, host, "mode", text))

    def become(self, host: str, mode: Mode, because: str, since: float = NOON) -> None:
        if host in self.statuses:
            text = f"{self.statuses[host].mode} -> {mode}: {because}"
            self.log.append(Happening(len(self.log) + 1, since, host, "mode", text))
        self.statuses[host] = HostStatus(host, mode, since, because, usual_s=42.0)

    def wake(self, hosts: Sequence[str], *, why: str, by: str, lasts_s: float = 900.0) -> tuple[Ticket, ...]:
        found = super().wake(hosts, why=why, by=by, lasts_s=lasts_s)
        for host in hosts:
            self.become(host, Mode.WAKING, "round 1 was sent")
        self.moved.set()
        return found


def with_telemetry(ask: Ask) -> Ask:
    """Add what the rig measures, and what energy was used, to what a controller says."""

    def more(verb: str, by: str, fields: Any) -> Sequence[Any]:
        if verb == "energy":
            return [ENERGY]
        said = ask(verb, by, fields)
        if verb == "status":
            for one in said[-1]["hosts"]:
                one["telemetry"] = TELEMETRY if one["host"] == "rig" else None
        return said

    return more


ENERGY = {
    "done": True, "since": NOON - 30 * 86400, "until": NOON, "currency": "EUR",
    "rack": {"kwh": 78.2, "money": 23.46, "saved": {"kwh": 41.3, "money": 12.39, "estimated": True}},
    "hosts": [{"host": "rig", "kwh": 52.9, "money": 15.87}, {"host": "gpu-box", "kwh": 25.3, "money": 7.59}],
}  # fmt: skip
FINDINGS = Findings(
    NOON - 120,
    (
        Finding(Result("disk-space", Level.WARN, "nas", "/models", "9 % or 42.0 GiB are left (models)",
                       "make room: labctl models gc nas, journalctl --vacuum-size=500M, or a larger disk"),
                NOON - 5400),
        Finding(Result("gpu-present", Level.OK, "rig", "slot0", "it is there"), NOON - 86400),
    ),
)  # fmt: skip


def sources(ask: Ask, findings: Findings | None = FINDINGS) -> Sources:
    return Sources(ask, lambda: findings, lambda: NOON, time.monotonic)


def seen(ask: Ask) -> Seen:
    return Seen(NOON, "", ask("status", "", {})[-1])


def web_only() -> Allowed:
    """Return the rights of the web page's user, for whoever runs the tests."""
    return Allowed(frozenset(), (), frozenset(), frozenset({os.geteuid()}))


@contextmanager
def served(
    folder: Path, service: Scripted, *, adds: Callable[[Ask], Ask] = with_telemetry, **changes: Any
) -> Iterator[str]:
    """Serve the page of a scripted controller on loopback; yield its address.

    ``adds`` adds to what the controller says.
    """
    path = folder / "socket"
    told = Nobody()
    with keeping(path, service, who=web_only()):
        made = table(socket=str(path), **changes)
        sock = serving.listening(made)
        made = dataclasses.replace(made, port=sock.getsockname()[1])
        streams = Streams(every_s=0.05)
        config = serving.configured(made, folder, app.make(made, sources(adds(asks(path))), streams))
        server = serving.Server(config, streams, told)
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            assert told.up.wait(20)
            yield f"http://localhost:{made.port}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
            # Threads that asked the controller end when their loop has.
            until(lambda: not any(one.name.startswith("AnyIO") for one in threading.enumerate()))


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
