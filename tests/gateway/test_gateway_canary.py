"""Secrets, prompts and answers stand nowhere: a gateway is asked in every way, then all it left is read.

Each kind of thing that must not leak has a canary, a word that comes from nowhere else. After the questions,
the log, the metrics, the store's files, what the process said and every refusal are searched for all of them.
That the search can find something is shown by what must be there: a line for each request, names, codes.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvloop
from access_world import key
from books_kit import NOW, Unflushed, bring
from upstream_double import Double

from labctl.adapters.store import store_at
from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Key, Kind, Limits, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.assembly import Around, assemble

GOOD = "sk-canary-good-key"
IDLE = "sk-canary-idle-key"
WRONG = "sk-canary-wrong-key"
UPSTREAM = "sk-canary-upstream-key"
PROMPT = "CANARY-PROMPT"
ANSWER = "CANARY-ANSWER"
QUERY = "CANARY-QUERY"
HEADER = "CANARY-HEADER"
CANARIES = [word.encode() for word in (GOOD, IDLE, WRONG, UPSTREAM, PROMPT, ANSWER, QUERY, HEADER)]
KEYS = (key("alice", GOOD), key("idler", IDLE, wakes_per_hour=0))

CHAT = "/v1/chat/completions"
SAYS = {"messages": [{"role": "user", "content": f"tell me of {PROMPT}"}]}


def _request(path: str, body: bytes, *headers: str, secret: str = GOOD) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gateway",
        *([f"Authorization: Bearer {secret}"] if secret else []),
        f"Cookie: session={HEADER}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join((*lines, "", "")).encode() + body


def _chat(model: str = "tiny", *headers: str, path: str = CHAT, secret: str = GOOD, **more: object) -> bytes:
    body = json.dumps({"model": model, **SAYS, **more}).encode()
    return _request(path, body, "Content-Type: application/json", *headers, secret=secret)


def _form() -> bytes:
    body = (
        '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="{PROMPT}.wav"\r\n\r\n{PROMPT}\r\n'
        "--b--\r\n"
    )
    return _request(
        "/v1/audio/transcriptions", body.encode(), "Content-Type: multipart/form-data; boundary=b"
    )


# What is asked, and the status that it gets (0: the connection breaks).
ASKED: dict[str, tuple[bytes, set[int]]] = {
    "served": (_chat(), {200}),
    "streamed": (_chat(stream=True), {200}),
    "with a query": (_chat(path=f"{CHAT}?api_key={QUERY}"), {200}),
    "embeddings": (_chat(path="/v1/embeddings", input=PROMPT), {200}),
    "messages": (_chat(path="/v1/messages", max_tokens=5), {200}),
    "a form": (_form(), {200}),
    "below hosts": (_chat(path="/hosts/box/completion", prompt=PROMPT), {200}),
    "not let through": (_chat(path="/hosts/box/slots"), {403, 404}),
    "a wrong key": (_chat(secret=WRONG), {401}),
    "no key": (_chat(secret=""), {401}),
    "a key as user and password": (_chat("tiny", f"X-Api-Key: {WRONG}", secret=""), {401}),
    "no JSON": (_request(CHAT, b'{"model": "tiny", "x": "' + PROMPT.encode()), {400}),
    "a model of no kind": (_request(CHAT, b'{"model": ["' + PROMPT.encode() + b'"]}'), {400}),
    "no model": (_request(CHAT, json.dumps(SAYS).encode()), {400, 404}),
    "an unknown model": (_chat("nope"), {404}),
    "too large": (_chat(padding=PROMPT * 4000), {413}),
    "an error upstream": (_chat("tiny", "X-Double: status:500"), {500, 502}),
    "nothing from upstream": (_chat("tiny", "X-Double: hang-up"), {502, 503}),
    "no HTTP from upstream": (_chat("tiny", "X-Double: no-http"), {502, 503}),
    "cut under way": (_chat("tiny", "X-Double: cut-in-chunk", stream=True), {0, 200}),
    "asleep, and may not wake": (_chat("sleepy", secret=IDLE), {403}),
    "no HTTP at all": (f"POST {CHAT} HTTP/1.1\r\nHost: g\r\n{HEADER} \x01\r\n\r\n".encode(), {400}),
    "an unknown path": (_chat(path="/v1/nothing"), {404}),
    "a prewake": (_request("/labctl/v1/prewake", b'{"model": "' + PROMPT.encode() + b'"}'), {400, 404, 415}),
}


def _table(double: Double) -> Table:
    def upstream(name: str, host: str) -> Upstream:
        return Upstream(
            *(name, host, Kind.LLAMA_SERVER, "127.0.0.1", double.port),
            key_file="upstream-key",
            passes=("POST /completion",),
            wakes=("POST /completion",),
        )

    return Table(
        *("home", "127.0.0.1", 8080),
        models=(Model("tiny", "chat", 30.0), Model("sleepy", "chat", 30.0)),
        upstreams=(upstream("box", "box"), upstream("bed", "bed")),
        served=(Served("tiny", "box", "tiny"), Served("sleepy", "bed", "tiny")),
        hosts=(Host("box", True, True, 90.0), Host("bed", True, True, 90.0)),
        watts=WattRack(()),
        keys=KEYS,
        limits=replace(Limits(), json_bytes=20_000),
    )


@dataclass
class Left:
    """All that a gateway left behind, and what it said to its clients."""

    answers: dict[str, bytes] = field(default_factory=dict)
    log: bytes = b""
    metrics: bytes = b""
    status: bytes = b""
    store: bytes = b""
    seen: list[bytes] = field(default_factory=list)


async def _ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def _leave_under_way(port: int, double: Double) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_chat("tiny", "X-Double: endless", stream=True))
    await reader.readuntil(ANSWER.encode())
    writer.transport.abort()
    await double.until(lambda: bool(double.cancelled))


async def _story(folder: Path) -> Left:
    left, path = Left(), folder / "store.db"
    store = store_at(Unflushed(path, busy_s=0.5), create=True)
    bring(store, "box", Mode.READY)
    bring(store, "bed", Mode.ASLEEP)
    (folder / "upstream-key").write_text(UPSTREAM + "\n")
    log = folder / "log"
    out = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    async with Double(words=(ANSWER, " ", PROMPT)) as double:
        around = Around("one", lambda: NOW + 1, lambda: store_at(Unflushed(path), create=False), log=out)
        gateway = assemble(_table(double), folder, around)
        await gateway.start()
        server = await asyncio.get_running_loop().create_server(gateway.protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            for name, (request, _) in ASKED.items():
                left.answers[name] = await _ask(port, request)
            await _leave_under_way(port, double)
            shown = f"Host: g\r\nAuthorization: Bearer {GOOD}\r\nConnection: close\r\n\r\n"
            left.metrics = await _ask(port, f"GET /metrics HTTP/1.1\r\n{shown}".encode())
            left.status = await _ask(port, f"GET /labctl/v1/status HTTP/1.1\r\n{shown}".encode())
        finally:
            server.close()
            await gateway.drain()
            await gateway.close()
        left.seen = [bytes(seen.raw) for seen in double.seen]
    os.close(out)
    store.close()
    left.log = log.read_bytes()
    left.store = b"".join(file.read_bytes() for file in folder.glob("store.db*"))
    return left


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run(_story(tmp_path_factory.mktemp("canary")))


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.mark.parametrize("name", ASKED)
def test_every_question_got_its_answer(left: Left, name: str) -> None:
    assert _status(left.answers[name]) in ASKED[name][1], left.answers[name]


def test_the_log_has_a_line_for_each_and_no_canary(left: Left) -> None:
    lines = [json.loads(line) for line in left.log.splitlines()]
    assert len(lines) >= len(ASKED)
    assert {"served", "refused", "left"} <= {line["how"] for line in lines}
    assert {"alice", "idler"} <= {line["key"] for line in lines}
    assert {"no-key", "unknown-key", "no-such-model", "may-not-wake"} <= {line.get("code") for line in lines}
    assert [canary for canary in CANARIES if canary in left.log] == []


def test_metrics_and_status_have_no_canary(left: Left) -> None:
    assert b'labctl_gateway_requests_total{model="tiny",host="box",key="alice",status="200"' in left.metrics
    assert b'code="unknown-key"' in left.metrics
    assert [canary for canary in CANARIES if canary in left.metrics + left.status] == []


def test_the_store_has_the_story_and_no_canary(left: Left) -> None:
    assert b"not woken for the key idler of the gateway: it wakes nobody" in left.store
    assert b"the key that was shown is not known here" in left.store
    assert [canary for canary in CANARIES if canary in left.store] == []


def test_no_refusal_repeats_what_was_asked(left: Left) -> None:
    refusals = {name: answer for name, answer in left.answers.items() if _status(answer) >= 400}
    assert len(refusals) >= 10
    upstreams_own = {"an error upstream"}  # passed on as it came
    told = {
        name: [canary for canary in CANARIES if canary in answer]
        for name, answer in refusals.items()
        if name not in upstreams_own
    }
    # Which model is not known is told to whoever asked for it, in a prewake as well.
    assert {name: words for name, words in told.items() if words} in ({}, {"a prewake": [PROMPT.encode()]})


def test_answers_do_reach_their_clients(left: Left) -> None:
    assert ANSWER.encode() in left.answers["served"]
    assert ANSWER.encode() in left.answers["streamed"]


def test_an_upstream_gets_its_own_key_and_never_a_client_s(left: Left) -> None:
    assert len(left.seen) >= 8
    for request in left.seen:
        assert f"Bearer {UPSTREAM}".encode() in request
        assert not any(secret.encode() in request for secret in (GOOD, IDLE, WRONG))


def test_nothing_is_said_besides(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_story(tmp_path))
    said = "".join(capfd.readouterr()).encode()
    assert [canary for canary in CANARIES if canary in said] == []


def test_a_key_of_the_table_can_not_be_read_from_it() -> None:
    for one in KEYS:
        assert isinstance(one, Key)
        assert all(secret not in repr(one) for secret in (GOOD, IDLE))
