"""The official OpenAI client and curl, for real, against a whole gateway with doubles behind it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from assembled_kit import SECRET as KEY
from clients_kit import Plan, Site, gateway_of, key, until
from upstream_double import ARGUMENTS, SPEECH, VECTOR, WORDS, Fault, form_of, frame, read_frame

from labctl.domain.gateway.table import Limits
from labctl.domain.sleep.lifecycle import Event, Mode

TEXT = "".join(WORDS)
ASKED: Any = {"model": "tiny", "messages": [{"role": "user", "content": "How is the rack?"}]}
FEW = "sk-labctl-for-few"
PLAN = Plan(
    hosts={"box": Mode.READY, "sleeper": Mode.ASLEEP, "sloth": Mode.ASLEEP, "snail": Mode.ASLEEP},
    models={"tiny": ("box",), "big": ("sleeper",), "never": ("sloth",), "late": ("snail",)},
    keys=(key(), key("few", FEW, models=("tiny",), sees=False, wakes_per_hour=0)),
    aliases={"tiny": ("org/tiny", "gpt-4o")},
    limits=Limits(say_after_s=0.02, say_every_s=0.05, json_bytes=64 * 1024, form_bytes=1024 * 1024),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gateway_of(tmp_path_factory.mktemp("gateway"), PLAN) as site:
        yield site


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


# --- openai


def test_openai_lists_the_models_with_their_state(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert list(models) == ["tiny", "big", "never", "late"]
    told: Any = models["tiny"].model_extra
    assert told["labctl"]["state"] == "ready" and told["labctl"]["expected_s"] == 0
    assert client.models.retrieve("org/tiny").id == "org/tiny"
    with pytest.raises(openai.NotFoundError, match="no model is called 'huge' here"):
        client.models.retrieve("huge")


def test_openai_chats(client: openai.OpenAI, site: Site) -> None:
    answer = client.chat.completions.create(**ASKED)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage and answer.usage.completion_tokens == len(WORDS)
    sent = site.doubles["box"].seen[-1]
    assert sent.json == ASKED
    # The client's key is nobody's business behind us.
    assert sent.header("authorization") is None and KEY not in sent.raw.decode()


def test_openai_chats_by_an_alias_that_the_upstream_never_hears(client: openai.OpenAI, site: Site) -> None:
    client.chat.completions.create(**{**ASKED, "model": "gpt-4o"}, seed=2**53 + 1)
    assert site.doubles["box"].seen[-1].json == {**ASKED, "seed": 2**53 + 1}


def test_openai_streams_word_by_word_with_the_usage_at_the_end(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert [word for word in words if word] == list(WORDS)
    assert chunks[-1].usage and chunks[-1].usage.total_tokens == 7 + len(WORDS)


@pytest.mark.parametrize("stream", [False, True])
def test_openai_calls_tools(client: openai.OpenAI, stream: bool) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    if stream:
        chunks = client.chat.completions.create(**ASKED, tools=tools, stream=True)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        name = calls[0].function.name
        arguments = "".join(call.function.arguments for call in calls)
    else:
        (call,) = client.chat.completions.create(**ASKED, tools=tools).choices[0].message.tool_calls or ()
        name, arguments = call.function.name, call.function.arguments
    assert (name, arguments) == ("weather", ARGUMENTS)


def test_openai_asks_for_embeddings_completions_images_and_speech(client: openai.OpenAI) -> None:
    both = client.embeddings.create(model="tiny", input=["a", "b"])
    assert [one.embedding for one in both.data] == [list(VECTOR)] * 2
    assert client.completions.create(model="tiny", prompt="a").choices[0].text == TEXT
    assert client.images.generate(model="tiny", prompt="a rack").data
    with client.audio.speech.with_streaming_response.create(model="tiny", voice="a", input="b") as said:
        assert said.read() == SPEECH


def test_openai_uploads_a_recording_that_is_larger_than_what_is_held(
    client: openai.OpenAI, site: Site
) -> None:
    recording = bytes(range(256)) * 16 * 1024
    assert len(recording) > PLAN.limits.form_bytes
    said = client.audio.transcriptions.create(model="tiny", file=("talk.wav", recording))
    digest = hashlib.sha256(recording).hexdigest()
    assert said.text == f"{len(recording)} bytes of talk.wav: {digest}"
    assert form_of(site.doubles["box"].seen[-1])["model"] == b"tiny"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_speaks_the_responses_api(client: openai.OpenAI, stream: bool) -> None:
    if not stream:
        assert client.responses.create(model="tiny", input="a").output_text == TEXT
        return
    events = list(client.responses.create(model="tiny", input="a", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == list(WORDS) and events[-1].type == "response.completed"


def test_openai_leaves_a_stream_and_the_upstream_is_told(client: openai.OpenAI, site: Site) -> None:
    double = site.doubles["box"]
    before = double.cancelled
    stream = client.chat.completions.create(**ASKED, stream=True, extra_headers={"x-double": Fault.ENDLESS})
    for _, _ in zip(range(20), stream, strict=False):
        pass
    stream.close()
    site.call(double.until(lambda: double.cancelled == before + 1))


def test_openai_gives_up_before_an_answer_and_the_upstream_is_told(client: openai.OpenAI, site: Site) -> None:
    double = site.doubles["box"]
    before = double.cancelled
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**ASKED, extra_headers={"x-double": Fault.SILENT}, timeout=0.3)
    site.call(double.until(lambda: double.cancelled == before + 1))


def test_openai_shows_why_it_is_refused(client: openai.OpenAI, site: Site) -> None:
    with pytest.raises(openai.AuthenticationError, match="the key that was shown is not known here"):
        client.with_options(api_key="sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="did you mean tiny") as refused:
        client.chat.completions.create(**{**ASKED, "model": "tini"})
    assert refused.value.code == "no-such-model"
    few = client.with_options(api_key=FEW)
    with pytest.raises(openai.PermissionDeniedError, match="the key few may not ask for big"):
        few.chat.completions.create(**{**ASKED, "model": "big"})
    assert [model.id for model in few.models.list()] == ["tiny"]
    assert site.wishes() == []


def test_openai_sees_that_a_stream_was_cut(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        **ASKED, stream=True, extra_headers={"x-double": Fault.CUT_IN_CHUNK}
    )
    with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
        list(stream)


def test_openai_waits_for_a_host_that_wakes_and_skips_what_is_said_meanwhile(
    client: openai.OpenAI, site: Site
) -> None:
    asked = {**ASKED, "model": "big"}
    # Shorter than the wake: the comments are what keeps it waiting.
    patient = client.with_options(timeout=httpx.Timeout(5, read=0.5))
    stream = patient.chat.completions.create(**asked, stream=True)
    (wish,) = site.wished()
    assert (wish.host, wish.by, wish.why) == ("sleeper", "gateway tests", "big was asked for")
    site.move("sleeper", Event.WISHED)
    until(
        lambda: (
            httpx.get(f"{site.url}/v1/models/big", headers=site.auth).json()["labctl"]["state"] == "waking"
        )
    )
    site.move("sleeper", Event.SEEN, Event.PASSED)
    words = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert [word for word in words if word] == list(WORDS)
    assert site.wished(0) == []
    # It is awake now, and served without a wish.
    assert client.chat.completions.create(**asked).choices[0].message.content == TEXT


def test_openai_shows_why_a_stream_that_has_begun_gets_no_answer(client: openai.OpenAI, site: Site) -> None:
    asked = {**ASKED, "model": "late"}
    stream = client.chat.completions.create(**asked, stream=True, extra_headers={"Prefer": "wait=1"})
    assert stream.response.headers["access-control-allow-origin"] == "*"
    with pytest.raises(openai.APIError, match="waited 1 s: snail is asleep, and is being woken"):
        list(stream)
    assert site.wished(0) == []


# --- curl


def _curl(*argv: str, stdin: bytes = b"", status: int = 0) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt install curl")
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *argv], input=stdin, capture_output=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def _posted(site: Site, path: str, document: object, *more: str) -> bytes:
    body = json.dumps(document).encode()
    return _curl(
        f"{site.url}{path}", "-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json",
        "--data-binary", "@-", *more, stdin=body,
    )  # fmt: skip


def test_curl_streams_the_bytes_that_the_upstream_sent(site: Site) -> None:
    double = site.doubles["box"]
    got = _posted(site, "/v1/chat/completions", {**ASKED, "stream": True}, "-N")
    assert got == b"".join(double.reply(double.seen[-1]).pieces or ())


def test_curl_speaks_http_1_0_and_asks_before_it_sends(site: Site) -> None:
    assert (
        TEXT
        in json.loads(_posted(site, "/v1/chat/completions", ASKED, "-0"))["choices"][0]["message"].values()
    )
    told = _posted(site, "/v1/chat/completions", ASKED, "-H", "Expect: 100-continue", "-i")
    assert told.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


def test_curl_keeps_its_connection(site: Site) -> None:
    ask = f"{site.url}/v1/models"
    told = _curl(
        "-H", f"x-api-key: {KEY}", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", ask, ask
    )
    assert told.split() == [b"1", b"0"]


def test_curl_uploads_a_form(site: Site, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH * 100)
    told = _curl(
        f"{site.url}/v1/audio/transcriptions", "-H", f"x-api-key: {KEY}",
        "-F", "model=tiny", "-F", f"file=@{tmp_path}/talk.wav",
    )  # fmt: skip
    assert hashlib.sha256(SPEECH * 100).hexdigest().encode() in told


def test_curl_is_told_what_is_too_large(site: Site) -> None:
    told = json.loads(_posted(site, "/v1/chat/completions", {**ASKED, "user": "u" * 70_000}))
    assert told["status"] == 413 and told["error"]["code"] == "too-large"


def test_curl_reads_the_pages_that_need_no_key(site: Site) -> None:
    assert json.loads(_curl(f"{site.url}/health")) == {"status": "ok", "store": "ok"}
    assert b"<title>labctl gateway</title>" in _curl(f"{site.url}/")
    head = _curl("-I", f"{site.url}/health")
    assert head.startswith(b"HTTP/1.1 200 ") and head[-4:] == b"\r\n\r\n"
    told = _curl("-i", "-X", "OPTIONS", f"{site.url}/v1/chat/completions", "-H", "Origin: https://a.example")
    assert b"\r\nAccess-Control-Allow-Origin: *\r\n" in told
    assert json.loads(_curl(f"{site.url}/v1/models"))["error"]["code"] == "no-key"


def test_curl_wakes_in_advance_and_learns_how_long_it_takes(site: Site) -> None:
    told = json.loads(_posted(site, "/labctl/v1/prewake", {"model": "never"}))
    assert (told["host"], told["state"], told["expected_s"]) == ("sloth", "waking", 60.0)
    (wish,) = site.wished()
    assert (wish.host, wish.by, wish.why) == ("sloth", "gateway tests", "never was asked for in advance")
    # A request joins the wake that is under way, even one of a key that may wake nobody.
    assert json.loads(_posted(site, "/labctl/v1/prewake", {"host": "sloth"}))["host"] == "sloth"
    assert len(site.wishes()) == 1
    site.move("sloth", Event.WISHED, Event.SEEN, Event.BROKEN)
    site.wished(0)
    assert json.loads(_posted(site, "/labctl/v1/prewake", {"model": "tiny"}))["state"] == "ready"


def test_a_web_page_may_read_whatever_the_gateway_says_by_itself(site: Site) -> None:
    allowed = b"\r\nAccess-Control-Allow-Origin: *\r\n"
    for path in ("/health", "/v1/models", "/v1/nothing"):
        told = _curl("-i", f"{site.url}{path}", "-H", "Origin: https://chat.example")
        assert told.count(b"\r\nAccess-Control-Allow-Origin:") == 1 and allowed in told


def test_metrics_and_status_are_for_keys_that_may_see(site: Site) -> None:
    _posted(site, "/v1/chat/completions", ASKED)
    text = _curl(f"{site.url}/metrics", "-H", f"Authorization: Bearer {KEY}").decode()
    assert 'labctl_gateway_host_mode{host="box",mode="ready"' in text
    assert "labctl_gateway_requests_total{" in text and "labctl_gateway_store_usable" in text
    told = json.loads(_curl(f"{site.url}/labctl/v1/status", "-H", f"x-api-key: {FEW}"))
    assert told["error"]["code"] == "may-not-see"


def test_anthropics_messages_are_passed_on(site: Site) -> None:
    asked = {"model": "tiny", "max_tokens": 9, "messages": ASKED["messages"]}
    assert json.loads(_posted(site, "/v1/messages", asked))["content"][0]["text"] == TEXT
    assert json.loads(_posted(site, "/v1/messages/count_tokens", asked)) == {"input_tokens": 7}
    assert b"event: message_stop" in _posted(site, "/v1/messages", {**asked, "stream": True})


def test_an_engines_own_paths_are_reached_as_far_as_they_are_let_through(site: Site) -> None:
    assert json.loads(_posted(site, "/hosts/box/completion", {"prompt": "a"}))["content"] == TEXT
    assert json.loads(_posted(site, "/hosts/box/slots", {}))["error"]["code"] == "not-let-through"
    told = json.loads(_curl(f"{site.url}/hosts/sloth/props", "-H", f"x-api-key: {KEY}"))
    assert told["status"] == 503 and told["host"] == "sloth" and site.wishes() == []


def test_a_websocket_is_passed_through(site: Site) -> None:
    async def run() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(
            b"GET /v1/realtime?model=tiny HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        for size in (1, 70_000):
            writer.write(frame(2, b"m" * size, mask=b"mask"))
            assert await read_frame(reader.readexactly) == (2, b"m" * size)
        writer.close()

    asyncio.run(run())


def test_what_was_asked_answered_and_shown_as_a_key_is_in_no_log(site: Site) -> None:
    _posted(site, "/v1/chat/completions", ASKED)
    _curl(f"{site.url}/v1/models", "-H", f"x-api-key: {FEW}")
    _curl(f"{site.url}/v1/models", "-H", "Authorization: Bearer sk-wrong")
    until(lambda: '"code":"unknown-key"' in site.rack.log.read_text())
    log = site.rack.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["key"] for line in lines} >= {"tests", "few"}
    assert not [
        word
        for word in (KEY, FEW, "How is the rack", "naïve", "sk-wrong")
        if word in site.rack.log.read_text()
    ]
