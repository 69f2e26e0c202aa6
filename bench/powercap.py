"""Time ``labctl powercap`` against ``ansible -m command`` on the same hosts of a virtual rack, in one run.

    .venv/bin/python bench/powercap.py --hosts 20 --repeat 5

Both give every host the same order, through the same agent, as root by sudo, over one SSH session a host,
checked strictly against the same pinned keys; Ansible is as tuned as in ``bench/tools.py``. Every turn orders
other watts, so that limits are really written. Reported are wall times, what labctl's wall time is as a
multiple of its own slowest host (the promise is at most 2), and of one host that is asked alone. The hosts
run on this machine and share its processors with the client, so the slowest host is slow because of the
others. Needs root, like the lab, and hosts with fake AMD cards.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from ipaddress import IPv4Network
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from bench.hosts import Hosts, describe  # noqa: E402
from bench.measure import Command, Meter  # noqa: E402
from bench.tools import BIN, Tool, environment, prepare  # noqa: E402

from labctl.domain import cap_json  # noqa: E402
from labctl.domain.capping import Order  # noqa: E402
from labctl.domain.problem import LabctlError  # noqa: E402
from labctl.lab import Lab, LabHost  # noqa: E402
from labctl.render.agent_bundle import PATH as AGENT  # noqa: E402

MODEL = "RX 7900 XTX"
CARDS = 2
PROMISE = 2.0
_WATTS = 275  # the fake card takes 272 to 348 W


class Unfair(Exception):
    """A run did not do what it was measured for."""


def write_rack(hosts: tuple[LabHost, ...], folder: Path, key: Path, known: Path) -> Path:
    """Write a rack file in which every host has cards."""
    (folder / "keys").mkdir(parents=True)
    for suffix in ("", ".pub"):
        (folder / f"keys/operator{suffix}").write_bytes(Path(f"{key}{suffix}").read_bytes())
        (folder / f"keys/operator{suffix}").chmod(0o600)
    (folder / "known_hosts").write_text(known.read_text())
    gpus = ", ".join(f'Gpu(model="{MODEL}", slot="slot{n}")' for n in range(CARDS))
    rows = "".join(f'    Host(name="{h.name}", address="{h.address}", gpus=[{gpus}]),\n' for h in hosts)
    (folder / "rack.py").write_text(
        "from labctl.inventory import Gpu, Host, Rack, Ssh\n\n"
        f'rack = Rack(name="bench", ssh=Ssh(user="admin", key="keys/operator"), hosts=[\n{rows}])\n'
        "globals().update(rack.groups())\n"
    )
    return folder / "rack.py"


class Race:
    """The hosts, the two ways to reach them, and the times that they took."""

    def __init__(self, lab: Lab, work: Path) -> None:
        self._hosts = Hosts(lab, work)
        self._count = len(lab.spec.hosts)
        self._meter = Meter(lab.spec.name + "-client")
        tools = prepare(lab, lab.spec.hosts, work / "tools")
        self._ansible: Tool = next(tool for tool in tools if tool.name == "ansible")
        key = lab.spec.operator_key
        assert key is not None
        self._home = work / "home"
        self.rack = write_rack(lab.spec.hosts, self._home / "inventory", key, work / "tools/known_hosts")
        self.times: dict[str, list[float]] = {"labctl": [], "ansible": [], "slowest": [], "alone": []}
        self.client_cpu: dict[str, list[float]] = {"labctl": [], "ansible": []}

    def close(self) -> None:
        """Remove what was made for measuring."""
        self._meter.close()

    def setup(self) -> None:
        """Put the agent and its caps on every host."""
        argv = [str(BIN / "labctl"), "apply", str(self.rack), "--only", "agent,power", "--yes"]
        subprocess.run(argv, env=environment(self._home), check=True, stdout=subprocess.DEVNULL)

    def turn(self, number: int) -> None:
        """Let each order a cap once; who begins changes from turn to turn."""
        both = [self._labctl, self._by_ansible]
        for step, way in enumerate(both if number % 2 else both[::-1]):
            way(_WATTS + 3 * number + step)
        self.times["alone"].append(self._powercap(_WATTS + 3 * number + 2, "n01")[0])

    def _labctl(self, watts: int) -> None:
        wall, slowest, cpu = self._powercap(watts)
        self.times["labctl"].append(wall)
        self.times["slowest"].append(slowest)
        self.client_cpu["labctl"].append(cpu)

    def _powercap(self, watts: int, *hosts: str) -> tuple[float, float, float]:
        argv = (str(BIN / "labctl"), "powercap", str(watts), *hosts, "-i", str(self.rack), "--json")
        self._hosts.ready(self._count)
        cost = self._meter.run(
            Command(argv, REPO, environment(self._home)), self._hosts.groups(self._count), limit_s=120
        )
        if cost.status != 0:
            raise Unfair(f"labctl ended with {cost.status} and said:\n{cost.output[-3000:]}")
        document = json.loads(cost.output)
        states = {card["status"] for host in document["hosts"] for card in host["cards"]}
        if states != {"changed"}:
            raise Unfair(f"labctl left cards {', '.join(sorted(states)) or 'alone'}, instead of changing all")
        return cost.wall_s, max(host["seconds"] for host in document["hosts"]), cost.client_cpu_s

    def _by_ansible(self, watts: int) -> None:
        order = json.dumps(cap_json.order_document(Order(watts=watts, by="bench")))
        arguments = json.dumps({"argv": [AGENT, "caps", "--order"], "stdin": order})
        argv = (str(BIN / "ansible"), "bench", "--become", "-m", "command", "-a", arguments)
        self._hosts.ready(self._count)
        cost = self._meter.run(
            dataclasses.replace(self._ansible.command, argv=argv),
            self._hosts.groups(self._count),
            limit_s=300,
        )
        if cost.status != 0 or cost.output.count('"changed"') < self._count * CARDS:
            raise Unfair(f"ansible ended with {cost.status} and said:\n{cost.output[-3000:]}")
        self.times["ansible"].append(cost.wall_s)
        self.client_cpu["ansible"].append(cost.client_cpu_s)


def report(race: Race, hosts: int) -> str:
    """Return the medians, and their ratios."""
    middle = {name: statistics.median(found) for name, found in race.times.items()}
    cpu = {name: statistics.median(found) for name, found in race.client_cpu.items()}
    ratio = statistics.median(
        wall / slowest for wall, slowest in zip(race.times["labctl"], race.times["slowest"], strict=True)
    )
    return "\n".join(
        (
            f"{hosts} hosts of {CARDS} cards, median of {len(race.times['labctl'])}:",
            f"labctl powercap      {middle['labctl']:6.2f} s wall, {cpu['labctl']:5.2f} s CPU here",
            f"ansible -m command   {middle['ansible']:6.2f} s wall, {cpu['ansible']:5.2f} s CPU here",
            f"ansible / labctl     {middle['ansible'] / middle['labctl']:6.2f}",
            f"slowest host         {middle['slowest']:6.2f} s; wall / slowest host {ratio:.2f}"
            f" (promise: at most {PROMISE:g}{'' if ratio <= PROMISE else ', BROKEN'})",
            f"one host alone       {middle['alone']:6.2f} s wall",
        )
    )


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--repeat", type=int, choices=range(1, 25), metavar="N", default=5)
    parser.add_argument("--network", default="10.86.0.0/24", type=IPv4Network, help="of the virtual rack")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lb", dir="/var/tmp") as folder:
        spec = describe(options.hosts, options.network, "admin", Path(folder))
        with_cards = tuple(dataclasses.replace(host, gpus=(MODEL,) * CARDS) for host in spec.hosts)
        with Lab(dataclasses.replace(spec, hosts=with_cards)) as lab:
            race = Race(lab, Path(folder))
            try:
                race.setup()
                for number in range(options.repeat):
                    race.turn(number)
            except (Unfair, LabctlError) as error:
                print(error, file=sys.stderr)
                return 1
            finally:
                race.close()
            print(report(race, options.hosts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
