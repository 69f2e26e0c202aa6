"""The upstream double is what it stands for: the official client reads it, and its faults are faults."""

from __future__ import annotations

import asyncio
from collections import deque

import openai
import pytest
from upstream_double import ARGUMENTS, SPEECH, VECTOR, WORDS, Double, Fault, frame, in_thread, read_frame

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
BODY = b'{"model": "tiny", "messages": [], "stream": true}'


def test_the_official_client_reads_all_that_it_answers() -> None:
    with in_thread() as double:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{double.port}/v1", api_key="k", max_retries=0)
        with client:
            asked = {"model": "tiny", "messages": [{"role": "user", "content": "?"}]}
            whole = client.chat.completions.create(**asked)
            assert whole.choices[0].message.content == "".join(WORDS)
            stream = client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
            chunks = list(stream)
            assert [c.choices[0].delta.content for c in chunks if c.choices][1:-1] == list(WORDS)
            assert chunks[-1].usage.completion_tokens == len(WORDS)
            tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
            called = client.chat.completions.create(**asked, tools=tools).choices[0].message.tool_calls
            assert called[0].function.arguments == ARGUMENTS
            assert client.embeddings.create(model="tiny", input="a").data[0].embedding == list(VECTOR)
            said = client.audio.transcriptions.create(model="tiny", file=("a.wav", SPEECH))
            assert said.text.startswith(f"{len(SPEECH)} bytes of a.wav")
            assert client.responses.create(model="tiny", input="a").output_text == "".join(WORDS)
            events = list(client.responses.create(model="tiny", input="a", stream=True))
            assert events[-1].response.usage.output_tokens == len(WORDS)
            assert [m.id for m in client.models.list()] == ["tiny"]
        assert double.odd == [] and double.cancelled == 0


async def _send(double: Double, *pieces: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", double.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
    got = await reader.read()
    writer.close()
    return got


@pytest.mark.parametrize(
    "bytes_",
    [
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
        HEAD + b"Content-Length : 1\r\n\r\na",
        HEAD + b"Content-Length: +1\r\n\r\na",
        HEAD + b"a: b\n\r\n\r\n",
        HEAD + b" folded\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_odd(bytes_: bytes) -> None:
    async def run() -> None:
        async with Double() as double:
            assert b" 400 " in await _send(double, bytes_)
            assert len(double.odd) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fault", "begins", "ends"),
    [
        (Fault.HANG_UP, b"", b""),
        (Fault.HALF_HEAD, b"HTTP/1.1 200", b"Content-Ty"),
        (Fault.NO_HTTP, b"SSH-2.0", b"\r\n"),
        (Fault.CUT_AFTER_HEAD, b"HTTP/1.1 200", b"\r\n\r\n"),
        (Fault.CUT_BETWEEN, b"HTTP/1.1 200", b"\n\n\r\n"),
        (Fault.CUT_IN_CHUNK, b"HTTP/1.1 200", b"null}]"),
        (Fault.TO_THE_END, b"HTTP/1.1 200", b"data: [DONE]\n\n"),
        (Fault.CLOSE, b"HTTP/1.1 200", b"0\r\n\r\n"),
        ("status:503", b"HTTP/1.1 503", b"}"),
    ],
)
def test_a_fault_is_what_its_name_says(fault: str, begins: bytes, ends: bytes) -> None:
    async def run() -> None:
        async with Double() as double:
            reader, writer = await asyncio.open_connection("127.0.0.1", double.port)
            double.faults.append(fault)
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            got = await (reader.readuntil(b"}}") if fault.startswith("status") else reader.read())
            assert got.startswith(begins) and got.endswith(ends)
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.HEAD_ONLY, Fault.ENDLESS])
def test_a_client_that_goes_is_a_cancelled_request(fault: Fault) -> None:
    async def run() -> None:
        async with Double(faults=deque([fault])) as double:
            _, writer = await asyncio.open_connection("127.0.0.1", double.port)
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            await double.until(lambda: bool(double.seen and double.seen[0].body == BODY))
            writer.close()
            await double.until(lambda: double.cancelled == 1)
            assert double.seen[0].cancelled

    asyncio.run(run())


def test_chunked_bodies_and_kept_connections_and_websockets_are_read_to_the_byte() -> None:
    async def run() -> None:
        async with Double() as double:
            reader, writer = await asyncio.open_connection("127.0.0.1", double.port)
            sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n0\r\n\r\n"
            for at in range(len(sent)):
                writer.write(sent[at : at + 1])
                await asyncio.sleep(0)
            await reader.readuntil(b"}}")
            writer.write(b"GET /v1/audio HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            for size in (5, 200, 70_000):
                writer.write(frame(2, b"m" * size, mask=b"abcd"))
                assert await read_frame(reader.readexactly) == (2, b"m" * size)
            writer.close()
            assert bytes(double.seen[0].raw) == sent and double.seen[0].body == b"{}\n"
            assert {seen.connection for seen in double.seen} == {1}

    asyncio.run(run())
