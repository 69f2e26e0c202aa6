"""What each kind of engine is asked, so that asking starts nothing, keeps nothing loaded and renews nothing.

- llama-server: ``/metrics`` (requests processing and deferred), where it has none ``/slots``. One with an
  idle timer of its own is not asked at all, since older ones take the question for use.
- llama-swap: ``/running`` for what is being loaded, and the first words of ``/api/events``, which say what is
  in flight; where that is not there, the engines that it runs are asked themselves, past llama-swap, so that
  their time to live goes on. Its own paths to them (``/upstream``) start models and are never used.
- vLLM, SGLang: ``/metrics`` (running and waiting), SGLang without metrics ``/get_load``. SGLang's ``/health``
  makes a token and is never asked.
- Ollama and TabbyAPI count no requests. Who has a connection open may be asking: that counts as use. A model
  that is only loaded does not.

Each function returns what is going on in words, "" for nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import http, samples
from .terms import Unreadable, plain, times

_LOADING = 503
_REFUSED = (401, 403)
_IN_FLIGHT = re.compile(rb'^data: ?(\{"type": ?"inflight".*\})$', re.MULTILINE)
_LLAMA = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
_VLLM = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_SGLANG = ("sglang:num_running_reqs", "sglang:num_queue_reqs")
_REQUESTS_MAX = 1e9  # more is no count of requests
_PROGRAMS = {"llama-server": "llama-server", "vllm": "vllm", "sglang.launch_server": "sglang"}


def llama_server(url: str, key: str) -> str:
    """Ask a llama-server."""
    answer = http.get(url, "/metrics", key=key)
    if answer.status == 200:
        return _requests(answer.body, _LLAMA)
    if answer.status == _LOADING:
        return "it loads its model"
    slots = http.get(url, "/slots", key=key)
    if slots.status == _LOADING:
        return "it loads its model"
    listed = _json(slots)
    if not isinstance(listed, list) or not all(
        isinstance(slot, dict) and isinstance(slot.get("is_processing"), bool) for slot in listed
    ):
        raise Unreadable("its slots are not understood")
    count = sum(slot["is_processing"] for slot in listed)
    return f"{times(count, 'request')} in its slots" if count else ""


def llama_swap(url: str, key: str) -> str:
    """Ask a llama-swap."""
    loaded = running(_json(http.get(url, "/running", key=key)))
    for model, state, _, _ in loaded:
        if state not in ("ready", "stopped", "shutdown"):
            return f"{model} is {state}"
    events = http.get(url, "/api/events", key=key, enough=lambda body: bool(_IN_FLIGHT.search(body)))
    if events.status in _REFUSED:
        raise Unreadable(f"it answers {events.status}: its key is missing or wrong")
    match = _IN_FLIGHT.search(events.body) if events.status == 200 else None
    if match is not None:
        return _in_flight(match[1])
    for model, _, command, place in loaded:
        said = _below(command, place)
        if said:
            return f"{model}: {said}"
    return ""


def vllm(url: str, key: str) -> str:
    """Ask a vLLM."""
    return _requests(body_of(http.get(url, "/metrics", key=key)), _VLLM)


def sglang(url: str, key: str) -> str:
    """Ask an SGLang."""
    answer = http.get(url, "/metrics", key=key)
    if answer.status == 200:
        return _requests(answer.body, _SGLANG)
    loads = _json(http.get(url, "/get_load", key=key))
    try:
        counts = [int(one["num_reqs"]) + int(one["num_waiting_reqs"]) for one in loads]
    except (KeyError, TypeError, ValueError):
        raise Unreadable("its load is not understood") from None
    if not counts:
        raise Unreadable("its load is not understood")
    return times(sum(counts), "request") if sum(counts) else ""


def _below(command: str, place: str) -> str:
    """Ask an engine that llama-swap runs; which one it is its command line says."""
    kind = kind_of(command)
    if kind is None or "--sleep-idle-seconds" in command:
        raise Unreadable("it does not say what is in flight, and its engine cannot be asked")
    return {"llama-server": llama_server, "vllm": vllm, "sglang": sglang}[kind](place.rstrip("/"), "")


def kind_of(command: str) -> str | None:
    """Return which kind of engine a command line starts, None for one that cannot be asked."""
    words = command.replace("\\\n", " ").split()
    names = [word.rpartition("/")[2] for word in words[:4]]
    return next((_PROGRAMS[name] for name in names if name in _PROGRAMS), None)


def running(document: Any) -> list[tuple[str, str, str, str]]:
    """Return model, state, command and address of what a llama-swap runs.

    Raises:
        Unreadable: it is not understood.
    """
    try:
        return [
            (
                plain(str(one["model"])),
                plain(str(one["state"])),
                str(one.get("cmd", "")),
                str(one.get("proxy", "")),
            )
            for one in document["running"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise Unreadable("what it runs is not understood") from None


def _in_flight(envelope: bytes) -> str:
    """Return what the first event about requests in flight says; it lists all of them."""
    try:
        event = json.loads(json.loads(envelope)["data"])
        if event["operation"] != "snapshot":
            return "a request is in flight"  # one came or went just now
        count = len(event.get("requests") or ())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unreadable("what is in flight there is not understood") from None
    return f"{times(count, 'request')} in flight" if count else ""


def _requests(metrics: bytes, names: tuple[str, str]) -> str:
    """Return how many requests run and wait, by the two gauges of these names, whatever their labels."""
    try:
        found = samples.sums(metrics, names)
        if any(value >= _REQUESTS_MAX for value in found.values()):
            raise ValueError("that many are no count of requests")
    except ValueError:
        raise Unreadable("its metrics are not understood") from None
    if set(found) != set(names):
        raise Unreadable("its metrics do not say what runs and waits")
    running, waiting = (int(found[name]) for name in names)
    if found[names[0]] <= 0 and found[names[1]] <= 0:
        return ""
    return f"{times(running, 'request')} running" + (f", {waiting} waiting" if waiting else "")


def body_of(answer: http.Answer) -> bytes:
    """Return what a good answer holds.

    Raises:
        Unreadable: it is none.
    """
    if answer.status in _REFUSED:
        raise Unreadable(f"it answers {answer.status}: its key is missing or wrong")
    if answer.status != 200:
        raise Unreadable(f"it answers {answer.status}")
    return answer.body


def _json(answer: http.Answer) -> Any:
    try:
        return json.loads(body_of(answer))
    except (ValueError, RecursionError):
        raise Unreadable("its answer is no JSON") from None
