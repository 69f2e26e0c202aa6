"""One process of the gateway, with a stand-in for what it serves: sockets, signals, what systemd hears."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Table
from labctl.domain.problem import LabctlError
from labctl.gateway import process
from labctl.gateway.process import Process, own_socket, status_of, told
from labctl.gateway.proxy.sockets import CLIENT_SILENT_S

LOOPS = ("uvloop", "asyncio")


class Echo(asyncio.Protocol):
    """Answers a line by the same line, and keeps its connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            silent_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert silent_ms == CLIENT_SILENT_S * 1000, "whoever stops reading keeps no host awake for ever"

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Served:
    """What is run: notes what it is told, and drains when it may."""

    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.may_drain = asyncio.Event()
        self.draining = asyncio.Event()
        self.reloaded = asyncio.Event()
        self.broken = ""

    def protocol(self) -> asyncio.Protocol:
        return Echo()

    async def start(self) -> None:
        self.calls.append("start")

    def reload(self) -> None:
        self.calls.append("reload")
        self.reloaded.set()
        if self.broken:
            raise LabctlError(self.broken)

    async def drain(self) -> None:
        self.calls.append("drain")
        self.draining.set()
        await self.may_drain.wait()

    async def close(self) -> None:
        self.calls.append("close")


class Told:
    """What systemd hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.ready_at = asyncio.Event()
        self.beats = asyncio.Event()

    def ready(self, status: str) -> None:
        self.heard.append(f"ready {status}")
        self.ready_at.set()

    def alive(self, status: str) -> None:
        self.heard.append(f"alive {status}")
        if len(self.heard) > 3:
            self.beats.set()

    def stopping(self) -> None:
        self.heard.append("stopping")


def listening() -> socket.socket:
    return own_socket("127.0.0.1", 0)


def in_loop(kind: str, main: Coroutine[Any, Any, None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as the process does; without uvloop where that is asked for."""
    if kind == "asyncio":
        monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    process.run(asyncio.wait_for(main, 20))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """What a process freezes for good is this process's here."""
    yield
    gc.unfreeze()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(main: Coroutine[Any, Any, None]) -> None:
        in_loop(request.param, main, monkeypatch)

    return run


def test_it_is_ready_when_it_listens_and_drains_when_it_is_told_to_stop(loop: Callable[..., None]) -> None:
    async def main() -> None:
        served, heard, said = Served(), Told(), list[str]()
        sock = listening()
        address = sock.getsockname()
        task = asyncio.ensure_future(Process(served, heard, said.append).run([sock], "two models"))
        await heard.ready_at.wait()
        assert heard.heard == ["ready two models"]
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"before\n")
        assert await reader.readline() == b"before\n"
        os.kill(os.getpid(), signal.SIGTERM)
        await served.draining.wait()
        assert heard.heard[-1] == "stopping"
        writer.write(b"meanwhile\n")
        assert await reader.readline() == b"meanwhile\n", "what is served goes on"
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection(*address)
        served.may_drain.set()
        await task
        writer.close()
        assert served.calls == ["start", "drain", "close"]
        assert said == []

    loop(main())


def test_a_socket_that_somebody_else_opened_may_be_one_of_the_file_system(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))
            sock.listen()
            served, heard = Served(), Told()
            served.may_drain.set()
            running = Process(served, heard, print)
            task = asyncio.ensure_future(running.run([sock.dup()], ""))
            await heard.ready_at.wait()
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(b"here\n")
            assert await reader.readline() == b"here\n"
            writer.close()
            running.stop()
            await task

    process.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_another_process_with_the_same_socket_takes_what_comes_meanwhile() -> None:
    async def main() -> None:
        sock = listening()
        shared = [sock.dup(), sock.dup()]
        address = sock.getsockname()
        sock.close()
        old, new, heard = Served(), Served(), [Told(), Told()]
        first = Process(old, heard[0], print)
        tasks = [
            asyncio.ensure_future(first.run([shared[0]], "")),
            asyncio.ensure_future(Process(new, heard[1], print).run([shared[1]], "")),
        ]
        for one in heard:
            await one.ready_at.wait()
        first.stop()
        await old.draining.wait()
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"x\n")
            assert await reader.readline() == b"x\n"
            writer.close()
        old.may_drain.set()
        await tasks[0]
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert new.calls[-1] == "close", "cut or not, it lets go of everything"

    process.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_told_twice_it_waits_no_longer(loop: Callable[..., None]) -> None:
    async def main() -> None:
        served, heard = Served(), Told()
        task = asyncio.ensure_future(Process(served, heard, print).run([listening()], ""))
        await heard.ready_at.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await served.draining.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert served.calls == ["start", "drain", "close"]

    loop(main())


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("", "certificate and key were read again"),
        ("they do not fit each other", "the old certificate stays in use: they do not fit each other"),
    ],
)
def test_a_new_certificate_is_read_on_sighup_and_a_broken_one_ends_nothing(broken: str, words: str) -> None:
    async def main() -> None:
        served, heard, said = Served(), Told(), list[str]()
        served.broken, served.tls = broken, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        running = Process(served, heard, said.append)
        task = asyncio.ensure_future(running.run([listening()], ""))
        await heard.ready_at.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        await served.reloaded.wait()
        served.may_drain.set()
        running.stop()
        await task
        assert said == [words]

    process.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_sighup_without_a_certificate_is_said_and_no_more() -> None:
    async def main() -> None:
        served, heard, said = Served(), Told(), asyncio.Queue[str]()
        running = Process(served, heard, said.put_nowait)
        task = asyncio.ensure_future(running.run([listening()], ""))
        await heard.ready_at.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        assert await said.get() == "there is no certificate to be read again"
        served.may_drain.set()
        running.stop()
        await task
        assert "reload" not in served.calls

    process.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_the_watchdog_is_fed_also_while_it_drains() -> None:
    async def main() -> None:
        served, heard = Served(), Told()
        running = Process(served, heard, print, watchdog_s=0.03)
        task = asyncio.ensure_future(running.run([listening()], "up"))
        await heard.beats.wait()
        assert heard.heard[:3] == ["ready up", "alive up", "alive up"]
        running.stop()
        await served.draining.wait()
        while heard.heard[-1] != "alive draining":
            await asyncio.sleep(0.01)
        served.may_drain.set()
        await task

    process.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_what_does_not_begin_is_closed_and_says_why() -> None:
    class Broken(Served):
        async def start(self) -> None:
            raise LabctlError("no seat")

    async def main() -> None:
        served = Broken()
        with pytest.raises(LabctlError, match="no seat"):
            await Process(served, Told(), print).run([], "")
        assert served.calls == ["close"]

    process.run(main())


def test_an_error_that_nobody_caught_is_told_without_its_words() -> None:
    async def main() -> None:
        served, heard, said = Served(), Told(), list[str]()
        running = Process(served, heard, said.append)
        task = asyncio.ensure_future(running.run([listening()], ""))
        await heard.ready_at.wait()
        done = asyncio.Event()

        def fails() -> None:
            done.set()
            raise ValueError("a secret prompt")

        asyncio.get_running_loop().call_soon(fails)
        await done.wait()
        await asyncio.sleep(0)
        served.may_drain.set()
        running.stop()
        await task
        (line,) = said
        assert line.startswith("error=uncaught ValueError at test_gateway_process.py:")
        assert "secret" not in line

    process.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_an_error_has_the_places_that_led_to_it() -> None:
    def fails() -> None:
        raise KeyError("a client's word")

    try:
        fails()
    except KeyError as error:
        shown = told(error)
    assert re.fullmatch(r"KeyError at test_gateway_process.py:\d+ < test_gateway_process.py:\d+", shown)
    assert told(ValueError("x")) == "ValueError at an unknown place"


def test_several_processes_share_a_port_and_an_address_of_nobody_is_said() -> None:
    with own_socket("127.0.0.1", 0) as first, own_socket(*first.getsockname()) as second:
        assert second.getsockname() == first.getsockname()
    with pytest.raises(LabctlError, match=r"cannot listen on 192.0.2.1 port 80: .*ss -ltnp"):
        own_socket("192.0.2.1", 80)
    with own_socket("::1", 0) as six:
        assert six.family == socket.AF_INET6


@pytest.mark.parametrize(
    ("listen", "certificate", "said"),
    [("127.0.0.1", "", "http://127.0.0.1:8000"), ("::", "c.pem", "https://[::]:8000")],
)
def test_its_status_is_one_line(listen: str, certificate: str, said: str) -> None:
    table = Table("r", listen, 8000, (), (), (), (), WattRack(()), certificate=certificate)
    assert status_of(table) == f"0 models on {said}"
