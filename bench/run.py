"""Compare labctl, stock pyinfra and tuned Ansible on the same hosts of a virtual rack, in one run.

    .venv/bin/python bench/run.py --hosts 1,5,20 --repeat 5 --write-docs

Each repetition takes the tools in turn, so that whatever else the machine does hits all alike; the one that
starts changes from repetition to repetition. A turn is: fresh hosts, a first run, a run that finds nothing to
change. The run stops at the first sign that the comparison would not be fair: a tool that fails, leaves an
end state that differs from the others', or changes something the second time. Needs root, like the lab.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from bench import report  # noqa: E402
from bench.hosts import Hosts, describe  # noqa: E402
from bench.measure import Command, Cost, Meter  # noqa: E402
from bench.tools import BIN, TOOLS, Tool, environment, prepare, version, write_rack  # noqa: E402

from labctl.domain.problem import LabctlError  # noqa: E402
from labctl.lab import Lab, LabHost  # noqa: E402

RESULTS = REPO / "bench/results"
START_RUNS = 15


class Unfair(Exception):
    """The tools did not do the same work, so comparing their times would mean nothing."""


class Bench:
    """One benchmark run; ``records`` is written to ``file`` after every measurement."""

    def __init__(self, lab: Lab, work: Path, file: Path, options: argparse.Namespace) -> None:
        self.hosts = Hosts(lab, work)
        self._lab, self._work, self._file, self._options = lab, work, file, options
        self._meter = Meter(lab.spec.name + "-client")
        self.records: list[dict[str, Any]] = []
        self._meta = about(options)

    def close(self) -> None:
        """Remove what was made for measuring."""
        self._meter.close()

    def all(self) -> None:
        """Measure everything."""
        self._starts()
        self.hosts.fetch()
        for count in self._options.hosts:
            chosen = self._lab.spec.hosts[:count]
            tools = prepare(self._lab, chosen, self._work / f"n{count}")
            wanted: dict[str, str] = {}
            for turn in range(self._options.repeat):
                shift = turn % len(tools)
                for tool in (*tools[shift:], *tools[:shift]):
                    self._turn(tool, count, turn, wanted)
                self._floor(chosen, turn)
            self._memory(tools, count)

    def _turn(self, tool: Tool, count: int, turn: int, wanted: dict[str, str]) -> None:
        self.hosts.fresh(count)
        first = self._measure(tool, count, "first", turn)
        state = self.hosts.state(count)
        wanted = wanted or wanted.update(state) or wanted
        if state != wanted:
            differ = [name for name in state if state[name] != wanted[name]]
            raise Unfair(f"{tool.name} leaves {', '.join(differ)} in another state than the first tool did")
        if not first:
            raise Unfair(f"{tool.name} says that it changed nothing on fresh hosts")
        if changes := self._measure(tool, count, "again", turn):
            raise Unfair(f"{tool.name} changes {changes} things when run again")

    def _measure(self, tool: Tool, count: int, phase: str, turn: int, *, watch: bool = False) -> int:
        self.hosts.ready(count)
        cost = self._meter.run(tool.command, self.hosts.groups(count), watch=watch)
        (self._work / f"{tool.name}.log").write_text(cost.output)
        try:
            changes = tool.changes(cost.output)
        except ValueError as error:
            raise Unfair(f"{error}; it said:\n{cost.output[-3000:]}") from None
        if cost.status != 0:
            raise Unfair(f"{tool.name} ended with {cost.status} and said:\n{cost.output[-3000:]}")
        self._note(tool.name, count, phase, turn, cost, changes=changes)
        return changes

    def _floor(self, chosen: tuple[LabHost, ...], turn: int) -> None:
        spec = self._lab.spec
        known = self._work / f"n{len(chosen)}" / "known_hosts"
        script = (sys.executable, "-m", "bench.floor", spec.login_user, str(spec.operator_key), str(known))
        command = Command((*script, *(host.address for host in chosen)), REPO, environment(self._work))
        self.hosts.ready(len(chosen))
        cost = self._meter.run(command, self.hosts.groups(len(chosen)))
        if cost.status != 0:
            raise Unfair(f"the floor could not be measured:\n{cost.output[-2000:]}")
        self._note("floor", len(chosen), "again", turn, cost, **json.loads(cost.output))

    def _memory(self, tools: tuple[Tool, ...], count: int) -> None:
        """Look at memory in runs of their own; each tool finds what another one made, and changes nothing."""
        self.hosts.fresh(count)
        self._measure(tools[0], count, "first-memory", 0, watch=True)
        for tool in tools:
            if changes := self._measure(tool, count, "again-memory", 0, watch=True):
                raise Unfair(f"{tool.name} changes {changes} things that {tools[0].name} had made")

    def _starts(self) -> None:
        key = self._lab.spec.operator_key
        assert key is not None
        many = tuple(LabHost(f"h{n:03d}", f"10.1.{n // 100}.{n % 100 + 1}", "") for n in range(100))
        known = self._work / "many_known_hosts"
        known.write_text("".join(f"{h.address} {self._lab.host_key('n01')}\n" for h in many))
        rack = write_rack(many, self._work / "many", (self._lab.spec.login_user, key, known))
        labctl = str(BIN / "labctl")
        for name, argv in (("--help", ("--help",)), ("validate 100 hosts", ("validate", str(rack)))):
            command = Command((labctl, *argv), REPO, environment(self._work / "many"))
            for turn in range(START_RUNS):
                cost = self._meter.run(command, [])
                if cost.status != 0:
                    raise Unfair(f"labctl {name} ended with {cost.status}:\n{cost.output}")
                self._note(f"labctl {name}", 0, "start", turn, cost)

    def _note(self, tool: str, count: int, phase: str, turn: int, cost: Cost, **more: Any) -> None:
        plain = dataclasses.asdict(cost)
        del plain["output"]
        record = {"tool": tool, "hosts": count, "phase": phase, "turn": turn, **plain, **more}
        self.records.append(record)
        document = {"about": self._meta, "records": self.records}
        self._file.write_text(json.dumps(document, indent=1))
        print(
            f"{datetime.now(UTC):%H:%M:%S} {tool:26} n={count:<3} {phase:12} wall {cost.wall_s:7.2f}"
            f" client {cost.client_cpu_s:6.2f} hosts {cost.host_cpu_s:7.2f} foreign {cost.foreign:4.0%}",
            flush=True,
        )


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return what someone needs to know who compares this run with another one."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    git = subprocess.run(
        ["git", "-C", str(REPO), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": git.stdout.strip(),
        "cpu": model,
        "cores": len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {tool: version(tool) for tool in TOOLS},
        "user": options.user,
        "repeat": options.repeat,
        "hosts": options.hosts,
        "command": "bench/run.py " + " ".join(sys.argv[1:]),
    }


@contextmanager
def workplace() -> Iterator[Path]:
    """Yield a private directory that goes away; its path is short, since ssh puts sockets there."""
    with tempfile.TemporaryDirectory(prefix="lb", dir="/var/tmp") as folder:
        yield Path(folder)


def arguments() -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--hosts", default="1,5,20", help="numbers of hosts, separated by commas")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each tool for each number of hosts")
    parser.add_argument(
        "--quick", action="store_true", help="one turn with 1 and 2 hosts: does it still work?"
    )
    parser.add_argument("--user", default="admin", help="log in as; anyone but root becomes root by sudo")
    parser.add_argument("--network", default="10.71.0.0/24", type=IPv4Network, help="of the virtual rack")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing; show these results")
    options = parser.parse_args()
    if options.quick:
        options.hosts, options.repeat = "1,2", 1
    options.hosts = sorted({int(number) for number in options.hosts.split(",")})
    return options


def measure(options: argparse.Namespace) -> Path:
    """Run the benchmark and return the file with its results."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    started = time.monotonic()
    with workplace() as work:
        spec = describe(max(options.hosts), options.network, options.user, work)
        with Lab(spec) as lab:
            bench = Bench(lab, work, file, options)
            try:
                bench.all()
            finally:
                bench.close()
    print(f"took {time.monotonic() - started:.0f} s; results: {file}")
    return file


def main() -> int:
    """Measure or render; return the exit status."""
    options = arguments()
    try:
        file = options.render or measure(options)
    except (Unfair, LabctlError) as error:
        print(error, file=sys.stderr)
        return 1
    text = report.render(json.loads(file.read_text()))
    print(text)
    file.with_suffix(".md").write_text(text)
    if options.write_docs:
        report.write_into(REPO / "docs/performance.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
