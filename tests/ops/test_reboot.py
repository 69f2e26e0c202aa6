"""Rebooting, on a host that drops connections, lingers, refuses or never returns as the test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.util import CommandOutput, OutputLine

from labctl.ops import reboot


@dataclass
class Rebooting:
    """A host whose answers to "what is your boot_id?" are a list: an id, or an exception to raise.

    The last answer holds for ever. Connecting takes one answer too: None means that it works.
    """

    boot_ids: list[Any]
    connects: list[Any] = field(default_factory=lambda: [None])
    reboot_answer: Any = ""
    name: str = "gpu-box"
    connected: bool = True
    said: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    connector: Any = None

    def _next(self, answers: list[Any]) -> Any:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run_shell_command(self, command: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        assert arguments == {"_sudo": True}
        if "reboot" in str(command):
            self.said.append("reboot")
            if isinstance(self.reboot_answer, Exception):
                raise self.reboot_answer
            lines = [OutputLine("stderr", self.reboot_answer)] if self.reboot_answer else []
            return not lines, CommandOutput(lines)
        return True, CommandOutput([OutputLine("stdout", self._next(self.boot_ids))])

    def connect(self, **how: Any) -> None:
        assert how["raise_exceptions"]
        self._next(self.connects)
        self.said.append("connected")
        self.connected = True

    def disconnect(self) -> None:
        self.said.append("disconnected")
        self.connected = False


@pytest.fixture
def rebooted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    monkeypatch.setattr(reboot, "PAUSE_S", 0.001)

    def run(host: Any, timeout_s: float = 5) -> bool:
        host.log = lambda message, _how: host.__dict__.setdefault("messages", []).append(message)
        return reboot.reboot_and_wait(host, {"_sudo": True}, timeout_s)  # type: ignore[arg-type]

    return run


def test_a_host_is_back_when_its_boot_id_is_another(rebooted: Callable[..., bool]) -> None:
    host = Rebooting(["old", "new"])
    assert rebooted(host)
    assert host.said == ["reboot", "disconnected", "connected"]
    assert host.connected


def test_a_host_that_still_answers_while_it_goes_down_is_not_back(rebooted: Callable[..., bool]) -> None:
    host = Rebooting(["old", "old", "old", OSError("gone"), "new"], reboot_answer=OSError("closed"))
    assert rebooted(host)
    assert host.said.count("connected") == 4


def test_each_look_uses_a_new_connection(rebooted: Callable[..., bool]) -> None:
    host = Rebooting(["old", "new"], [ConnectError("down"), TimeoutError(), EOFError(), None])
    assert rebooted(host)
    assert host.said.count("disconnected") == 4


def test_a_host_that_never_returns_fails_in_bounded_time(rebooted: Callable[..., bool]) -> None:
    host = Rebooting(["old"], [ConnectError("down")])
    assert not rebooted(host, timeout_s=0.05)
    assert "did not come back" in host.__dict__["messages"][0]


def test_a_refusal_is_told_at_once(rebooted: Callable[..., bool]) -> None:
    host = Rebooting(["old"], reboot_answer="Operation inhibited by trainer")
    assert not rebooted(host)
    assert host.__dict__["messages"] == ["it refused to reboot: Operation inhibited by trainer"]
    assert host.said == ["reboot"]


def test_a_host_whose_boot_id_cannot_be_read_is_not_rebooted(rebooted: Callable[..., bool]) -> None:
    host = Rebooting([OSError("no /proc")])
    assert not rebooted(host)
    assert host.said == []
