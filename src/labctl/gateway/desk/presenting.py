"""Say in an event stream how far a wait is.

Comments are for whoever reads the wire: clients skip them, and connections stay alive by them. Loading state
is what llama-swap sends: deltas of ``reasoning_content``, which chat windows show as thoughts. Only streams
of chat completions can carry it; others get comments instead.
"""

from __future__ import annotations

import msgspec

from labctl.domain.gateway.table import Waiting
from labctl.gateway.terms import Ask

CHAT = "/v1/chat/completions"


def line(ask: Ask, way: Waiting, text: str, at: float) -> bytes:
    """Return what is said to a client, whole events or comments; ``at`` is a wall time in seconds."""
    if way is Waiting.LOADING and ask.path == CHAT:
        return b"data: " + msgspec.json.encode(_chunk(ask, text, at)) + b"\n\n"
    return b": " + text.encode() + b"\n\n"


def _chunk(ask: Ask, text: str, at: float) -> dict[str, object]:
    delta = {"role": "assistant", "content": None, "reasoning_content": f"{text}\n"}
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {
        "id": f"chatcmpl-{ask.id}",
        "object": "chat.completion.chunk",
        "created": int(at),
        "model": ask.model,
        "choices": [choice],
    }
