"""A real Prometheus for tests: Debian's, unpacked, on loopback, gone when the test ends."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from monitoring_kit import program

PATIENCE_S = 30.0


class Prometheus:
    """One that runs; asked by its HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return what an expression is now; an expression that cannot be parsed is an error."""
        said = self._get("/api/v1/query?" + urlencode({"query": expr}))
        assert said["status"] == "success", said
        result: list[dict[str, Any]] = said["data"]["result"]
        return result

    def value(self, expr: str) -> float | None:
        """Return the one value of an expression; None: it has none."""
        found = self.ask(expr)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def until_nothing(self, missing: Callable[[], Collection[str]]) -> None:
        """Wait until nothing is missing any more; each scrape is a second after the one before."""
        end = time.monotonic() + PATIENCE_S
        while left := missing():
            assert time.monotonic() < end, f"Prometheus never saw {left}"
            time.sleep(0.1)

    def names(self) -> set[str]:
        """Return the names of all series that it has."""
        return set(self._get("/api/v1/label/__name__/values")["data"])

    def not_up(self) -> list[str]:
        """Return the jobs whose target is not scraped, each with the reason; "none" before there are any."""
        active = self._get("/api/v1/targets?state=active")["data"]["activeTargets"]
        down = [f"{one['labels']['job']}: {one['lastError']}" for one in active if one["health"] != "up"]
        return down if active else ["none"]

    def alerts(self) -> set[tuple[str, str]]:
        """Return the alerts that are true now, those that are not so for long included, with their hosts."""
        found = [one["labels"] for one in self._get("/api/v1/alerts")["data"]["alerts"]]
        return {(one["alertname"], one.get("host", "")) for one in found}

    def _get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """Run one by a configuration, whose scrapes come every second."""
    text = config.read_text()
    assert text.count("15s") == 2
    config.write_text(text.replace("15s", "1s"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (data / "prometheus.log").open("wb") as log:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        found = Prometheus(port)
        end = time.monotonic() + PATIENCE_S
        while not found.ready():
            assert running.poll() is None and time.monotonic() < end, (data / "prometheus.log").read_text()
            time.sleep(0.05)
        yield found
    finally:
        running.terminate()
        running.wait(20)
