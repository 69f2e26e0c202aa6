"""What an answer says of its tokens, read from its last bytes.

Every server that we know ends its answer with its use: an object ``usage`` (OpenAI's chat, completions and
responses, also as the last event of a stream; Anthropic's ``message_delta``), or ``timings`` (llama-server's
streams, where nobody asked for usage), or Ollama's counts. So the last such object counts, and of a stream
that says what it read only in its first event (Anthropic's ``message_start``), the first one as well.

The bytes may begin anywhere, so that object is cut out of them and nothing else of the answer is kept.
Words of a model can't pass for its use: inside of a JSON string both quotes of a name have a backslash before
them, and no colon follows any other string. (A transcription as plain text could; it is counted, no more.)
What isn't found, or is no sound number, is -1: nobody may take a guess for a count.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

Use = tuple[int, int, int]
"""Tokens of the prompt (cached ones included), of the answer, and those of the prompt that were cached."""

UNSAID: Use = (-1, -1, -1)

Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**12)]

_USAGE = b'"usage"'
_TIMINGS = b'"timings"'
_EVALS = b'"eval_count"'
_EVAL = re.compile(rb'"(prompt_eval_count|eval_count)"\s*:\s*(\d{1,12})')
# An event that has no use says "usage": null; how many of these are skipped, from the end.
_NULLS = 8
# Up to this many bytes an answer is read whole, which is twice as fast then.
_SMALL = 2048
# The colon after a name, its spaces and the brace.
_COLON = 4


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Tokens | None = None


class _Usage(msgspec.Struct, gc=False):
    """``usage``, in the names of OpenAI's two generations and of Anthropic."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None


class _Timings(msgspec.Struct, gc=False):
    prompt_n: Tokens = -1
    cache_n: Tokens = -1
    predicted_n: Tokens = -1


class _Whole(msgspec.Struct, gc=False):
    usage: _Usage | None = None


_whole = msgspec.json.Decoder(_Whole).decode
_usage = msgspec.json.Decoder(_Usage).decode
_timings = msgspec.json.Decoder(_Timings).decode


def use_of(tail: bytes) -> Use:
    """Return what the last bytes of an answer say of its use; ``UNSAID`` where they say nothing sound."""
    if tail[:1] == b"{" and len(tail) < _SMALL:
        try:
            usage = _whole(tail).usage
        except msgspec.MsgspecError:
            pass  # its beginning is not here, or it is none of these
        else:
            if usage is not None:
                return _of_usage(usage)
    try:
        at = tail.rfind(_USAGE)
        if at >= 0 and (said := _last_usage(tail, at)) is not None:
            return said
        if (at := tail.rfind(_TIMINGS)) >= 0 and (text := _object(tail, at, _TIMINGS)):
            return _of_timings(_timings(text))
    except msgspec.MsgspecError:
        return UNSAID
    if (at := tail.rfind(_EVALS)) >= 0:
        counts = dict(_EVAL.findall(tail, max(0, at - 512)))
        return int(counts.get(b"prompt_eval_count", -1)), int(counts.get(b"eval_count", -1)), -1
    return UNSAID


def _last_usage(tail: bytes, at: int) -> Use | None:
    for _ in range(_NULLS):
        if text := _object(tail, at, _USAGE):
            use = _of_usage(_usage(text))
            if use[0] >= 0:
                return use
            first = tail.find(_USAGE)
            return _with_prompt(use, _object(tail, first, _USAGE)) if first < at else use
        at = tail.rfind(_USAGE, 0, at)
        if at < 0:
            break
    return None


def _with_prompt(use: Use, first: bytes) -> Use:
    """Return an answer's use with what its first event says of the prompt, where that is there whole."""
    try:
        began = _of_usage(_usage(first))
    except msgspec.MsgspecError:
        return use
    return began[0], use[1], began[2]


def _object(tail: bytes, at: int, name: bytes) -> bytes:
    """Return the object of that name, whole; empty where it is null, cut off, or words of a model."""
    after = at + len(name)
    begin = tail.find(b"{", after, after + _COLON)
    if begin < 0 or b":" not in tail[after:begin]:
        return b""
    end, deep = begin, 0
    while (close := tail.find(b"}", end)) >= 0:
        deep += tail.count(b"{", end, close) - 1
        end = close + 1
        if not deep:
            return tail[begin:end]
    return b""


def _of_usage(usage: _Usage) -> Use:
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    details = usage.prompt_tokens_details
    if prompt is None and answer is None:
        prompt, answer, details = usage.input_tokens, usage.output_tokens, usage.input_tokens_details
    cached = None if details is None else details.cached_tokens
    if usage.cache_read_input_tokens is not None and prompt is not None:  # Anthropic counts these apart
        cached = usage.cache_read_input_tokens
        prompt += cached + (usage.cache_creation_input_tokens or 0)
    return (
        -1 if prompt is None else prompt,
        -1 if answer is None else answer,
        -1 if cached is None else cached,
    )


def _of_timings(timings: _Timings) -> Use:
    prompt, cached = timings.prompt_n, timings.cache_n
    # llama-server counts apart what it had in its cache.
    return (prompt + cached if prompt >= 0 and cached > 0 else prompt), timings.predicted_n, cached
