"""The gateway beside nginx, HAProxy and LiteLLM, on the same upstream, in one run.

    python -m bench.gateway [--quick] [--only NAME,...] [--rounds N] [--seed N] [--json FILE] [--write-docs]

Needs gcc; fetches nginx and HAProxy (Debian's packages, unpacked, not installed) and LiteLLM (its package, in
an environment of its own) the first time. A full run takes about five minutes, a quick one under one. What
can't be had is left out, and said. Traffic stays on loopback. Returns 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.gateway import machine, ours, peers, report, rounds, shared

from labctl.wiring import cache_home

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
EVERYBODY = (
    rounds.Contestant(report.DIRECT, None),
    rounds.Contestant(report.NGINX, peers.nginx),
    rounds.Contestant("HAProxy", peers.haproxy),
    rounds.Contestant(report.OURS, ours.labctl),
    rounds.Contestant(report.LITELLM, peers.litellm, per_s=20, streams=False, idles=False),
)


def main(argv: list[str]) -> int:
    """Measure, print, and return 0 where all targets are met."""
    args = _parser().parse_args(argv)
    sizes = rounds.QUICK if args.quick else rounds.Sizes()
    if args.rounds:
        sizes = rounds.Sizes(args.rounds, sizes.closed_s, sizes.open_s, sizes.tokens, sizes.per_s)
    wanted = args.only.split(",") if args.only else [one.name for one in EVERYBODY] + ["shared"]
    unknown = set(wanted) - {one.name for one in EVERYBODY} - {"shared"}
    if unknown:
        print(f"nobody is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    about = _about(argv, sizes)
    cache = cache_home() / "bench"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as work:
        around = peers.Around(machine.free_port(), Path(work), cache)
        bench = rounds.Bench(around, about["ahead"], sizes)
        try:
            bench.begin()
            contestants = [one for one in EVERYBODY if one.name in wanted]
            for one in contestants:
                bench.start(one)
            bench.run(contestants, args.seed)
            if "shared" in wanted:
                shared.measure(bench, ours.labctl, sizes.closed_s)
        finally:
            bench.end()
    about["foreign"] = median([r["foreign"] for r in bench.records if "foreign" in r] or [0.0])
    results = report.Results(about, bench.records, bench.missing)
    text = report.render(results)
    print(text)
    if args.json:
        document = {"about": about, "records": bench.records, "missing": bench.missing}
        args.json.write_text(json.dumps(document, indent=1))
    if args.write_docs:
        report.write_into(PAGE, text)
    return 0 if report.all_met(results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round; shows that it works")
    parser.add_argument(
        "--only", help="names, separated by commas: direct,nginx,HAProxy,labctl,LiteLLM,shared"
    )
    parser.add_argument("--rounds", type=int, help="how many rounds (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of turns")
    parser.add_argument("--json", type=Path, help="where all records go")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    return parser


def _about(argv: list[str], sizes: rounds.Sizes) -> dict[str, Any]:
    ahead = machine.ahead_of_others()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PAGE.parent, capture_output=True, text=True, check=False
    )
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit.stdout.strip() or "unknown",
        "cores": os.cpu_count(),
        "cpu": cpu,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "ahead": ahead,
        "scheduling": "Clients and upstream are scheduled ahead of other work (SCHED_RR)."
        if ahead
        else "SCHED_RR is not permitted here: latencies are those of a shared machine.",
        "rounds": sizes.rounds,
        "serving": machine.SERVING,
        "asking": machine.ASKING,
        "command": "python -m bench.gateway " + " ".join(word for word in argv if word != "--write-docs"),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
