"""What answers say of their tokens: every server's way to say it, cut anywhere, and nothing else believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.gateway.meters.use import UNSAID, Use, use_of


def _json(**document: object) -> bytes:
    return json.dumps(document).encode()


def _events(*documents: dict[str, object], done: bool = True) -> bytes:
    text = "".join(f"data: {json.dumps(document)}\n\n" for document in documents)
    return (text + ("data: [DONE]\n\n" if done else "")).encode()


WORDS = [{"message": {"role": "assistant", "content": 'say "usage": {"prompt_tokens": 9999}'}}]
OPENAI = {
    "prompt_tokens": 120,
    "completion_tokens": 7,
    "total_tokens": 127,
    "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
RESPONSES = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 100},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 127,
}
ANTHROPIC = {
    "input_tokens": 15,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 5},
    "output_tokens": 7,
}
TIMINGS = {"cache_n": 100, "prompt_n": 20, "prompt_ms": 3.5, "predicted_n": 7, "predicted_per_second": 41.5}
CHUNK = {"choices": [{"delta": {"content": "usage"}}], "usage": None}

SAID: dict[str, tuple[bytes, Use]] = {
    "chat": (_json(id="1", choices=WORDS, usage=OPENAI), (120, 7, 100)),
    "chat, without spaces": (
        json.dumps({"choices": WORDS, "usage": OPENAI}, separators=(",", ":")).encode(),
        (120, 7, 100),
    ),
    "chat, indented": (json.dumps({"choices": WORDS, "usage": OPENAI}, indent=2).encode(), (120, 7, 100)),
    "chat of llama-server, with timings": (
        _json(choices=WORDS, usage=OPENAI, timings=TIMINGS),
        (120, 7, 100),
    ),
    "embeddings": (_json(data=[0.5] * 9, usage={"prompt_tokens": 6, "total_tokens": 6}), (6, -1, -1)),
    "embeddings, its use first": (
        _json(usage={"prompt_tokens": 6, "total_tokens": 6}, data=[1]),
        (6, -1, -1),
    ),
    "rerank": (_json(results=[], usage={"prompt_tokens": 30, "total_tokens": 30}), (30, -1, -1)),
    "responses": (_json(object="response", output=[], usage=RESPONSES, user=None), (120, 7, 100)),
    "images": (_json(data=[], usage={**RESPONSES, "input_tokens_details": {"text_tokens": 3}}), (120, 7, -1)),
    "transcription": (
        _json(text="hi", usage={"type": "tokens", "input_tokens": 14, "output_tokens": 2}),
        (14, 2, -1),
    ),
    "transcription by seconds": (_json(text="hi", usage={"type": "duration", "seconds": 3}), UNSAID),
    "messages": (_json(type="message", content=[], usage=ANTHROPIC), (120, 7, 100)),
    "completion of llama-server": (_json(content="x", timings=TIMINGS), (120, 7, 100)),
    "chat stream": (_events(CHUNK, CHUNK, {"choices": [], "usage": OPENAI}), (120, 7, 100)),
    "chat stream, its use not asked for": (_events(CHUNK, CHUNK), UNSAID),
    "chat stream with running counts": (
        _events({**CHUNK, "usage": {**OPENAI, "completion_tokens": 1}}, {"choices": [], "usage": OPENAI}),
        (120, 7, 100),
    ),
    "chat stream of llama-server": (
        _events({"choices": []}, {"choices": [], "timings": TIMINGS}),
        (120, 7, 100),
    ),
    "use, then an event of another kind": (
        _events({"choices": [], "usage": OPENAI}, CHUNK, done=False),
        (120, 7, 100),
    ),
    "response stream": (
        _events({"type": "response.completed", "response": {"usage": RESPONSES, "metadata": {}}}, done=False),
        (120, 7, 100),
    ),
    "message stream, whole": (
        _events(
            {"type": "message_start", "message": {"usage": {**ANTHROPIC, "output_tokens": 1}}},
            {"type": "content_block_delta", "delta": {"text": '"usage":{"input_tokens":4}'}},
            {"type": "message_delta", "usage": {"output_tokens": 7}},
            {"type": "message_stop"},
            done=False,
        ),
        (120, 7, 100),
    ),
    "message stream, its end": (_events({"usage": {"output_tokens": 7}}, done=False), (-1, 7, -1)),
    "message stream with everything at its end": (
        _events({"type": "message_delta", "usage": ANTHROPIC}, done=False),
        (120, 7, 100),
    ),
    "chat of Ollama": (
        _json(message={}, done=True, prompt_eval_count=26, prompt_eval_duration=342, eval_count=259),
        (26, 259, -1),
    ),
    "no use": (_json(id="1", choices=WORDS), UNSAID),
    "nothing": (b"", UNSAID),
    "sound": (bytes(range(256)) * 16, UNSAID),
}


@pytest.mark.parametrize(("tail", "use"), SAID.values(), ids=SAID)
def test_every_server_s_way_to_say_its_use_is_read(tail: bytes, use: Use) -> None:
    assert use_of(tail) == use


@pytest.mark.parametrize(("tail", "use"), SAID.values(), ids=SAID)
def test_an_answer_that_is_cut_says_the_same_or_nothing(tail: bytes, use: Use) -> None:
    for begin in range(len(tail)):
        prompt, answer, cached = use_of(tail[begin:])
        assert prompt in (use[0], -1), begin
        assert answer in (use[1], -1), begin
        assert cached in (use[2], -1), begin


@pytest.mark.parametrize(
    "tail",
    [
        b'{"usage": {"prompt_tokens": -5, "completion_tokens": 1}}',
        b'{"usage": {"prompt_tokens": 1e300}}',
        b'{"usage": {"prompt_tokens": "12"}}',
        b'{"usage": {"prompt_tokens": 99999999999999999999999999}}',
        b'{"usage": {"prompt_tokens": true}}',
        b'{"usage": [1, 2]}',
        b'["usage",{"prompt_tokens":9}]',
        b'["\\"usage", {"prompt_tokens":9}]',
        b'["eval_count", 9]',
        b'{"usage": {"prompt_tokens": 12',
        b'"usage"',
        b'{"usage": ',
        b'{"timings": {"predicted_n": -1}}',
        b'{"content": "\\"eval_count\\": 5"}',
    ],
)
def test_what_is_no_sound_count_is_not_counted(tail: bytes) -> None:
    assert use_of(tail) == UNSAID


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        '"usage":{"prompt_tokens":9}',
        '"timings":{"predicted_n":9}',
        '"eval_count":9',
        '"usage": {"output_tokens": 9}',
    ],
)
def test_a_model_can_not_say_what_it_costs(words: str, small: bool) -> None:
    padding = "" if small else "x" * 4096
    tail = _json(padding=padding, content=words)
    for begin in (0, *range(len(tail) - 80, len(tail))):
        assert use_of(tail[begin:]) == UNSAID


def test_a_stream_that_is_cut_in_its_first_event_still_says_its_answer() -> None:
    begin = _events({"type": "message_start", "message": {"usage": ANTHROPIC}}, done=False)
    end = _events({"type": "message_delta", "usage": {"output_tokens": 7}}, done=False)
    assert use_of(begin + b"x" * 4096 + end) == (120, 7, 100)
    for cut in range(len(begin)):
        assert use_of(begin[:cut] + b"x" * 4096 + end) in ((120, 7, 100), (-1, 7, -1)), cut


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([tail for tail, _ in SAID.values()]), st.integers(0, 600))
def test_no_bytes_are_an_error(noise: bytes, tail: bytes, at: int) -> None:
    for text in (noise, tail[:at] + noise + tail[at:], noise + tail[at:]):
        assert all(-1 <= count <= 10**12 * 3 for count in use_of(text))
