"""What engines count themselves, on pages that start nothing and keep nothing loaded.

Each kind is asked on the pages that ``signals.asking`` names, and on no other: llama-server ``/metrics``,
else ``/slots`` (never one with an idle timer of its own, since older ones take the question for use); vLLM
and SGLang ``/metrics``; Ollama ``/api/ps``; TabbyAPI ``/health``; llama-swap ``/running`` and ``/v1/models``,
whose entries bear the digest of the configuration that it runs by, and then the engines that it says are
ready, past llama-swap and on loopback alone.

``tokens`` are those that an engine has read and made since it started. That is no sign of life everywhere:
llama-server counts what it made when a request ends (its source, ``on_prediction``), SGLang too. So there is
the ``pulse``: the sum of all counters and gauges that move while the engine computes. It has no unit; two
equal ones mean that nothing was computed between them.

llama-server answers ``/metrics`` between two batches, so one that reads a long prompt on a processor may be
silent for a minute. That is said in ``note``, and decided elsewhere (``domain.health.progress``).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import engines as units
from .config import Engine
from .config import read as settings_of
from .host import ROOT, text
from .signals import asking, http, processes, samples
from .signals.terms import Unreadable, plain, read

CONFIGS = "etc/labctl/llama-swap"
_LIMIT_S = 2.0
_READY_AT_MOST = 16  # engines of one llama-swap
_CONFIG_AT_MOST = 4 << 20
_DIGEST = re.compile(r"^\s+labctl: ['\"]?([0-9a-f]{16})['\"]?\s*$", re.MULTILINE)
_LOOPBACK = re.compile(r"http://(127\.[0-9.]+|localhost|\[::1\]):[0-9]{1,5}/?", re.ASCII)
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")
_JOURNAL_S = 2.0


class Kind(NamedTuple):
    """The names under which a kind of engine counts."""

    running: str
    waiting: str
    tokens: tuple[str, ...]
    moves: tuple[str, ...]


_KINDS = {
    "llama-server": Kind(
        "llamacpp:requests_processing",
        "llamacpp:requests_deferred",
        ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
        ("llamacpp:n_decode_total",),
    ),
    "vllm": Kind(
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
        (
            "vllm:iteration_tokens_total_count",
            "vllm:iteration_tokens_total_sum",
            "vllm:kv_cache_usage_perc",
            "vllm:gpu_cache_usage_perc",
            "vllm:num_preemptions_total",
            "vllm:request_success_total",
        ),
    ),
    "sglang": Kind(
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        ("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
        (
            "sglang:realtime_tokens_total",
            "sglang:num_used_tokens",
            "sglang:token_usage",
            "sglang:gen_throughput",
            "sglang:inter_token_latency_seconds_count",
            "sglang:time_to_first_token_seconds_count",
            "sglang:num_aborted_requests_total",
        ),
    ),
}


class Counts(NamedTuple):
    """What one engine says; None or "": it does not. ``models`` are (name, state)."""

    running: int | None = None
    waiting: int | None = None
    tokens: float | None = None
    pulse: float | None = None
    models: tuple[tuple[str, str], ...] | None = None
    answer: int | None = None
    device: str = ""
    config: str = ""
    silent: bool = False
    note: str = ""
    inner: tuple[Inner, ...] = ()


class Inner(NamedTuple):
    """An engine that a llama-swap runs."""

    model: str
    kind: str
    counts: Counts


def engines(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return the section ``engines`` of the health document: that of ``report``, and what they count.

    Raises:
        Finding: systemd says nothing of the units.
    """
    rows = units.engines(root)
    told = {one.unit: one for one in settings_of(root).engines}
    asked = [
        (row, told[row["unit"]]) for row in rows if row.get("active") == "active" and row["unit"] in told
    ]
    counts = dict(_together([one for _, one in asked], root, _LIMIT_S))
    found = []
    for row in rows:
        one = told.get(row["unit"])
        if one is not None:
            row.update(kind=row["kind"] or one.kind)
        said = counts.get(row["unit"], Counts())
        found.append({**row, **_shown(said), **_files(row, root), "note": said.note})
        found += [_inner(row, inner) for inner in said.inner]
    return found


def now(wanted: Sequence[Engine], root: Path = ROOT, limit_s: float = 1.0) -> list[dict[str, Any]]:
    """Return what a line of the watch says of engines (``domain.telemetry``), within about ``limit_s``."""
    running = [one for one in wanted if _runs(one, root)]
    counts = dict(_together(running, root, limit_s))
    found = []
    for one in wanted:
        said = counts.get(one.unit, Counts())
        models = said.models or tuple((inner.model, "ready") for inner in said.inner)
        found.append(
            {
                "service": one.service,
                "kind": one.kind,
                "active": one.unit in counts,
                "models": [name for name, state in models if state == "ready"],
                "running": said.running,
                "waiting": said.waiting,
                "tokens": said.tokens,
            }
        )
    return found


def counted(one: Engine, root: Path = ROOT, limit_s: float = _LIMIT_S) -> Counts:
    """Ask one engine; what goes wrong is said in ``note``, and nothing is raised."""
    ask = _ASK.get(one.kind)
    if ask is None or not one.url:
        return Counts()
    if not one.ask:
        return Counts()  # it has an idle timer of its own
    try:
        said = ask(one.url, _key(one, root), time.monotonic() + limit_s)
    except Unreadable as error:
        return Counts(silent=http.LATE in str(error), note=plain(str(error)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Counts(note="its answer is not understood")
    # Most do not say of which model they count; one that is started with a model and is ready has it loaded.
    if one.model and said.models is None and not said.note and said.answer in (None, 200):
        return said._replace(models=((one.model, "ready"),))
    return said


def _together(wanted: Sequence[Engine], root: Path, limit_s: float) -> Iterator[tuple[str, Counts]]:
    """Ask all at once; yield unit and answer of each, in order."""
    from threading import Thread  # only where there is somebody to ask

    answers: dict[str, Counts] = {}

    def ask(one: Engine) -> None:
        answers[one.unit] = counted(one, root, limit_s)

    askers = [Thread(target=ask, args=(one,), daemon=True) for one in wanted]
    for asker in askers:
        asker.start()
    until = time.monotonic() + limit_s + 0.5
    for asker in askers:
        asker.join(max(0.0, until - time.monotonic()))
    for one in wanted:
        yield one.unit, answers.get(one.unit, Counts(silent=True, note=f"{http.LATE} within {limit_s:g} s"))


def _runs(one: Engine, root: Path) -> bool:
    try:
        return processes.runs(root, one.unit)
    except Unreadable:
        return True


def _key(one: Engine, root: Path) -> str:
    if one.key_file is None:
        return ""
    words = (read(root / one.key_file.lstrip("/")) or "").split()
    if not words:
        raise Unreadable(f"its key is not in {one.key_file}")
    return words[0]


# --- what each kind is asked ---


def _get(url: str, path: str, key: str, until: float) -> http.Answer:
    left = until - time.monotonic()
    if left <= 0:
        raise Unreadable(f"{http.LATE} in time")
    return http.get(url, path, key=key, limit_s=left)


def _metrics(kind: str, page: bytes) -> Counts:
    names = _KINDS[kind]
    wanted = {names.running, names.waiting, *names.tokens, *names.moves}
    found = samples.sums(page, wanted)
    if names.running not in found or names.waiting not in found:
        raise Unreadable("its metrics do not say what runs and waits")
    tokens = [found[name] for name in names.tokens if name in found]
    moves = [found[name] for name in (*names.tokens, *names.moves) if name in found]
    model = plain(samples.model_of(page))
    return Counts(
        running=int(found[names.running]),
        waiting=int(found[names.waiting]),
        tokens=sum(tokens) if tokens else None,
        pulse=sum(moves) if moves else None,
        models=((model, "ready"),) if model else None,
    )


def _llama_server(url: str, key: str, until: float) -> Counts:
    answer = _get(url, "/metrics", key, until)
    if answer.status == 200:
        return _metrics("llama-server", answer.body)
    if answer.status == 503:
        return Counts(note="it loads its model")
    listed = _json(_get(url, "/slots", key, until))
    busy = [slot for slot in listed if slot["is_processing"]]
    return Counts(running=len(busy), pulse=sum(_slot(slot) for slot in listed))


def _slot(slot: dict[str, Any]) -> float:
    """Return the sum of what a slot counts of its task."""
    inner = slot.get("next_token")
    parts = [slot, *(inner if isinstance(inner, list) else [inner])]
    names = ("id_task", "n_decoded", "n_prompt_tokens_processed", "n_past")
    values = (part.get(name) for part in parts if isinstance(part, dict) for name in names)
    return float(sum(value for value in values if isinstance(value, int) and value > 0))


def _of_kind(kind: str) -> Callable[[str, str, float], Counts]:
    def ask(url: str, key: str, until: float) -> Counts:
        return _metrics(kind, asking.body_of(_get(url, "/metrics", key, until)))

    return ask


def _ollama(url: str, key: str, until: float) -> Counts:
    """Ask an Ollama, which counts nothing, what it has loaded and where."""
    models = _json(_get(url, "/api/ps", key, until))["models"]
    sizes = [(int(one.get("size") or 0), int(one.get("size_vram") or 0)) for one in models]
    device, note = "", ""
    if sizes and all(size for size, _ in sizes):
        device = "gpu" if all(on_card for _, on_card in sizes) else "cpu"
        if device == "gpu" and any(on_card < size for size, on_card in sizes):
            note = "a part of a model is in main memory"
    names = tuple((plain(str(one["model"])), "ready") for one in models)
    return Counts(models=names, device=device, note=note)


def _tabbyapi(url: str, key: str, until: float) -> Counts:
    """Ask a TabbyAPI, whose health page is open and counts nothing, whether it answers."""
    return Counts(answer=_get(url, "/health", "", until).status)


def _llama_swap(url: str, key: str, until: float) -> Counts:
    running = asking.running(_json(_get(url, "/running", key, until)))
    inner = []
    for model, state, command, place in running[:_READY_AT_MOST]:
        kind = asking.kind_of(command)
        if state != "ready" or kind not in _KINDS:
            continue
        if "--sleep-idle-seconds" in command or not _LOOPBACK.fullmatch(place):
            inner.append(Inner(model, kind, Counts()))  # asking would count as use, or is not ours
            continue
        below = Engine(model, kind, "", place.rstrip("/"))
        inner.append(Inner(model, kind, counted(below, limit_s=max(0.01, until - time.monotonic()))))
    return Counts(
        running=_sum(one.counts.running for one in inner),
        waiting=_sum(one.counts.waiting for one in inner),
        tokens=_sum(one.counts.tokens for one in inner),
        models=tuple((model, state) for model, state, _, _ in running),
        config=_digest(_json(_get(url, "/v1/models", key, until))),
        inner=tuple(inner),
    )


def _sum(values: Iterator[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _digest(listed: Any) -> str:
    """Return the digest that the listed models bear; several of them where they differ, "" for none."""
    marks = set()
    for one in listed["data"]:
        mark = ((one.get("meta") or {}).get("llamaswap") or {}).get("labctl")
        if isinstance(mark, str) and mark:
            marks.add(plain(mark)[:64])
    return ", ".join(sorted(marks)[:4])


def _json(answer: http.Answer) -> Any:
    return json.loads(asking.body_of(answer))


_ASK: dict[str, Callable[[str, str, float], Counts]] = {
    "llama-server": _llama_server,
    "vllm": _of_kind("vllm"),
    "sglang": _of_kind("sglang"),
    "ollama": _ollama,
    "tabbyapi": _tabbyapi,
    "llama-swap": _llama_swap,
}


# --- rows of the document ---


def _shown(said: Counts) -> dict[str, Any]:
    """Return the fields that are there only for health; what the report knows already stays."""
    found: dict[str, Any] = {name: getattr(said, name) for name in ("running", "waiting", "tokens", "pulse")}
    found.update(device=said.device, config=said.config, silent=said.silent)
    if said.answer is not None:
        found["answer"] = said.answer
    return found


def _inner(row: dict[str, Any], inner: Inner) -> dict[str, Any]:
    said = inner.counts
    same = {name: row.get(name) for name in ("unit", "active", "sub", "restarts")}
    models = [{"model": inner.model, "state": "ready"}]
    answer = 200  # llama-swap calls it ready
    shown = {**_shown(said), "config_file": "", "config_sha256": "", "note": said.note}
    service = f"{row['service']}/{inner.model}"
    return {**same, "service": service, "kind": inner.kind, "answer": answer, "models": models, **shown}


def _files(row: dict[str, Any], root: Path) -> dict[str, str]:
    """Return what is on this host beside what an engine says: llama-swap's file, a journal's word."""
    found = {"config_file": "", "config_sha256": ""}
    if row["kind"] == "llama-swap":
        try:
            with (root / CONFIGS / f"{row['service']}.yaml").open("rb") as file:
                content = file.read(_CONFIG_AT_MOST)
        except OSError:
            return found
        marks = sorted(set(_DIGEST.findall(content.decode(errors="replace"))))
        return {"config_file": ", ".join(marks[:4]), "config_sha256": hashlib.sha256(content).hexdigest()}
    if row["kind"] == "llama-server" and row.get("active") == "active":
        return {**found, "device": _offloaded(row["unit"], root)}
    return found


def _offloaded(unit: str, root: Path) -> str:
    """Return where llama-server said that it put its layers: gpu, cpu, or "" where its journal does not tell.

    A number below that of all layers may be wanted, so only none at all is the processor.
    """
    import subprocess

    if root != ROOT and not text(root / "etc/machine-id"):
        return ""
    command = ["journalctl", "--no-pager", "--output=cat", "--boot", "--lines=1", f"--unit={unit}"]
    command += ["--grep", "offloaded [0-9]+/[0-9]+ layers"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_JOURNAL_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = _OFFLOADED.search(done.stdout.decode(errors="replace"))
    return "" if match is None else "gpu" if int(match[1]) else "cpu"
