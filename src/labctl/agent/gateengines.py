"""The gate's look at the engines: their units run, they are ready, and they answer from the cards.

Asked is only what costs nothing and starts nothing, until the end: then each engine that is set to have a
model loaded makes one token. An engine that answers and does not compute on any card answers from the
processor, which is what engines do without a word when a driver fails them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import computing
from .calls import call
from .config import Engine, Settings
from .gatecards import Verdicts
from .questions import Unanswered, ask
from .sections import Finding
from .settings import engines
from .unload import unit_of

_ASKED_S = 15.0
_POLL_S = 0.5
# What each kind answers with 200 when it is ready; of the others systemd's word is all that is known.
_READY = {
    "llama-server": "/health",
    "llama-swap": "/health",
    "vllm": "/health",
    "sglang": "/ready",
    "ollama": "/api/version",
    "tabbyapi": "/health",
}
_ONE_TOKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "completion": ("/v1/completions", {"prompt": "1", "max_tokens": 1, "temperature": 0}),
    "embedding": ("/v1/embeddings", {"input": "1"}),
    "rerank": ("/v1/rerank", {"query": "1", "documents": ["1"]}),
}


def ready(config: Settings, until: float, root: Path) -> Verdicts:
    """Wait until every engine is ready, or until that moment of the monotonic clock."""
    left = {one.unit: one for one in engines(config)}
    why = dict.fromkeys(left, "it was not looked at in time")
    broken, notes = [], []
    while left:
        for one in list(left.values()):
            state, why[one.unit] = _state(one, root)
            if state == "off":
                notes.append(f"{one.unit} is switched off")
            elif state == "failed":
                broken.append(f"{one.unit} {why[one.unit]}")
            if state != "starting":
                del left[one.unit]
        if not left or time.monotonic() > until:
            break
        time.sleep(_POLL_S)
    broken += [f"{unit} {why[unit]}" for unit in left]
    return broken, notes


def _state(one: Engine, root: Path) -> tuple[str, str]:
    """Return "ready", "starting", "failed" or "off", and why it is not ready."""
    active = call("systemctl", "is-active", "--", one.unit, within_s=_ASKED_S).out.strip()
    if active == "failed":
        return "failed", f"failed: journalctl -u {one.unit}"
    if active == "inactive":
        enabled = call("systemctl", "is-enabled", "--", one.unit, within_s=_ASKED_S).out.strip()
        return ("off", "") if enabled in ("disabled", "masked") else ("failed", "does not run")
    if active != "active":
        return "starting", f"is {active or 'not known to systemd'}"
    path = _READY.get(one.kind)
    if path is None or not one.url:
        return "ready", ""
    try:
        status = ask(one.url, path, key_file=one.key_file, root=root).status
    except Unanswered as error:
        return "starting", f"does not answer: {error}"
    return ("ready", "") if status == 200 else ("starting", f"is not ready: {path} answers {status}")


def answers(config: Settings, until: float, root: Path) -> Verdicts:
    """Have each engine with a loaded model make one token, and look whether a card did it."""
    broken, notes = [], []
    by_unit = {one.unit: one for one in engines(config)}
    for row in config.gate.get("decode", ()):
        one = by_unit.get(row["unit"])
        if one is None or not _runs(one):
            continue
        verdict = _token(one, row, until, root) or (_on_processor(one, root) if row["cards"] else None)
        if verdict:
            broken.append(verdict)
        else:
            notes.append(f"{one.service} answered with {row['model']}")
    return broken, notes


def _runs(one: Engine) -> bool:
    return call("systemctl", "is-active", "--", one.unit, within_s=_ASKED_S).ok


def _token(one: Engine, row: Mapping[str, Any], until: float, root: Path) -> str | None:
    path, body = _ONE_TOKEN[row["what"]]
    within = max(_ASKED_S, until - time.monotonic())
    try:
        answer = ask(
            one.url,
            path,
            key_file=one.key_file,
            root=root,
            body={"model": row["model"], **body},
            within_s=within,
        )
    except Unanswered as error:
        return f"{one.service} makes no token with {row['model']}: {error}"
    said = answer.json()
    whole = isinstance(said, dict) and bool(said.get("choices") or said.get("data") or said.get("results"))
    if answer.status != 200 or not whole:
        return f"{one.service} makes no token with {row['model']}: {path} answers {answer.status}"
    return None


def _on_processor(one: Engine, root: Path) -> str | None:
    """Return why an engine that answered did not do so from a card."""
    try:
        who = computing.use(root).who
    except Finding as finding:
        return f"whether {one.service} computes on a card is not known: {finding}"
    if any(unit_of(pid, root) == one.unit for pid, _ in who):
        return None
    return f"{one.service} answers from the processor: nothing of {one.unit} computes on a card"
