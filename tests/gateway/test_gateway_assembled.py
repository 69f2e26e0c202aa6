"""All parts of the gateway together, over real sockets and a real store."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
import pytest
from assembled_kit import OWNER, SECRET, assembled, read, request, table_for, upstream
from upstream_double import Double

from labctl.cli.gateway_run import serve
from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Kind, Limits, Model, Served, Table
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.gateway.assembly import Around, assemble

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}


def story(told: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a story in a loop; what the loop hears of bugs is the test's."""

    @wraps(told)
    def test(tmp_path: Path) -> None:
        broken: list[dict[str, Any]] = []

        async def run() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
            async with asyncio.timeout(20):
                await told(tmp_path)

        asyncio.run(run())
        assert broken == []

    del test.__wrapped__  # type: ignore[attr-defined]
    return test


@story
async def test_a_request_for_an_awake_host_is_served_counted_and_logged(tmp_path: Path) -> None:
    async with Double() as double, assembled(tmp_path, table_for(upstream(double), folder=tmp_path)) as rack:
        reply = await rack.post(CHAT, QWEN)
        assert reply.status == 200 and reply.json["object"] == "chat.completion"
        assert rack.claims() == (1, 0)
        (line,) = await rack.lines(1)
        assert (line["model"], line["host"], line["key"], line["status"]) == ("qwen", "rig", "owner", 200)
        assert line["how"] == "served" and line["prompt_tokens"] > 0 and line["answer_tokens"] > 0
        metrics = (await rack.ask("GET", "/metrics")).body.decode()
        assert 'labctl_gateway_requests_total{model="qwen",host="rig",key="owner",status="200"' in metrics
        assert "labctl_gateway_running" in metrics
        assert SECRET not in metrics and "Bearer" not in double.seen[0].raw.decode()


@story
async def test_a_body_that_is_refused_has_its_line_and_is_counted_for_its_key(tmp_path: Path) -> None:
    limits = Limits(json_bytes=1000)
    async with (
        Double() as double,
        assembled(tmp_path, table_for(upstream(double), folder=tmp_path, limits=limits)) as rack,
    ):
        assert (await rack.ask("POST", CHAT, b"x" * 1001)).status == 413
        assert (await rack.ask("POST", CHAT, b"{")).status == 400
        lines = await rack.lines(2)
        assert [(line["status"], line["key"], line["how"], line["code"]) for line in lines] == [
            (413, "owner", "refused", "too-large"),
            (400, "owner", "refused", "bad-body"),
        ]
        metrics = (await rack.ask("GET", "/metrics")).body.decode()
        assert 'refused_total{model="",host="",key="owner",status="413",code="too-large"' in metrics
        assert "labctl_gateway_unread" not in metrics
        assert double.seen == []


@story
async def test_a_request_for_a_sleeping_host_waits_for_it_and_then_its_answer_streams(tmp_path: Path) -> None:
    table = table_for(upstream(double := await Double().__aenter__()), folder=tmp_path)
    async with assembled(tmp_path, table, rig=Mode.ASLEEP) as rack:
        asks = [asyncio.create_task(rack.post(CHAT, {**QWEN, "stream": True})) for _ in range(20)]
        quiet = asyncio.create_task(rack.post(CHAT, QWEN))
        await rack.until(lambda: rack.claims() == (0, 1))
        rack.move("rig", Event.WISHED)
        await asyncio.sleep(0.2)
        assert double.seen == []
        rack.move("rig", Event.SEEN, Event.PASSED)
        for reply in await asyncio.gather(*asks):
            assert reply.status == 200
            said, _, events = reply.body.partition(b"data: ")
            assert b": rig is asleep, and is being woken, about 60 s left\n\n" in said
            assert b"The" in events and events.endswith(b"data: [DONE]\n\n")
        assert (await quiet).json["object"] == "chat.completion"
        wishes = [one.text for one in rack.store.happenings(host="rig") if "gateway" in one.text]
        assert any("owner" in text for text in wishes)
        await rack.until(lambda: rack.claims()[1] == 0)
        lines = await rack.lines(21)
        assert all(line["woke_s"] > 0.15 for line in lines)
    await double.__aexit__(None, None, None)


@story
async def test_a_wake_that_fails_goes_to_the_next_host_and_then_is_refused_with_all_reasons(
    tmp_path: Path,
) -> None:
    async with Double() as first, Double() as second:
        table = table_for(upstream(first), upstream(second, "box"), folder=tmp_path)
        async with assembled(tmp_path, table, rig=Mode.ASLEEP, box=Mode.ASLEEP) as rack:
            asks = asyncio.create_task(rack.post(CHAT, QWEN))
            for host in ("rig", "box"):
                await rack.until(lambda host=host: rack.claims(host)[1] == 1)
                rack.move(host, Event.WISHED, Event.GAVE_UP)
            reply = await asks
            assert (reply.status, reply.headers["content-type"]) == (503, "application/problem+json")
            assert reply.json["detail"] == "rig did not come up: of a test; box did not come up: of a test"
            assert reply.json["error"]["code"] == "wake-failed"
            await rack.until(lambda: rack.claims("rig") == rack.claims("box") == (0, 0))


@story
async def test_a_client_that_leaves_ends_the_wish(tmp_path: Path) -> None:
    async with Double() as double:
        table = table_for(upstream(double), folder=tmp_path)
        async with assembled(tmp_path, table, rig=Mode.ASLEEP) as rack:
            _, writer = await rack.connect()
            writer.write(request("POST", CHAT, json.dumps(QWEN).encode()))
            await rack.until(lambda: rack.claims() == (0, 1))
            writer.transport.abort()
            await rack.until(lambda: rack.claims() == (0, 0))
            (line,) = await rack.lines(1)
            assert line["how"] == "left" and double.seen == []


@story
async def test_a_request_that_an_upstream_did_not_take_goes_to_another_and_no_other_does(
    tmp_path: Path,
) -> None:
    async with Double() as bad, Double() as good:
        table = table_for(upstream(bad), upstream(good, "box"), folder=tmp_path)
        async with assembled(tmp_path, table) as rack:
            bad.faults.append("status:503")
            assert (await rack.post(CHAT, QWEN)).status == 200 and len(good.seen) == 1
            # It may have died of the request, and so would the next.
            for fault in ("hang-up", "no-http", "status:502"):
                bad.faults.append(fault)
                assert (await rack.post(CHAT, QWEN)).status == 502, fault
            assert len(good.seen) == 1
            assert [line["tries"] for line in await rack.lines(4)] == [2, 1, 1, 1]


@story
async def test_a_model_of_another_name_in_json_and_in_a_form(tmp_path: Path) -> None:
    async with Double() as double:
        up = upstream(double)
        table = table_for(
            up,
            folder=tmp_path,
            models=(Model("qwen", "chat", 30.0, aliases=("coder",)),),
            served=(Served("qwen", up.name, "Qwen3-8B"),),
        )
        async with assembled(tmp_path, table) as rack:
            assert (await rack.post(CHAT, {**QWEN, "model": "coder"})).json["model"] == "Qwen3-8B"
            audio = bytes(range(256)) * 400
            form = (
                b'--xx\r\nContent-Disposition: form-data; name="model"\r\n\r\ncoder\r\n'
                b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + audio
            ) + b"\r\n--xx--\r\n"
            reader, writer = await rack.connect()
            head = (
                "POST /v1/audio/transcriptions HTTP/1.1",
                "Host: gateway",
                f"x-api-key: {SECRET}",
                "Connection: close",
                "Content-Type: multipart/form-data; boundary=xx",
                f"Content-Length: {len(form)}",
            )
            writer.write("\r\n".join((*head, "", "")).encode())
            for at in range(0, len(form), 30_000):
                writer.write(form[at : at + 30_000])
                await asyncio.sleep(0)
            reply = read(await reader.read())
            writer.close()
            assert reply.status == 200 and reply.json["text"].startswith(f"{len(audio)} bytes of a.wav")
            assert b"\r\n\r\nQwen3-8B\r\n" in double.seen[-1].body and double.odd == []


@story
async def test_an_engines_own_paths_below_hosts(tmp_path: Path) -> None:
    async with Double() as double:
        up = upstream(double, passes=("GET /props", "POST /completion"), wakes=("POST /completion",))
        async with assembled(tmp_path, table_for(up, folder=tmp_path), rig=Mode.ASLEEP) as rack:
            reply = await rack.ask("GET", "/hosts/rig/props")
            assert reply.status == 503 and reply.json["error"]["code"] == "asleep"
            assert rack.claims() == (0, 0)
            asks = asyncio.create_task(rack.post("/hosts/rig/completion", {"prompt": "hi"}))
            await rack.until(lambda: rack.claims() == (0, 1))
            rack.move("rig", Event.SEEN, Event.PASSED)
            assert (await asks).json["content"] == "".join(double.words)
            assert (await rack.ask("GET", "/hosts/rig/props")).json == {"total_slots": 4}
            assert (await rack.ask("GET", "/hosts/rig/slots")).status == 403
            assert [seen.path for seen in double.seen] == ["/completion", "/props"]


@story
async def test_a_stream_hears_of_loading_then_its_answer_or_why_there_is_none(tmp_path: Path) -> None:
    async with Double() as double:
        up = upstream(double, kind=Kind.LLAMA_SWAP)
        served = (Served("qwen", up.name, "qwen", load_s=20.0),)
        async with assembled(tmp_path, table_for(up, folder=tmp_path, served=served)) as rack:
            for fault, end in (("status:500", b"this is a status:500"), ("none", b"data: [DONE]\n\n")):
                double.faults.append(fault)
                double.gate.clear()
                asks = asyncio.create_task(
                    rack.post(CHAT, {**QWEN, "stream": True}, "Labctl-Waiting: loading")
                )
                await double.until(lambda: bool(double.seen))
                await asyncio.sleep(0.12)
                double.gate.set()
                reply = await asks
                events = [
                    json.loads(event[6:]) for event in reply.body.split(b"\n\n") if event[:7] == b"data: {"
                ]
                told = events[0]["choices"][0]["delta"]["reasoning_content"]
                assert reply.status == 200 and told == "rig/llama loads qwen, up to 20 s left\n"
                assert end in reply.body
            again = await rack.post(CHAT, {**QWEN, "stream": True})
            assert b"loads" not in again.body


@story
async def test_who_has_a_model_loaded_is_asked_without_loading_anything(tmp_path: Path) -> None:
    async with Double() as first, Double(running=("qwen",)) as second:
        ups = (
            upstream(first, kind=Kind.LLAMA_SWAP),
            upstream(second, "box", kind=Kind.LLAMA_SWAP),
        )
        served = tuple(Served("qwen", one.name, "qwen", load_s=20.0) for one in ups)
        async with assembled(tmp_path, table_for(*ups, folder=tmp_path, served=served)) as rack:
            assert (await rack.post(CHAT, QWEN)).status == 200
            await rack.until(lambda: len(first.seen) + len(second.seen) >= 3)
            assert {seen.path for seen in (*first.seen, *second.seen)} == {CHAT, "/running"}

            async def loaded() -> list[str]:
                return list((await rack.ask("GET", "/v1/models")).json["data"][0]["labctl"]["loaded"])

            while "box" not in await loaded():
                await asyncio.sleep(0.005)
            assert await loaded() == ["rig", "box"]  # rig served it, box said it


@story
async def test_a_websocket_wakes_and_is_counted_as_long_as_it_is_open(tmp_path: Path) -> None:
    async with Double() as double:
        async with assembled(tmp_path, table_for(upstream(double), folder=tmp_path), rig=Mode.ASLEEP) as rack:
            reader, writer = await rack.connect()
            wants = (
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            )
            writer.write(request("GET", "/v1/realtime?model=qwen", b"", *wants, "Sec-WebSocket-Version: 13"))
            await rack.until(lambda: rack.claims() == (0, 1))
            rack.move("rig", Event.SEEN, Event.PASSED)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            frame = b"\x81\x82\x00\x00\x00\x00hi"
            writer.write(frame)
            assert await reader.readexactly(4) == b"\x81\x02hi"
            await rack.until(lambda: rack.claims() == (1, 0))
            assert "running" in (await rack.ask("GET", "/metrics")).body.decode()
            writer.transport.abort()
            _, line = await rack.lines(2)
            assert (line["path"], line["model"], line["host"]) == ("/v1/realtime", "qwen", "rig")


@story
async def test_slots_hold_requests_here_and_a_kept_connection_serves_one_after_the_other(
    tmp_path: Path,
) -> None:
    async with Double() as double:
        up = upstream(double, slots=1)
        async with assembled(tmp_path, table_for(up, folder=tmp_path)) as rack:
            double.faults.append("endless")
            reader, writer = await rack.connect()
            writer.write(request("POST", CHAT, json.dumps({**QWEN, "stream": True}).encode()))
            await reader.readuntil(b"data: ")
            second = asyncio.create_task(rack.post(CHAT, QWEN))
            await asyncio.sleep(0.05)
            assert len(double.seen) == 1
            writer.transport.abort()
            assert (await second).status == 200
            assert double.seen[0].cancelled
            reader, writer = await rack.connect()
            for _ in range(3):
                writer.write(request("POST", CHAT, json.dumps(QWEN).encode()))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
            writer.close()


@story
async def test_a_drained_gateway_lets_go_of_everything_and_the_next_one_serves_on_the_same_store(
    tmp_path: Path,
) -> None:
    async with Double() as double:
        table = table_for(upstream(double), folder=tmp_path)
        async with assembled(tmp_path, table) as rack:
            double.faults.append("endless")
            reader, writer = await rack.connect()
            writer.write(request("POST", CHAT, json.dumps({**QWEN, "stream": True}).encode()))
            await reader.readuntil(b"data: ")
            rack.server.close()
            drains = asyncio.create_task(rack.gateway.drain())
            await asyncio.sleep(0.05)
            assert not drains.done()
            async with assembled(tmp_path, table) as other:
                assert (await other.post(CHAT, QWEN)).status == 200
                assert rack.claims() == (2, 0)
            assert rack.claims() == (1, 0)
            writer.transport.abort()
            await drains
        async with assembled(tmp_path, table) as rack:
            assert rack.claims() == (0, 0)


@story
async def test_without_its_store_the_gateway_serves_whom_it_holds_and_refuses_the_others(
    tmp_path: Path,
) -> None:
    async with Double() as first, Double() as second:
        table = table_for(upstream(first), upstream(second, "box"), folder=tmp_path)
        models = (Model("qwen", "chat", 5.0), Model("other", "chat", 5.0))
        served = (Served("qwen", "rig/llama", "qwen"), Served("other", "box/llama", "other"))
        async with assembled(tmp_path, replace(table, models=models, served=served)) as rack:
            assert (await rack.post(CHAT, QWEN)).status == 200
            hidden = tmp_path / "elsewhere.db"
            rack.store.close()
            for suffix in ("", "-wal", "-shm"):
                file = tmp_path / f"store.db{suffix}"
                if file.exists():
                    file.rename(f"{hidden}{suffix}")
            (tmp_path / "store.db").mkdir()
            reply = await rack.post(CHAT, {**QWEN, "model": "other"})
            assert reply.status == 503 and reply.json["error"]["code"] == "store-unusable"
            assert (await rack.post(CHAT, QWEN)).status == 200


@story
async def test_connections_to_a_host_that_goes_to_sleep_are_closed(tmp_path: Path) -> None:
    async with Double() as double:
        async with assembled(tmp_path, table_for(upstream(double), folder=tmp_path)) as rack:
            await rack.post(CHAT, QWEN)
            assert len(double.open) == 1
            rack.move("rig", Event.LOST)
            await rack.until(lambda: not double.open)


@story
async def test_the_last_resort_has_its_own_key_and_the_clients_never_leaves_the_rack(tmp_path: Path) -> None:
    (tmp_path / "cloud.key").write_text("sk-of-the-cloud\n")
    async with Double() as double, Double() as cloud:
        ups = (
            upstream(double),
            upstream(cloud, "", "cloud", kind=Kind.OUTSIDE, base_path="", key_file="cloud.key"),
        )
        table = table_for(
            *ups,
            folder=tmp_path,
            models=(Model("qwen", "chat", 30.0, last_resort=("cloud",)),),
            keys=(replace(OWNER, outside=True),),
            hosts=(Host("rig", True, True, 60.0),),
        )
        async with assembled(tmp_path, table, rig=Mode.ASLEEP) as rack:
            reply = await rack.post(CHAT, QWEN, "Prefer: wait=0")
            assert reply.status == 200
            assert cloud.seen[0].header("authorization") == "Bearer sk-of-the-cloud"
            assert SECRET.encode() not in cloud.seen[0].raw and double.seen == []


@pytest.mark.parametrize("text", ["", "two words", "line\nline", "\x00"])
def test_a_key_file_that_holds_no_key_is_refused_without_its_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "cloud.key").write_text(text)

    async def run() -> None:
        async with Double() as double:
            up = upstream(double, "", "cloud", kind=Kind.OUTSIDE, key_file="cloud.key")
            with pytest.raises(LabctlError, match="holds no key for cloud") as caught:
                assemble(table_for(up, folder=tmp_path), tmp_path, Around("g", lambda: 0.0, _none, -1))
            assert "two" not in str(caught.value)

    asyncio.run(run())


def _none() -> Any:
    raise AssertionError("nobody opens the store")


def test_a_gateway_without_keys_does_not_begin_on_a_socket_that_others_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached:
        family = socket.AF_INET

        def getsockname(self) -> tuple[str, int]:
            return ("0.0.0.0", 8080)

    monkeypatch.setattr("labctl.wiring.passed_sockets", lambda: [Reached()])
    table = Table("home", "127.0.0.1", 8080, (), (), (), (), WattRack(()))
    (tmp_path / "table.json").write_bytes(msgspec.json.encode(table))
    with pytest.raises(LabctlError, match="has no keys and would listen on 0"):
        serve(tmp_path / "table.json", "here")
