"""Bodies on their way up: what is kept, what is passed on as it comes, and what is too much."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from proxy_kit import CHAT, CHAT_PATH, Site, Wire, request, run, site

from labctl.domain.gateway.table import Limits
from labctl.gateway.proxy import bodies
from labctl.gateway.terms import Exchange

FORM_PATH = "/v1/audio/transcriptions"
FILE = 'file"; filename="a.wav'
FORM_TYPE = "Content-Type: multipart/form-data; boundary=----a"
SMALL = Limits(json_bytes=1000, upload_bytes=200_000, form_bytes=2000, held_bytes=30_000, head_bytes=4096)


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [
        b'------a\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
        for name, value in fields
    ]
    return b"".join(parts) + b"------a--\r\n"


def chunked(path: str, body: bytes, *headers: str, size: int = 100) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: g", "Transfer-Encoding: chunked", *headers, "", ""]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return "\r\n".join(lines).encode() + framed + b"0\r\n\r\n"


# --- the model in a body ---


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model": "a", "stream": true}', "a", True),
        (b'{"messages": [{"model": "b"}], "model": "a"}', "a", False),
        (b'{"stream": null, "model": "a"}', "a", False),
        (b'{"model": 7, "stream": true}', "", True),
        (b'{"model": null}', "", False),
        (b"{}", "", False),
        (b'{"model": "a", "stream": "yes"}', "a", False),
        ('{"model": "naïve/机"}'.encode(), "naïve/机", False),
        (b'{"\\u006dodel": "a"}', "a", False),
    ],
)
def test_the_model_is_what_the_body_says(body: bytes, model: str, stream: bool) -> None:
    assert bodies.peek(body)[:2] == (model, stream)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"model"', b"{", b'{"model": "a"} x', b"\xff\xfe{", b"[" * 100_000]
)
def test_what_is_no_json_object_is_told_and_not_quoted(body: bytes) -> None:
    with pytest.raises(bodies.Unreadable, match=r"the request's body is no JSON"):
        bodies.peek(body)


def test_a_name_that_stands_twice_goes_on_once_as_it_was_understood() -> None:
    for body in (
        b'{"model": "a", "x": 1, "model": "b"}',
        b'{"model": "a", "x": 1, "mod\\u0065l": "b"}',
        b'{"model": "b", "x": 1, "MODEL": "a"}',  # Go's encoding/json would take the last one
        b'{"model": "b", "x": 1, "\\u004dodel": "a"}',
    ):
        assert bodies.peek(body) == ("b", False, b'{"model":"b","x":1}')


def test_any_other_body_goes_on_to_the_byte() -> None:
    body = b'{ "model" : "a" ,\n "x": [1,2 , 3], "t": "the \\"model\\"" }'
    assert bodies.peek(body)[2] is body


@settings(max_examples=200)
@given(
    some.lists(
        some.tuples(some.sampled_from(["file", "a", "language", "model2"]), some.binary(max_size=40)),
        max_size=4,
    ),
    some.text("abc-机 ", min_size=1, max_size=8).map(str.strip).filter(bool),
    some.data(),
)
def test_a_forms_model_is_found_wherever_it_stands_and_however_it_comes(
    before: list[tuple[str, bytes]], model: str, data: some.DataObject
) -> None:
    fields = [(name, value.replace(b"--", b"")) for name, value in before]
    body = form(*fields, ("model", model.encode()), ("file", b"x" * 50))
    cuts = sorted(data.draw(some.lists(some.integers(0, len(body)), max_size=6)))
    reader = bodies.Form(b"----a")
    found: str | None = None
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        found = reader.feed(body[start:end])
    assert found == model
    assert reader.read == body


@pytest.mark.parametrize(
    "body",
    [
        form(("file", b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nno')),
        form(("file", b"----a")),
        form(('f"; filename="; name=model', b"no")),
        form() + form(("model", b"behind the end")),
        form(("f", b'\r\n------ab\r\nContent-Disposition: form-data; name="model"\r\n\r\nno')),
    ],
    ids=["in a file", "a boundary in a file", "in a file's name", "behind the end", "another boundary"],
)
def test_what_only_looks_like_the_field_is_not_the_model(body: bytes) -> None:
    assert bodies.Form(b"----a").feed(body) is None


def test_a_form_that_never_ends_its_heads_is_refused() -> None:
    with pytest.raises(bodies.Unreadable, match="has no end to its head"):
        bodies.Form(b"a").feed(b"--a\r\nX: " + b"y" * 20_000)


MODEL = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
START = b"------a" + MODEL + b"a\r\n------a"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (START + MODEL + b"b\r\n------a--", "more than one field `model`"),
        (b'{"model": "b"}\r\n' + START, "does not begin with its boundary"),
        (b"------a\n" + START, "does not begin with its boundary|does not end its line"),
        (START + b" " + MODEL, "does not end its line"),
        (START + MODEL.replace(b"model", b"x") + b"------a" + MODEL, "has no value"),
        (START + b"\r\nContent-Disposition: form-data;\r\n name=model\r\n\r\nb", "folded or broken"),
        (START + b"\r\nX: y\nContent-Disposition: form-data; name=model\r\n\r\nb", "folded or broken"),
        (START + b"\r\nContent-Disposition: form-data; name=x; name=model\r\n\r\nb", "more than one name"),
        (START + b'\r\nContent-Disposition: form-data; name="mo\\del"\r\n\r\nb', "more than one name"),
        (START + b"\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\nb", "an encoded one"),
        (
            START + b'\r\nContent-Disposition: form-data; filename="\\"; name=x; name=model\r\n\r\nb',
            "more than one name",
        ),
        (START + b"\r\nContent-Disposition: x" + MODEL + b"b", "an unclear Content-Disposition"),
        (START + b"\r\nContent-Disposition : form-data; name=model\r\n\r\nb", "an unclear"),
    ],
)
def test_a_form_in_which_others_could_find_another_model_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(bodies.Unreadable, match=words):
        bodies.Form(b"----a").feed(body)
    reader = bodies.Form(b"----a")
    with pytest.raises(bodies.Unreadable, match=words):
        for at in range(len(body)):
            known = reader.feed(body[at : at + 1])
            if known is not None:
                for further in range(at + 1, len(body)):
                    reader.watch(body[further : further + 1])
                break


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data; boundary=a; boundary=b",
        b"multipart/form-data; boundary*=a; boundary=b",
        b'multipart/form-data; boundary="a\\b"',
        b"multipart/form-data",
    ],
)
def test_a_form_has_one_boundary(kind: bytes) -> None:
    with pytest.raises(bodies.Unreadable, match="says no boundary"):
        bodies.boundary_of(kind)


def test_what_honest_clients_send_is_taken() -> None:
    """The heads of curl, httpx, requests, browsers and of the `form-data` package."""
    for kind in (b"boundary=----WebKitFormBoundary7MA4YWxk", b'boundary="a.b"', b"charset=utf-8; boundary=x"):
        assert bodies.boundary_of(b"multipart/form-data; " + kind)
    for head in (
        b'Content-Disposition: form-data; name="file"; filename="a \\"quoted\\" name.mp3"\r\nX: y',
        b"Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve.mp3",
        b'content-disposition: form-data; name="file"; filename="name=model.mp3"',
        b'Content-Disposition: form-data; name="file"; filename="content-disposition.mp3"',
        b'Content-Length: 3\r\nContent-Disposition: form-data; name="file"; filename="C:\\a.mp3"',
        b"",
    ):
        body = b"--x\r\n" + head + b"\r\n" * (2 if head else 1) + b"abc\r\n--x" + MODEL + b"tiny\r\n--x--\r\n"
        assert bodies.Form(b"x").feed(body) == "tiny"


# --- on the wire ---


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_form_flows_on_as_soon_as_its_model_is_known(framing: str) -> None:
    async def test() -> None:
        async with site() as here:
            speech = bytes(range(256)) * 4096  # 1 MiB
            body = form(("model", b"whisper"), (FILE, speech))
            raw = (
                request("POST", FORM_PATH, body, FORM_TYPE)
                if framing == "length"
                else chunked(FORM_PATH, body, FORM_TYPE, size=10_000)
            )
            client = await here.client()
            await client.say(raw[: len(raw) // 2])
            await here.desk.until(lambda: len(here.desk.exchanges) == 1)
            ask = here.desk.asked[0]
            assert (ask.model, ask.rest) == ("whisper", True)
            assert len(ask.body) < 300_000, "the rest isn't kept"
            await client.say(raw[len(raw) // 2 :])
            assert (await client.answer()).status == 200
            assert here.double.seen[0].body == body
            assert (await here.desk.ended_with(1)).bytes_in == len(body)
            assert (await client.post(CHAT_PATH, CHAT)).status == 200

    run(test())


def test_a_form_under_another_name_of_its_model_keeps_its_length_right() -> None:
    async def test() -> None:
        async with site() as here:

            def rename(exchange: Exchange) -> None:
                here.desk.send(exchange, body=exchange.ask.body.replace(b"mine", b"their-name"))

            here.desk.at_start = rename
            body = form(("model", b"mine"), (FILE, b"x" * 300_000))
            client = await here.client()
            for raw in (request("POST", FORM_PATH, body, FORM_TYPE), chunked(FORM_PATH, body, FORM_TYPE)):
                await client.say(raw)
                assert (await client.answer()).status == 200
                assert here.double.seen[-1].body == body.replace(b"mine", b"their-name")

    run(test())


def test_an_upload_is_neither_read_nor_kept_before_somebody_takes_it() -> None:
    async def test() -> None:
        async with site() as here:
            here.desk.at_start = lambda exchange: None
            client = await here.client()
            body = b"x" * 30_000_000
            sending = asyncio.ensure_future(client.say(request("POST", "/flow", body)))
            await here.desk.until(lambda: len(here.desk.exchanges) == 1)
            (inside,) = here.proxy.clients
            for _ in range(100):
                await asyncio.sleep(0)
            assert sum(map(len, inside._pieces)) < 1_000_000
            here.desk.send(here.desk.exchanges[0])
            await sending
            assert (await client.answer()).status == 404
            assert here.double.seen[0].body == body

    run(test())


def test_an_upstream_that_does_not_read_holds_the_client_and_not_our_memory() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            await client.say(request("POST", "/flow", b"x" * 40_000_000)[:100])
            await here.double.until(lambda: len(here.double.open) == 1)
            (double,) = here.double.open
            double.transport.pause_reading()
            sending = asyncio.ensure_future(client.say(b"x" * (40_000_000 - 40)))
            exchange = here.desk.exchanges[0]
            inside = exchange.client  # type: ignore[attr-defined]
            while not (inside._flowing and inside._paused):
                await asyncio.sleep(0)
            up = exchange._up  # type: ignore[attr-defined]
            assert up.transport.get_write_buffer_size() < 1_000_000
            double.transport.resume_reading()
            await sending
            client.cut()
            await here.desk.ended_with(1)

    run(test())


def test_a_client_that_leaves_an_upload_that_nobody_reads_yet_is_noticed() -> None:
    async def test() -> None:
        async with site(replace(SMALL, head_s=0.2)) as here:
            here.desk.at_start = lambda exchange: None
            client = await here.client()
            await client.say(request("POST", "/flow", b"x" * 100_000))
            await here.desk.until(lambda: len(here.desk.exchanges) == 1)
            client.writer.close()
            assert (await here.desk.ended_with(1)).how == "left"

    run(test())


def test_an_upload_is_not_sent_to_a_second_upstream_once_it_flowed() -> None:
    async def test() -> None:
        async with site(doubles=2) as here:
            here.double.faults.append("hang-up")
            client = await here.client()
            answer = await client.post("/flow", b"x" * 500_000)
            assert answer.status == 502
            assert [(failure.kind, failure.sent) for failure in here.desk.failures] == [("reset", True)]
            assert here.doubles[1].seen == []

    run(test())


def test_an_upload_goes_to_the_next_where_the_first_takes_no_connection() -> None:
    async def test() -> None:
        async with site(doubles=2) as here:
            await here.double.stop()
            client = await here.client()
            assert (await client.post("/flow", b"x" * 500_000)).status == 404
            assert [(failure.kind, failure.sent) for failure in here.desk.failures] == [("connect", False)]
            assert here.doubles[1].seen[0].body == b"x" * 500_000

    run(test())


@pytest.mark.parametrize("path", [CHAT_PATH, "/flow"])
def test_who_asks_before_it_sends_is_told_to_go_on(path: str) -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            raw = request("POST", path, CHAT, "Expect: 100-continue")
            head = raw[: -len(CHAT)]
            for _ in range(2):
                await client.say(head)
                status, _, line = await client.head()
                assert (status, line) == (100, b"HTTP/1.1 100 Continue\r\n\r\n")
                await client.say(CHAT)
                assert (await client.answer()).status in (200, 404)
            assert here.double.seen[0].header("expect") is None
            assert here.double.seen[0].body == CHAT

    run(test())


async def refused(here: Site, raw: bytes) -> tuple[int, bytes]:
    client: Wire = await here.client()
    await client.say(raw)
    answer = await client.answer()
    assert answer.headers["connection"] == "close"
    client.writer.write_eof()
    assert await client.gone()
    return answer.status, answer.body


@pytest.mark.parametrize(
    ("raw", "status", "words"),
    [
        (request("POST", CHAT_PATH, b"x" * 1001), 413, b"the body is larger than 1000 bytes"),
        (chunked(CHAT_PATH, b"x" * 1200), 413, b"the body is larger than 1000 bytes"),
        (request("POST", "/flow", b"x" * 200_001), 413, b"the body is larger than 200000 bytes"),
        (chunked("/flow", b"x" * 210_000, size=10_000), 413, b"the body is larger than 200000 bytes"),
        (
            request("POST", FORM_PATH, form(("file", b"x" * 5000), ("model", b"m")), FORM_TYPE)[:-80],
            *(413, b"put the field `model` before the file"),
        ),
        (request("POST", FORM_PATH, b"x", "Content-Type: multipart/form-data"), 400, b"says no boundary"),
        (request("POST", CHAT_PATH, b"not json"), 400, b"the request's body is no JSON"),
        (chunked(CHAT_PATH, b"{}").replace(b"0\r\n\r\n", b"zz\r\n"), 400, b"the body's chunks are none"),
        (
            chunked(CHAT_PATH, b"{}").replace(b"0\r\n\r\n", b"0\r\nA: " + b"y" * 300_000),
            431,
            b"between the body's",
        ),
        (request("POST", CHAT_PATH, CHAT, "Expect: magic"), 417, b"the only Expect known here"),
        (request("POST", CHAT_PATH, CHAT, "X: " + "y" * 5000), 431, b"the head is larger than 4096 bytes"),
        (request("GET", "/", None, *["A: b"] * 101), 431, b"more than 100 headers"),
        (request("BREW", "/", None), 400, b"the request is no HTTP/1.1"),
        (request("MKCOL", "/", None), 501, b"this method is not known here"),
        (request("GET", "/").replace(b"1.1", b"2.0"), 505, b"HTTP/2.0 is not spoken here"),
        (request("GET", "/a#b"), 400, b"characters that no path has"),
        (request("GET", "http://u@h/"), 400, b"target is not a path"),
        (
            request("GET", "/", None, "Authorization: a", "Authorization: b"),
            400,
            b"authorization stands twice",
        ),
    ],
    ids=lambda value: value.decode("latin-1")[:40] if isinstance(value, bytes) else str(value),
)
def test_what_is_too_much_or_none_is_refused_in_words(raw: bytes, status: int, words: bytes) -> None:
    async def test() -> None:
        async with site(SMALL) as here:
            got, body = await refused(here, raw)
            assert (got, words in body) == (status, True), body
            assert all(seen.path == "/flow" for seen in here.double.seen)

    run(test())


def test_bodies_of_all_clients_together_are_limited() -> None:
    async def test() -> None:
        async with site(replace(SMALL, held_bytes=3000)) as here:
            here.double.gate.clear()
            body = b'{"model": "tiny", "x": "%b"}' % (b"x" * 900)
            waiting = []
            for count in range(1, 4):
                client = await here.client()
                await client.say(request("POST", CHAT_PATH, body))
                await here.double.until(lambda count=count: len(here.double.seen) == count)  # type: ignore[misc]
                waiting.append(client)
            assert here.proxy.held == 3 * len(body)
            status, words = await refused(here, request("POST", CHAT_PATH, body))
            assert (status, b"other requests' bodies fill what may be kept" in words) == (503, True)
            here.double.gate.set()
            assert [(await client.answer()).status for client in waiting] == [200] * 3
            assert here.proxy.held == 0
            assert (await waiting[0].post(CHAT_PATH, body)).status == 200

    run(test())


def test_an_upstream_that_answers_before_the_upload_is_over_is_heard() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            head, _, _ = request("POST", "/flow", b"x" * 5_000_000).partition(b"xxx")
            await client.say(head)
            await here.double.until(lambda: len(here.double.seen) == 1)
            (double,) = here.double.open
            double.transport.write(b"HTTP/1.1 401 Nope\r\nContent-Length: 2\r\n\r\nno")
            answer = await client.answer()
            assert (answer.status, answer.body, answer.headers["connection"]) == (401, b"no", "close")
            assert (await here.desk.ended_with(1)).how == "served"
            await client.say(b"x" * 100_000)  # still on its way; it takes the answer from nobody
            client.writer.write_eof()
            assert await client.gone()

    run(test())
