"""A worker that speaks the protocol and plays a scenario instead of connecting anywhere.

Run as ``python fake_worker.py SCENARIO.json``. The scenario holds, per host, how many operations change
something (``changes``), are conditional, or stay (``unchanged``), and how the host or the whole worker
misbehaves (``fault``). Every order and every start is appended to the scenario's ``record`` file. It never
sleeps: what is slow lasts until an order comes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from labctl.provision.events import (
    Cancel,
    Connected,
    Event,
    Go,
    HostEnded,
    HostStatus,
    Job,
    Log,
    OpEnded,
    OpStarted,
    Order,
    Planned,
    PlannedOp,
    WorkerEnded,
    decode_order,
    encode,
)


class Worker:
    def __init__(self, scenario: dict[str, Any]) -> None:
        self.scenario = scenario
        self.ended: set[str] = set()
        self.note({"started": os.getpid()})

    def note(self, what: dict[str, Any]) -> None:
        with Path(self.scenario["record"]).open("a") as record:
            record.write(json.dumps(what) + "\n")

    def emit(self, event: Event) -> None:
        sys.stdout.write(encode(event))
        sys.stdout.flush()

    def order(self) -> Order | None:
        line = sys.stdin.readline()
        if not line:
            self.note({"eof": os.getpid()})
            return None
        self.note({"pid": os.getpid(), **json.loads(line)})
        return decode_order(line)

    def host(self, name: str) -> dict[str, Any]:
        return {
            "changes": 2,
            "conditional": 0,
            "unchanged": 3,
            "fault": "",
            **self.scenario["hosts"].get(name, {}),
        }

    def plan(self, name: str) -> None:
        host = self.host(name)
        match host["fault"]:
            case "unreachable":
                self.end(name, "unreachable", "timeout", "no answer within 10 s", "is it on?")
                return
            case "die-before-plan":
                os.kill(os.getpid(), signal.SIGKILL)
            case "complain-and-die":
                sys.stderr.write("Traceback ...\nMemoryError: no memory left\n")
                sys.exit(3)
            case "garbage":
                sys.stdout.write("Hello, I am not an event\n")
                sys.stdout.flush()
            case "half-a-line":
                sys.stdout.write('{"ev":"planned","host"')
                sys.stdout.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            case "stranger":
                self.emit(Connected("someone-else", 0.1))
            case "hang-before-plan":
                self.deaf()
        self.emit(Connected(name, 0.1))
        self.emit(Log("warning", "its clock is wrong", name)) if host.get("warns") else None
        diff = host.get("diff", "--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-old\n+new\n")
        states: list[Any] = ["change"] * host["changes"] + ["conditional"] * host["conditional"]
        states += ["no-change"] * host["unchanged"]
        ops = tuple(
            PlannedOp(index, f"Base | step {index}", state, diff if state == "change" else "", ("sh",))
            for index, state in enumerate(states)
        )
        self.emit(Planned(name, ops, 0.2))

    def deaf(self) -> None:
        """Take orders and do nothing about them, not even at the end of file."""
        while self.order() is not None:
            pass
        signal.pause()

    def execute(self, name: str) -> None:
        host = self.host(name)
        total = host["changes"]
        for index in range(total):
            op = (name, index, f"Base | step {index}")
            self.emit(OpStarted(*op))
            if index == host.get("fail_at", total - 1):
                match host["fault"]:
                    case "fail":
                        self.emit(OpEnded(*op, "failed", 0.3, "some output", "E: \x1b[31mit\x1b[0m broke"))
                        return self.end(
                            name, "failed", "op-failed", "it broke", "mend it", failed=1, changed=index
                        )
                    case "die-midway":
                        os.kill(os.getpid(), signal.SIGKILL)
                    case "slow":
                        return self.slow(name, op, patience=1)
                    case "stubborn":
                        return self.slow(name, op, patience=2)
                    case "deaf":
                        self.deaf()
            self.emit(OpEnded(*op, "changed", 0.1))
        return self.end(name, "ok", changed=total, unchanged=host["unchanged"])

    def slow(self, name: str, op: tuple[str, int, str], patience: int) -> None:
        """Run an operation that ends only when it has been asked to ``patience`` times."""
        self.note({"running": op[2]})
        while patience:
            order = self.order()
            if order is None:
                sys.exit(0)
            patience -= isinstance(order, Cancel)
        self.emit(OpEnded(*op, "changed", 9.9))
        self.end(name, "interrupted", "interrupted", "interrupted", changed=op[1] + 1, not_run=3)

    def end(
        self, name: str, status: HostStatus, code: str = "", reason: str = "", hint: str = "", **counts: Any
    ) -> None:
        self.ended.add(name)
        end = HostEnded(name, status, code, reason, hint, seconds=1.5)
        self.emit(replace(end, **counts))

    def run(self) -> None:
        job = self.order()
        assert isinstance(job, Job)
        for name in job.hosts:
            self.plan(name)
        left = [name for name in job.hosts if name not in self.ended]
        if job.execute and job.wait_for_go and left:
            order = self.order()
            if order is None:
                return
            if isinstance(order, Cancel):
                for name in left:
                    self.end(name, "interrupted", "interrupted", "interrupted")
                left = []
            if isinstance(order, Go):
                left = [name for name in left if name in order.hosts]
        for name in left:
            if job.execute:
                self.execute(name)
            else:
                self.end(name, "ok", unchanged=self.host(name)["unchanged"])
        self.emit(WorkerEnded(0.1, 50_000))
        if any(self.host(name)["fault"] == "linger" for name in job.hosts):
            self.deaf()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Worker(json.loads(Path(sys.argv[1]).read_text())).run()
