"""A network of a test's own, with two ends of one cable, to see what really leaves an interface.

Network namespaces belong to threads: a thread that leaves for a new one takes nobody with it, and when it
ends, the interfaces vanish with their last socket.
"""

from __future__ import annotations

import ctypes
import os
import queue
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


def in_a_new_network(function: Callable[[], _T]) -> _T:
    """Run a function in a thread with a network of its own, empty but for loopback; return its value."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    ends: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _leave()
            ends.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return ends[0]


def ip(*commands: str) -> None:
    """Change this thread's network, one `ip` command a line."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def cable(near: str, far: str, *addresses: str) -> None:
    """Lay a cable between two interfaces; the near one gets the addresses."""
    ip(
        f"link add {near} type veth peer name {far}",
        # Without IPv6 no interface says anything by itself.
        f"link set dev {near} addrgenmode none",
        f"link set dev {far} addrgenmode none",
        *(f"addr add {address} dev {near} {_nodad(address)}" for address in addresses),
        f"link set dev {near} up",
        f"link set dev {far} up",
    )


@dataclass(frozen=True)
class Frame:
    """A UDP datagram as it came out of an interface."""

    to_mac: str
    source: str
    to: tuple[str, int]
    payload: bytes


class Ear:
    """Everything that arrives at an interface, as its card would see it."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.bind((interface, 0x0800))

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def heard(self) -> list[Frame]:
        """Return what has come so far; between two ends of a cable nothing is under way."""
        found = []
        self._socket.setblocking(False)
        while True:
            try:
                raw, where = self._socket.recvfrom(65535)
            except BlockingIOError:
                return found
            if where[2] == socket.PACKET_OUTGOING or raw[23] != socket.IPPROTO_UDP:
                continue
            port, length = struct.unpack_from(">HH", raw, 36)
            found.append(
                Frame(
                    raw[:6].hex(":"),
                    socket.inet_ntoa(raw[26:30]),
                    (socket.inet_ntoa(raw[30:34]), port),
                    raw[42 : 34 + length],
                )
            )


class Machine:
    """Another machine: a network of its own, at the far end of a cable, which does what it is told."""

    def __init__(self) -> None:
        self._orders: queue.Queue[tuple[Callable[[], object] | None, Future[Any]]] = queue.Queue()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()
        self.do(_leave)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.put((None, Future()))
        self._thread.join()

    def do(self, function: Callable[[], _T]) -> _T:
        """Run a function there and return its value."""
        answer: Future[Any] = Future()
        self._orders.put((function, answer))
        value: _T = answer.result(30)
        return value

    def plug_in(self, interface: str, *addresses: str) -> None:
        """Give it one of our interfaces, with these addresses."""
        there = self.do(lambda: f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
        subprocess.run(["ip", "link", "set", "dev", interface, "netns", there], check=True)
        commands = [f"addr add {address} dev {interface} {_nodad(address)}" for address in addresses]
        self.do(lambda: ip(f"link set dev {interface} up", *commands))

    def _live(self) -> None:
        while (order := self._orders.get())[0] is not None:
            function, answer = order
            try:
                answer.set_result(function())  # type: ignore[misc]
            except BaseException as error:
                answer.set_exception(error)


def _nodad(address: str) -> str:
    return "nodad" if ":" in address else ""


def _leave() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    ip("link set lo up")


def setting(name: str, value: str) -> None:
    """Change a kernel setting of this thread's network, such as ``net.ipv4.ping_group_range``."""
    with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
        file.write(value)
