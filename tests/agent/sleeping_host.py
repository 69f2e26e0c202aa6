"""A host that can be put to sleep, as files and small programs: logind, systemd and the kernel's count.

The programs stand on PATH and do what the real ones were seen to do: ``systemd-inhibit`` holds its lock while
its program runs, logind refuses to sleep while a lock is held, and the kernel counts a sleep when it is over.
What was done stands in ``log``, in its order.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labctl.agent import boottime, lastlook, sleeper, sleepfiles, suspend, unload, wakers
from labctl.agent.signals.terms import Reading

_PROGRAMS = {
    "systemd-inhibit": """
[ ! -e "$S/no-lock" ] || exit 1
touch "$S/locks/$$"; echo lock >>"$S/log"
cat
rm "$S/locks/$$"; echo free >>"$S/log"
""",
    "busctl": """
case "$*" in
  *Can*) echo "s \\"$(cat "$S/can" 2>/dev/null || echo yes)\\"" ;;
  *get-property*) if [ -e "$S/preparing" ]; then echo 'b true'; else echo 'b false'; fi ;;
  *WithFlags*)
    for word in "$@"; do case $word in *WithFlags) echo "logind $word" >>"$S/log" ;; esac; done
    if [ -n "$(ls "$S/locks")" ]; then echo 'Operation denied due to active block inhibitor' >&2; exit 1; fi
    [ ! -e "$S/insomnia" ] || exit 0
    [ ! -e "$S/note-alarm" ] || cat "$S/note-alarm" >"$S/alarm-noted"
    echo $(($(cat "$S/slept") + 1)) >"$S/slept"
    ;;
esac
""",
    "systemctl": """
verb=$1
for unit in "$@"; do :; done
case $verb in
  is-active) cat "$S/units/$unit" 2>/dev/null || { echo inactive; exit 3; } ;;
  is-enabled) cat "$S/enabled/$unit" 2>/dev/null || { echo disabled; exit 1; } ;;
  stop)
    echo "stop $unit" >>"$S/log"
    [ ! -e "$S/stuck" ] || { echo "$unit: timeout" >&2; exit 1; }
    [ ! -e "$S/units/$unit" ] || echo inactive >"$S/units/$unit"
    rm -f "$S/preparing"
    ;;
  start | restart) echo "$verb $unit" >>"$S/log"; echo active >"$S/units/$unit" ;;
  show) cat "$S/result" 2>/dev/null || echo success ;;
esac
""",
}


class SleepingHost:
    """The host; ``said`` is what its agent told the controller, ``signals`` what its next looks will say."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.state = root / "state"
        self.said: list[dict[str, Any]] = []
        self.signals: list[list[Reading]] = []
        self.locks: list[str | None] = []
        self.wol = {"eth0": "g"}
        self._monkeypatch = monkeypatch
        self._thread: threading.Thread | None = None
        for folder in ("locks", "units", "enabled"):
            (self.state / folder).mkdir(parents=True)
        self.file("proc/sys/kernel/random/boot_id", "this-boot\n")
        self.file("sys/power/state", "freeze mem disk\n")
        self.file("sys/class/net/eth0/address", "52:54:00:00:00:01\n")
        self.file("sys/class/net/eth0/device/power/wakeup", "enabled\n")
        self.file("state/slept", "0\n")
        (root / "sys/power/suspend_stats").mkdir()
        (root / "sys/power/suspend_stats/success").symlink_to(self.state / "slept")
        self.settings({"engines": [], "sleep": {"how": "suspend", "wol": {"mac": "52:54:00:00:00:01"}}})
        self._programs()
        self._patches()

    def file(self, name: str, content: str) -> Path:
        """Write a file of the host."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def file_text(self, name: str) -> str:
        """Read a file of the host."""
        return (self.root / name).read_text()

    def settings(self, settings: dict[str, Any]) -> None:
        """Write what the rack file says of this host."""
        self.file("etc/labctl/agent.json", json.dumps({"format": 1, **settings}))

    def unit(self, name: str, state: str = "active") -> None:
        """Have a unit in a state."""
        self.file(f"state/units/{name}", f"{state}\n")

    def engines(self, *units: str, **more: Any) -> None:
        """Have engines that hold cards, without an address to ask."""
        for unit in units:
            self.unit(unit)
        rows = [
            {"service": unit, "kind": "vllm", "unit": unit, "url": "", "key_file": None, "order": at}
            for at, unit in enumerate(units)
        ]
        self.settings({"engines": rows, "sleep": {"wol": None}, **more})

    def alarm(self) -> Path:
        """Have a clock that can wake the host; return its alarm."""
        self.file("sys/class/rtc/rtc0/since_epoch", f"{int(self._now())}\n")
        return self.file("sys/class/rtc/rtc0/wakealarm", "")

    @staticmethod
    def _now() -> float:
        import time

        return time.time()

    @property
    def log(self) -> list[str]:
        """What was done, without the looks."""
        path = self.state / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def serves(self) -> bool:
        """Whether every unit of the host runs and no lock is left."""
        units = [path.read_text().strip() for path in (self.state / "units").iterdir()]
        return set(units) <= {"active"} and not list((self.state / "locks").iterdir())

    def word(self, path: str = sleepfiles.ORDER) -> sleepfiles.Order:
        """Return the host's word on its order."""
        order = sleepfiles.load(path, self.root)
        assert order is not None
        return order

    def order(
        self,
        go: bool | bytes | Callable[[str], bytes] = True,
        raw: bytes | None = None,
        start: Callable[[str], str] | None = None,
        **order: Any,
    ) -> int:
        """Talk with the agent as the controller does, and return its exit status.

        Args:
            go: whether to go once it is ready; or what to say instead, which may depend on the nonce; False
                ends the input.
            raw: the first line, instead of the order.
            start: stands for systemd; default: the order is obeyed in a thread.
            order: the order's fields.
        """
        reader, writer = os.pipe()
        first = json.dumps({"how": "suspend", "lasts_s": 120, **order}).encode()
        os.write(writer, (first if raw is None else raw) + b"\n")
        ends = [writer]

        def say(line: dict[str, Any]) -> None:
            self.said.append(line)
            if "nonce" in line:
                if go is True:
                    os.write(writer, json.dumps({"go": line["nonce"]}).encode() + b"\n")
                elif go is not False:
                    os.write(writer, go(line["nonce"]) if callable(go) else go)
                if go is False:
                    os.close(ends.pop())

        if raw is not None:
            os.close(ends.pop())
        try:
            with os.fdopen(reader, "rb") as stream:
                status = suspend.converse(stream, say, self.root, start or self._start)
            self._told.set()
        finally:
            for end in ends:
                os.close(end)
            self.wait()
        return status

    def wait(self) -> None:
        """Wait until the order was obeyed."""
        if self._thread:
            self._thread.join(30)
            assert not self._thread.is_alive()

    def _start(self, how: str) -> str:
        self.unit(suspend.UNIT)
        self._thread = threading.Thread(target=self._obey, args=(sleepfiles.place(how),))
        self._thread.start()
        return ""

    def _obey(self, path: str) -> None:
        try:
            sleeper.obey(self.root, path=path)
        finally:
            (self.state / "units" / suspend.UNIT).unlink()

    def looked(self, config: Any, root: Path, names: Any = None) -> list[Reading]:
        """Say what the next signals say; the last ones stay."""
        if not self.signals:
            return [Reading("sessions", False, "nobody")]
        return self.signals.pop(0) if len(self.signals) > 1 else self.signals[0]

    def _programs(self) -> None:
        folder = self.root / "programs"
        folder.mkdir()
        for name, text in _PROGRAMS.items():
            (folder / name).write_text(f"#!/bin/sh\nS={self.state}\n{text}")
            (folder / name).chmod(0o755)
        self._monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def _patches(self) -> None:
        self._told = threading.Event()
        patch = self._monkeypatch.setattr
        patch(lastlook, "looked", self.looked)
        patch(lastlook, "locked_because", lambda root: self.locks.pop(0) if self.locks else None)
        patch(boottime, "runs", lambda pid: not self._told.is_set())
        patch(sleeper, "_EVIDENCE_S", 0.05)
        patch(sleeper, "_POLL_S", 0.01)
        patch(suspend, "_POLL_S", 0.005)
        patch(unload, "_FREE_WITHIN_S", 0.05)
        patch(wakers, "read_flags", lambda name: ("pumbg", self.wol[name]))
        patch(wakers, "_permanent", lambda name: None)
        patch(wakers, "_set_magic", lambda name: self.wol.update({name: self.wol[name] + "g"}))
