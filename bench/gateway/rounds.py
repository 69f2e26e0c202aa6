"""Who is measured with what, in which order, and what comes out: one record for each measurement.

In each round everybody takes a turn, in an order drawn anew, so that what else the machine does hits all
alike. All run the whole time; who is not measured has nothing to do (LiteLLM, which always has, is frozen).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gateway.machine import ASKING, SERVING, Place, Running, busy_s, free_port
from bench.gateway.peers import KEY, MODEL, Around, Prepare

HERE = Path(__file__).parent
PERIOD_US = 20_000  # 50 tokens a second
SPREAD_US = 2_000  # a stream begins each 2 ms, so a hundred of a thousand tick together: harsh on purpose
CONNECTIONS = 32
STREAMS = 1000
WORDS = (3, 12, 40, 7, 90, 25, 60)  # of prompts: no two requests in a row are of one length
_REST_S = 1.1  # after a processor was saturated, until the kernel lets processes run ahead of others again
Record = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much of everything: rounds, seconds of asking, tokens of a stream."""

    rounds: int = 5
    closed_s: float = 2.0
    open_s: float = 3.0
    tokens: int = 200
    per_s: int = 1000


QUICK = Sizes(rounds=1, closed_s=1.0, open_s=1.5, tokens=75)


@dataclass(frozen=True)
class Contestant:
    """Somebody who stands between; ``per_s`` is what it is asked at a fixed rate, 0: as everybody else."""

    name: str
    prepare: Prepare | None  # None: nobody stands between
    per_s: int = 0
    streams: bool = True
    idles: bool = True


@dataclass
class Bench:
    """The upstream, the clients, and everybody who stands between."""

    around: Around
    ahead: bool
    sizes: Sizes
    running: dict[str, Running] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def begin(self) -> None:
        """Compile the programs, write the requests, start the upstream."""
        work = self.around.work
        for name in ("upstream", "load"):
            argv = ["gcc", "-O2", "-o", str(work / name), str(HERE / f"{name}.c")]
            subprocess.run(argv, check=True, timeout=60)
        for name, stream, tokens in (("small", False, 16), ("stream", True, self.sizes.tokens)):
            asked = (request(words, stream=stream, tokens=tokens) for words in WORDS)
            (work / name).write_bytes(b"\0".join(asked))
        argv = [str(work / "upstream"), str(self.around.upstream), str(PERIOD_US)]
        place = Place((ASKING,), self.ahead)
        self.running["upstream"] = Running(argv, place, work / "upstream.log", os.environ)
        self.running["upstream"].until_open(self.around.upstream, 5)

    def start(self, one: Contestant) -> None:
        """Start somebody, ask once, and note what it takes while nobody asks; who can't start is missing."""
        if one.prepare is None:
            self.ports[one.name] = self.around.upstream
            return
        port = free_port()
        try:
            started = one.prepare(self.around, port)
            log = self.around.work / f"{one.name}.log"
            # Not ahead of others: the kernel halts a real-time process that fills 95 % of a second, and that
            # opens a hole of 50 ms in all streams when a thousand of them begin.
            running = Running(started.argv, Place((SERVING,), ahead=False), log, started.env)
            self.running[one.name] = running
            began_s = running.until_open(port, started.within_s)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self.missing[one.name] = str(error)
            print(f"{one.name} is missing: {error}", file=sys.stderr, flush=True)
            return
        self.ports[one.name] = port
        time.sleep(1.0)
        idle = {"memory_mb": running.memory_mb(), "began_s": began_s}
        self.records.append({"who": one.name, "what": "idle", **idle})
        try:
            self.ask(one, "closed", "small", "0.3", "1")  # what is only made when it is needed
        except subprocess.SubprocessError as error:
            self.missing[one.name] = str(error)
        if not one.idles:
            running.freeze()

    def run(self, contestants: Sequence[Contestant], seed: int) -> None:
        """Measure all of them in turns."""
        order = random.Random(seed)
        there = [one for one in contestants if one.name in self.ports and one.name not in self.missing]
        for number in range(self.sizes.rounds):
            order.shuffle(there)
            for one in there:
                print(f"round {number + 1} of {self.sizes.rounds}: {one.name}", file=sys.stderr, flush=True)
                if not one.idles:
                    self.running[one.name].thaw()
                self._turn(one)
                if not one.idles:
                    self.running[one.name].freeze()

    def _turn(self, one: Contestant) -> None:
        sizes = self.sizes
        self.record(one, "closed", "small", f"{sizes.closed_s}", f"{CONNECTIONS}")
        per_s = one.per_s or sizes.per_s
        time.sleep(_REST_S)
        self.record(one, "open", "small", f"{sizes.open_s}", "64", f"{per_s}")
        if one.streams:
            numbers = (f"{sizes.tokens}", f"{STREAMS}", f"{SPREAD_US}", f"{PERIOD_US}")
            self.record(one, "streams", "stream", *numbers)

    def record(self, one: Contestant, what: str, *words: str) -> None:
        """Measure once and keep it."""
        running = self.running.get(one.name)
        spent, busy, began = running.cpu_s() if running else 0.0, busy_s(), time.monotonic()
        others = sum(other.cpu_s() for other in self.running.values())
        told = self.ask(one, what, *words)
        took = time.monotonic() - began
        clients = told.pop("clients_s")
        if what == "streams":
            told |= {f"{key}_share": told[key] / max(1, told["tokens"]) for key in ("glued", "late")}
        if what == "open":
            told["per_s_asked"] = int(words[-1])
        ours = sum(other.cpu_s() for other in self.running.values()) - others + clients
        told |= {"foreign": max(0.0, (busy_s() - busy - ours) / took / (os.cpu_count() or 1))}
        if running:
            told |= {"cpu": (running.cpu_s() - spent) / took, "peak_mb": running.peak_mb()}
        self.records.append({"who": one.name, "what": what, **told})

    def ask(self, one: Contestant, what: str, *words: str) -> Record:
        """Let clients ask, and return what they tell."""
        argv = [str(self.around.work / "load"), what, str(self.ports[one.name])]
        argv += [str(self.around.work / words[0]), *words[1:]]
        place = Place((ASKING,), self.ahead)
        before = os.times()
        done = subprocess.run(
            argv, check=True, capture_output=True, text=True, timeout=90, preexec_fn=place.enter
        )
        if done.stderr:
            print(f"{one.name}, {what}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        after = os.times()
        told: Record = json.loads(done.stdout)
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        return {**told, "clients_s": spent}

    def end(self) -> None:
        """End everything."""
        for running in self.running.values():
            running.stop()


def request(words: int, *, stream: bool, tokens: int) -> bytes:
    """Return a whole request, with a prompt of so many words, as clients of such servers send it."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "fox " * words}],
        "max_tokens": tokens,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    text = json.dumps(body).encode()
    head: Mapping[str, str] = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "bench/1",
        "Content-Length": str(len(text)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + text
