"""Which backend an engine computes with on AMD graphics: found out by trying, never read from a table.

Theory: of a card, a driver and a build of an engine one can say what should work, and be wrong in every way:
the card is seen and the first kernel faults, or the engine finds nothing, computes on the processor and says
so in a line that nobody reads. So each backend decodes a few tokens with the engine that is installed, and
its own output is judged. A run counts only if tokens came out, every layer was on the card, the buffers that
the engine names are the backend's, and it ended cleanly. Without a word about where it computed, it computed
on the processor.

Of two that work the clearly faster one is taken (15 %; the model is tiny, so speed says little); else Vulkan,
which needs the fewest parts. A result counts as long as nothing that it stood on changed: kernel, Mesa, ROCm,
cards, engines. A failure is remembered the same way, and not tried again at every run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Backend = Literal["rocm", "vulkan"]
Outcome = Literal["ok", "faulted", "cpu", "not-detected", "timeout"]

BACKENDS: tuple[Backend, ...] = ("rocm", "vulkan")
FORMAT = 1
FASTER = 1.15
_DEVICE_NAMES = {"rocm": ("ROCm", "HIP"), "vulkan": ("Vulkan",)}
_FOUND = re.compile(r"found (\d+) (?:ROCm|HIP|CUDA|Vulkan) devices", re.IGNORECASE)
_BUFFER = re.compile(r"\b([A-Za-z]+)(?:\d+)?(?:_\w+)? model buffer size *= *([\d.]+) MiB")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_SOFTWARE = re.compile(r"llvmpipe|lavapipe|swiftshader", re.IGNORECASE)
_BUILD = re.compile(r"\bbuild: (\d+) \((\w+)\)|^version: .*\(build (\d+), commit (\w+)\)", re.MULTILINE)
_NOISE = re.compile(
    r"Running as unit|Finished with result|Main processes terminated|Service runtime|CPU time consumed"
    r"|Memory peak|Memory swap peak|IO bytes|IP traffic"
)


@dataclass(frozen=True, slots=True)
class Raw:
    """What a run left: how systemd says that it ended ("success", "signal", ...), with detail, and output.

    ``answers`` are the JSON objects among the lines of ``stdout``, in their order.
    """

    result: str
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    answers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """How a backend fared. ``why`` is a sentence about it; ``build`` the engine's own word, "" unknown."""

    backend: str
    outcome: Outcome
    why: str
    tokens_per_s: float | None = None
    build: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a proof stands on. ``engines``: by backend, the program that was tried and what it was then."""

    kernel: str = ""
    mesa: str = ""
    rocm: str = ""
    cards: tuple[str, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A proof: the backend that was chosen ("none" where none works), why, and all that it came from."""

    backend: str
    why: str
    runs: tuple[Run, ...]
    ground: Ground
    at: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the record in values that JSON has."""
        return {"format": FORMAT, **asdict(self)}


def record_of(said: Any) -> Record | None:
    """Read a record from values of JSON; None for what is none, which then counts as no proof."""
    try:
        if said["format"] != FORMAT:
            return None
        ground = said["ground"]
        return Record(
            backend=str(said["backend"]),
            why=str(said["why"]),
            runs=tuple(Run(**run) for run in said["runs"]),
            ground=Ground(
                str(ground["kernel"]),
                str(ground["mesa"]),
                str(ground["rocm"]),
                tuple(map(str, ground["cards"])),
                {str(key): str(value) for key, value in ground["engines"].items()},
            ),
            at=str(said["at"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def stale(record: Record | None, ground: Ground) -> tuple[str, ...]:
    """Return why a proof does not count any more, as sentences; empty while it does."""
    if record is None:
        return ("there is no proof yet",)
    then = record.ground
    found = []
    for what, was, now in (
        ("the kernel", then.kernel, ground.kernel),
        ("Mesa", then.mesa, ground.mesa),
        ("ROCm", then.rocm, ground.rocm),
        ("the cards", " ".join(then.cards), " ".join(ground.cards)),
    ):
        if was != now:
            found.append(f"{what} changed: {was or 'none'} -> {now or 'none'}")
    for backend in BACKENDS:
        if then.engines.get(backend) != ground.engines.get(backend):
            found.append(f"the engine for {backend} changed")
    return tuple(found)


def judge(backend: str, raw: Raw) -> Run:
    """Return how a run fared, by the engine's own output and by how it ended."""
    speed, build = _answer(raw)
    said = f"{raw.stderr}\n{raw.stdout}"
    detected = any(int(count) for count in _FOUND.findall(said))
    if raw.result == "timeout":
        return Run(backend, "timeout", "it did not come to an end in time and was stopped", build=build)
    if raw.result != "success" or speed is None:
        ended = raw.detail or raw.result or "it could not be started"
        last = _last_line(raw.stderr) or _last_line(raw.stdout)
        if raw.result == "success":
            ended, last = "it ended well, but its answer cannot be read", ""
        words = f"{ended}: {last}" if last else ended
        if detected:
            return Run(backend, "faulted", f"the card was detected, then {words}", build=build)
        outcome: Outcome = (
            "faulted" if raw.result in ("success", "signal", "core-dump", "oom-kill") else "not-detected"
        )
        return Run(backend, outcome, words, build=build)
    if trouble := _not_on_the_card(backend, said):
        return Run(backend, "cpu", trouble, speed, build)
    return Run(backend, "ok", f"{speed:.4g} tokens/s", speed, build)


def choose(runs: tuple[Run, ...]) -> tuple[str, str]:
    """Return the backend to use, "none" where none works, and why."""
    good = sorted((run for run in runs if run.outcome == "ok"), key=lambda run: -(run.tokens_per_s or 0))
    bad = "; ".join(f"{run.backend}: {run.why}" for run in runs if run.outcome != "ok")
    if not good:
        return "none", bad or "nothing was tried"
    if len(good) == 1:
        return good[0].backend, f"{good[0].backend}: {good[0].why}" + (f"; {bad}" if bad else "")
    first, second = good[0], good[1]
    ratio = (first.tokens_per_s or 0) / (second.tokens_per_s or 1)
    if ratio >= FASTER:
        return first.backend, f"{first.backend} is {ratio:.2f} times as fast as {second.backend}"
    return "vulkan", "both work about equally fast, and vulkan needs fewer parts"


def _answer(raw: Raw) -> tuple[float | None, str]:
    """Return tokens per second, None without any, and the engine's build, from bench's or server's answer."""
    match = _BUILD.search(f"{raw.stderr}\n{raw.stdout}")
    build = " ".join(part for part in match.groups() if part) if match else ""
    for said in reversed(raw.answers):
        if said.get("n_gen"):
            build = f"{said.get('build_number', '')} {said.get('build_commit', '')}".strip() or build
            return _positive(said.get("avg_ts")), build
        if said.get("tokens_predicted") and isinstance(said.get("timings"), dict):
            return _positive(said["timings"].get("predicted_per_second")), build
    return None, build


def _positive(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return float(value) if good and isinstance(value, int | float) else None


def _not_on_the_card(backend: str, said: str) -> str:
    """Return why a decode that worked did not happen on the card, or "" when it did."""
    if _SOFTWARE.search(said):
        return "it computed with a software driver (llvmpipe): on the processor"
    buffers: dict[str, float] = {}
    for name, size in _BUFFER.findall(said):
        buffers[name] = buffers.get(name, 0) + float(size)
    mine = sum(size for name, size in buffers.items() if name in _DEVICE_NAMES[backend])
    if not mine:
        others = ", ".join(sorted(buffers)) or "nothing that it names"
        return f"it fell back to the processor: the model lay in {others}, not on a card"
    for layers, total in _OFFLOADED.findall(said):
        if int(layers) < int(total):
            return f"it fell back to the processor: only {layers} of {total} layers were on the card"
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _NOISE.search(line)]
    return lines[-1][:300] if lines else ""
