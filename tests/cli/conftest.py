"""A small rack, a worker that plays scenarios, and labctl in a process or in a terminal of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parents[1] / "provision" / "fake_worker.py"
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIIiI3TA0PgHfAVdEoPOZPTLZFzMDVGXGUPmFaAAu2uf8"
PATIENCE_S = 30

# The real command line, with the one difference that its workers are played. trio, which only a test needs,
# is kept from it: httpcore loads it wherever it is installed, and it takes 4 MB.
_ENTRY = """
import sys
sys.modules["trio"] = None
from labctl import wiring
argv = tuple(sys.argv[1].split("\\n"))
wiring.worker_argv = lambda: argv
from labctl.cli.main import main
code = main(sys.argv[2:])
heavy = {name.partition(".")[0] for name in sys.modules} & {"pyinfra", "gevent", "paramiko"}
if heavy:
    sys.exit(f"the parent imported {heavy}")
memory = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()
if int(memory[1]) > 80 * 1024:
    sys.exit(f"the parent needed {memory[1]} KiB")
sys.exit(code)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str


class Terminal:
    """labctl in a pseudo-terminal, as a person sees it."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)
        self.shown = ""
        self.code: int | None = None

    def read_until(self, pattern: str) -> str:
        """Wait until the pattern has been shown since the last call; return what was shown."""
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.text()):
            if time.monotonic() > end or not self._more(end):
                raise AssertionError(f"{pattern!r} was never shown; this was:\n{self.text()}")
        return self.text()

    def _more(self, end: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        try:
            chunk = os.read(self.fd, 65536)
        except OSError:
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)

    def text(self) -> str:
        """Return what was shown without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", self.shown).replace("\r", "")

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait(self) -> int:
        """Read to the end and return the exit code."""
        end = time.monotonic() + PATIENCE_S
        while self._more(end):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def close(self) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self.fd)


class Desk:
    """A directory with a rack of three hosts, and labctl to be run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entry = _ENTRY
        self.record = folder / "record"
        self.terminals: list[Terminal] = []
        names = {"gpu-box": "10.0.0.1", "nas": "10.0.0.2", "mini": "10.0.0.3"}
        roles = {"gpu-box": ("gpu",), "nas": ("storage", "always-on"), "mini": ("gpu",)}
        hosts = "".join(f"    Host({n!r}, {a!r}, roles={roles[n]!r}),\n" for n, a in names.items())
        hosts = hosts.replace("Host('", "Host(name='").replace("', '10.", "', address='10.")
        self.rack = folder / "inventory" / "rack.py"
        self.rack.parent.mkdir()
        self.rack.write_text(
            "from labctl.inventory import Host, Rack\n\n"
            f"rack = Rack(name='desk', hosts=(\n{hosts}))\nglobals().update(rack.groups())\n"
        )
        self.known_hosts = self.rack.with_name("known_hosts")
        self.known_hosts.write_text("".join(f"{a} ssh-ed25519 {KEY}\n" for a in names.values()))
        keys = self.rack.with_name("keys")
        keys.mkdir(mode=0o700)
        (keys / "operator").touch(mode=0o600)
        self.deploy = folder / "deploys" / "site.py"
        self.deploy.parent.mkdir()
        self.deploy.write_text("from deploys.base import base\n\nbase()\n")
        (folder / "deploys" / "base.py").write_text("def base():\n    '''Do nothing.'''\n")
        self.play()

    def play(self, **hosts: dict[str, Any]) -> None:
        """Let the hosts behave so from now on."""
        scenario = {
            "record": str(self.record),
            "hosts": {name.replace("_", "-"): how for name, how in hosts.items()},
        }
        (self.folder / "scenario.json").write_text(json.dumps(scenario))

    def _argv(self, args: tuple[str, ...]) -> list[str]:
        worker = "\n".join((sys.executable, "-P", str(FAKE), str(self.folder / "scenario.json")))
        return [sys.executable, "-c", self.entry, worker, *args]

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("LABCTL_", "XDG_"))}
        env |= {"LABCTL_STATE": str(self.folder / "state"), "LABCTL_CACHE": str(self.folder / "cache")}
        env.pop("NO_COLOR", None)
        return env | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"} | more

    def run(self, *args: str, **env: str) -> Done:
        done = subprocess.run(
            self._argv(args),
            cwd=self.folder,
            env=self._env(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._argv(args),
            cwd=self.folder,
            env=self._env({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            **kwargs,
        )

    def terminal(self, *args: str, **env: str) -> Terminal:
        made = Terminal(self._argv(args), self._env(env), self.folder)
        self.terminals.append(made)
        return made

    def wait_for(self, key: str) -> dict[str, Any]:
        """Wait until a worker has noted it; return the note."""
        end = time.monotonic() + PATIENCE_S
        while not (found := self.notes(key)):
            assert time.monotonic() < end, f"no worker noted {key}"
            time.sleep(0.01)
        return found[0]

    def notes(self, key: str, value: object = None) -> list[dict[str, Any]]:
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [line for line in lines if key in line and (value is None or line[key] == value)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for terminal in made.terminals:
        terminal.close()
    for note in made.notes("started"):
        assert ended(note["started"]), "a worker was left behind"


def ended(pid: int) -> bool:
    """Wait for the end of a worker that need not be our child; return whether it came."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], PATIENCE_S)[0]) or not _is_fake(pid)
    finally:
        os.close(watched)


def _is_fake(pid: int) -> bool:
    # The number of a worker that ended may be another's by now.
    try:
        return str(FAKE).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
