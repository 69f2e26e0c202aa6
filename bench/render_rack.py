"""What a large rack costs: loading it, checking it, and rendering every unit and configuration in it.

Run by hand, from the project's folder::

    .venv/bin/python bench/render_rack.py [--hosts 100] [--models 20] [--times 5] [--profile]

Each host has a llama-swap with its models; one that is always on has a llama-swap with all of them as peers,
and a gateway in front. Each run is a process of its own, since memory is the process's peak. ``both`` is
loading and rendering by the clock, ``processor`` the same in processor time. The two are equal on a machine
that does nothing else, since nothing here waits; so the second is what is judged. Starting Python and
importing labctl come on top (``whole process``).

The promise for 100 hosts with 20 models each: less than 2 s and less than 150 MB.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMISED_S, PROMISED_MB = 2.0, 150
RACK = """\
from labctl.inventory import (
    Artifact, Gpu, Host, IdlePolicy, LiteLlm, LlamaCpp, LlamaServer, LlamaSwap, LlamaSwapBuild, Model,
    ModelFile, Rack, Secret, Swapped, WakeOnLan,
)

_models = [
    Model(
        id=f"model-{{host}}-{{n}}", aliases=[f"m-{{host}}-{{n}}"], source=f"https://hub.lan/{{host}}/{{n}}/",
        quantisation="Q4_K_M",
        files=[ModelFile(name=f"part-{{part}}.gguf", sha256=f"{{host:032x}}{{n:016x}}{{part:016x}}",
                         size=10_000_000_000) for part in (1, 2)],
    )
    for host in range({hosts}) for n in range({models})
]
_builds = [
    LlamaCpp(version="b11433", backend="cuda", cuda="12.8",
             archive=Artifact(url="https://mirror.lan/llama.tar.gz", sha256="a" * 64)),
    LlamaSwapBuild(version="250", archive=Artifact(url="https://mirror.lan/swap.tar.gz", sha256="b" * 64)),
]
_boxes = [
    Host(
        name=f"box{{host}}", address=f"10.1.{{host // 200}}.{{host % 200 + 10}}", roles=["gpu"],
        gpus=[Gpu(model="RTX 3090", slot=f"slot{{n}}", uuid=f"GPU-{{host:08x}}-0000-4000-8000-{{n:012x}}")
              for n in range(2)],
        wake=WakeOnLan(mac=f"52:54:00:01:{{host // 256:02x}}:{{host % 256:02x}}"),
        idle=IdlePolicy(suspend=True),
        disk_mb_s=2000, memory_gib=128, open_ports=[8080],
        services=[LlamaSwap(
            name="swap", port=8080, listen="0.0.0.0", api_key=Secret(file="keys/swap"),
            models=[
                Swapped(ttl="30m", engine=LlamaServer(
                    name=f"engine{{n}}", model=f"model-{{host}}-{{n}}", gpus=[f"slot{{n % 2}}"],
                    ctx_size=32768, parallel=2, flash_attn="on", n_gpu_layers="all",
                    cache_type_k="q8_0", cache_type_v="q8_0"))
                for n in range({models})
            ])],
    )
    for host in range({hosts})
]
_hub = Host(
    name="hub", address="10.0.0.1", roles=["always-on"], open_ports=[8080, 4000],
    services=[
        LlamaSwap(name="front", port=8080, listen="0.0.0.0", api_key=Secret(file="keys/front"), peers="rack"),
        LiteLlm(name="gate", port=4000, listen="0.0.0.0", api_key=Secret(file="keys/gate"),
                binary="/usr/bin/litellm"),
    ],
)
rack = Rack(name="large", models=_models, engines=_builds, hosts=[_hub, *_boxes])
globals().update(rack.groups())
"""


def work(file: Path) -> dict[str, float]:
    """Load and render one rack; return seconds by part, and the number of texts and their bytes."""
    from labctl.inventory import LlamaSwap, load_rack
    from labctl.inventory.services import Gateway
    from labctl.render import gateways, units
    from labctl.render.llamaswap import config

    start, before = time.perf_counter(), time.process_time()
    rack = load_rack(file).rack
    loaded = time.perf_counter()
    texts = []
    for host in rack.hosts:
        for service in host.services:
            texts.append(units.service(rack, host, service).content)
            if isinstance(service, LlamaSwap):
                texts.append(config(rack, host, service).text)
            elif isinstance(service, Gateway):
                texts += [one.content for one in gateways.launch(rack, host, service).files]
    rendered = time.perf_counter()
    busy = time.process_time() - before
    return {
        "load and check": loaded - start,
        "render": rendered - loaded,
        "both": rendered - start,
        "texts": len(texts),
        "bytes": sum(map(len, texts)),
        "processor": busy,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def measured(file: Path, times: int) -> list[dict[str, float]]:
    """Return what each of so many processes of their own says, with its whole time from outside."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(file)], capture_output=True, text=True, check=True
        )
        found.append({**json.loads(done.stdout), "whole process": time.perf_counter() - start})
    return found


def report(runs: list[dict[str, float]]) -> bool:
    """Print medians and the worst beside the promise; return whether the promise holds."""
    print(f"{'':16}{'median':>10}{'worst':>10}")
    for part in ("load and check", "render", "both", "processor", "whole process", "peak MB"):
        values = [run[part] for run in runs]
        unit = "" if part.endswith("MB") else " s"
        print(f"{part:16}{statistics.median(values):>8.2f}{unit:2}{max(values):>8.2f}{unit:2}")
    print(f"{runs[0]['texts']:.0f} texts, {runs[0]['bytes'] / 1e6:.1f} MB")
    kept = (
        statistics.median([run["processor"] for run in runs]) < PROMISED_S
        and max(run["peak MB"] for run in runs) < PROMISED_MB
    )
    print(f"promise: < {PROMISED_S:.0f} s and < {PROMISED_MB} MB: {'kept' if kept else 'BROKEN'}")
    return kept


def main() -> int:
    """Measure a rack of the size that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where the time goes, in this process")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(work(given.one)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rack.py"
        file.write_text(RACK.format(hosts=given.hosts, models=given.models))
        if given.profile:
            profile = cProfile.Profile()
            profile.runcall(work, file)
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
            return 0
        print(f"{given.hosts} hosts with {given.models} models each")
        return 0 if report(measured(file, given.times)) else 1


if __name__ == "__main__":
    sys.exit(main())
