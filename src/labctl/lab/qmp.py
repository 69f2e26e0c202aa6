"""Speak with a running virtual machine: its monitor (QMP), and the lab's shell inside of it.

Both are unix sockets with one JSON document on a line, and both answer by an ``id``; a thread reads each, so
that callers wait for their own answers only. A machine that ends answers nobody: whoever waits is told so.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from labctl.domain.problem import LabctlError
from labctl.lab.nic import MAGIC
from labctl.lab.processes import wait_until

_BAR = re.compile(r"BAR0: I/O at (0x[0-9a-f]+)")
_VALUE = re.compile(r"= *(?:0x)?([0-9a-f]+)")
_CONFIG3 = 0x59  # RTL8139: bit 0x20 of Config3 is "MagicPacket"
_CONFIG3_MAGIC = 0x20


class Link:
    """Lines over one unix socket; ``heard`` gets what answers no question."""

    def __init__(self, path: Path, heard: Callable[[dict[str, Any]], None]) -> None:
        self._heard = heard
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._socket = socket.socket(socket.AF_UNIX)

        def connected() -> bool:
            try:
                self._socket.connect(str(path))
            except OSError:
                return False
            return True

        if not wait_until(connected, within=20):
            raise LabctlError("the virtual machine did not start")
        self._unasked: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._hand_on, daemon=True).start()

    def ask(self, question: dict[str, Any], within: float) -> dict[str, Any]:
        """Send a question and return its answer.

        Raises:
            LabctlError: there was none within ``within`` seconds, or the machine ended.
        """
        number = next(self._numbers)
        line = json.dumps({**question, "id": number}).encode() + b"\n"
        with self._changed:
            try:
                self._socket.sendall(line)
            except OSError:
                self._ended = True
            self._changed.wait_for(lambda: number in self._answers or self._ended, within)
            if number not in self._answers:
                raise LabctlError("the virtual machine does not answer")
            return self._answers.pop(number)

    def close(self) -> None:
        """End the connection, and whoever waits."""
        self._socket.close()

    def _read(self) -> None:
        # A machine that is killed resets the connection.
        with suppress(OSError), self._socket.makefile("rb") as stream:
            for line in stream:
                document = json.loads(line)
                if "id" not in document:
                    self._unasked.put(document)
                    continue
                with self._changed:
                    self._answers[document["id"]] = document
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._unasked.put({})

    def _hand_on(self) -> None:
        """Hand on, in their order, what nobody asked for; not while reading, since who hears it may ask."""
        while document := self._unasked.get():
            self._heard(document)


class Monitor:
    """QEMU's own monitor; ``happened`` is told the name of every event."""

    def __init__(self, path: Path, happened: Callable[[str], None]) -> None:
        def heard(document: dict[str, Any]) -> None:
            if "event" in document:
                happened(document["event"])

        self._link = Link(path, heard)
        self.order("qmp_capabilities")

    def order(self, command: str, *, within: float = 30, **arguments: Any) -> Any:
        """Carry out a command and return its answer.

        Raises:
            LabctlError: QEMU refused it, or did not answer within ``within`` seconds.
        """
        answer = self._link.ask({"execute": command, "arguments": arguments}, within)
        if "error" in answer:
            raise LabctlError(f"the virtual machine refused {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def line(self, text: str, *, within: float = 60) -> str:
        """Carry out a line of the monitor for people, and return what it prints."""
        said: str = self.order("human-monitor-command", within=within, **{"command-line": text})
        return said

    def options(self, card: str) -> int:
        """Return the Wake-on-LAN options (as bits) that the guest's driver wrote to its RTL8139 card."""
        devices = re.split(r"(?=\n  Bus +\d+, device)", self.line("info pci"))
        found = next((device for device in devices if f'id "{card}"' in device), "")
        bar = _BAR.search(found)
        if bar is None:
            return 0  # No firmware or driver has placed it yet, so nobody can have armed it.
        said = self.line(f"i /1xb {int(bar[1], 16) + _CONFIG3:#x}")
        value = _VALUE.search(said)
        if value is None:
            raise LabctlError(f"the virtual machine does not show its card: {said.strip()!r}")
        return MAGIC if int(value[1], 16) & _CONFIG3_MAGIC else 0

    def close(self) -> None:
        """End the connection."""
        self._link.close()
