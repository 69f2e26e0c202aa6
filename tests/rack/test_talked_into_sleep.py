"""A real host is talked into sleep by the controller's key alone, and refuses wherever somebody needs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pytest
from rack_driving import labctl

from hostile_commands import HOSTILE
from labctl.lab import Lab, LabHost
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

ORDER = {"how": "suspend", "lasts_s": 60}
REFUSED = "labctl-agent: refused: this key may ask for:"


class Controller:
    """The controller's end of one connection."""

    def __init__(self, rack: Lab, host: LabHost, key: Path, known_hosts: Path) -> None:
        self.rack, self.host, self._key = rack, host, key
        self._known_hosts = known_hosts
        self._clients: list[paramiko.SSHClient] = []

    def connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.load_host_keys(str(self._known_hosts))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        named = {"username": "labctl-agent", "key_filename": str(self._key)}
        client.connect(self.host.address, allow_agent=False, look_for_keys=False, timeout=10, **named)  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    def talk(self, *lines: Any, go: Callable[[str], Any] | None = None) -> tuple[list[dict[str, Any]], int]:
        """Say lines to ``suspend``; return what it said and how it ended."""
        said: list[dict[str, Any]] = []
        stdin, stdout, _ = self.connect().exec_command("suspend", timeout=60)
        for line in lines:
            stdin.write(json.dumps(line) + "\n")
        stdin.flush()
        for answer in stdout:
            said.append(json.loads(answer))
            if "nonce" in said[-1]:
                if go is None:
                    stdin.channel.shutdown_write()
                elif (word := go(said[-1]["nonce"])) is not None:
                    stdin.write(json.dumps(word) + "\n")
                    stdin.flush()
        return said, stdout.channel.recv_exit_status()

    def ask(self, verb: str) -> dict[str, Any]:
        _, stdout, _ = self.connect().exec_command(verb, timeout=60)
        answer: dict[str, Any] = json.loads(stdout.read())
        return answer

    def busy(self) -> list[str]:
        asked = self.rack.run(self.host.name, ["/usr/local/lib/labctl/agent.pyz", "signals"], check=True)
        return [one["because"] for one in json.loads(asked.stdout)["readings"] if one["busy"] is not False]

    def read(self, path: str) -> Any:
        return self.rack.run(self.host.name, ["cat", path])

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def controller(
    sleep_rack: Lab, sleeper: Callable[..., LabHost], sleep_rack_file: Callable[..., Path]
) -> Iterator[Controller]:
    """A clean host that can sleep, with labctl's base and agent, as the controller sees it."""
    host = sleeper("nspawn", "bookworm")
    # A machine that runs tests beside is no quiet one, and all hosts here share its load.
    quiet = ", idle=IdlePolicy(suspend=True, signals=Signals(load=False, network=False, timers=False))"
    inventory = sleep_rack_file([host], quiet)
    key = inventory.parent / "keys" / "controller"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = inventory.read_text().replace("import Host,", "import Host, IdlePolicy, Signals,", 1)
    text = text.replace('name="test",', 'name="test",\n    controller_key="keys/controller.pub",', 1)
    inventory.write_text(text)
    done = labctl("apply", str(inventory), "--only", "agent", "--yes", "--no-diff", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    made = Controller(sleep_rack, host, key, inventory.parent / "known_hosts")
    assert wait_until(lambda: made.busy() == [], within=20), made.busy()
    yield made
    made.close()


def test_a_real_host_is_talked_into_sleep_and_refuses_wherever_it_is_needed(
    controller: Controller, operator_key: Path
) -> None:
    _nothing_happens_without_the_word(controller)
    _somebodys_lock_is_respected(controller)
    _somebody_who_is_logged_in_keeps_it_awake(controller, operator_key)
    _who_is_killed_in_the_middle_leaves_it_serving(controller)
    _sleeps_and_wakes(controller)
    _runs_nothing_hostile(controller)


def _nothing_happens_without_the_word(controller: Controller) -> None:
    said, status = controller.talk(ORDER)
    assert ([sorted(line) for line in said], status) == ([["nonce", "ready", "within_s"]], 2)
    said, status = controller.talk(ORDER, go=lambda nonce: None)  # silence ends it after five seconds
    assert (len(said), status) == (1, 2)
    said, status = controller.talk(ORDER, go=lambda nonce: {"go": nonce[::-1]})
    assert (said[1:], status) == ([{"refused": "what came was not the word to go"}], 1)
    assert controller.read("/run/labctl/order.json").returncode != 0
    assert (
        controller.rack.run(controller.host.name, ["systemd-inhibit", "--list"]).stdout.count("labctl") == 0
    )


def _somebodys_lock_is_respected(controller: Controller) -> None:
    rack, name = controller.rack, controller.host.name
    lock = ["systemd-inhibit", "--what=sleep", "--mode=block", "--who=backup", "--why=it runs"]
    rack.run(name, ["systemd-run", "--quiet", "--unit=backup", *lock, "sleep", "infinity"], check=True)
    assert wait_until(lambda: "backup" in rack.run(name, ["systemd-inhibit", "--list"]).stdout, within=10)
    assert controller.talk(ORDER) == ([{"refused": "backup blocks sleep: it runs"}], 1)
    # Root's own lock, which logind of Debian 12 passes over, holds also where use is to be disregarded.
    said, status = controller.talk({**ORDER, "force": True}, go=lambda nonce: {"go": nonce})
    assert (said[1:], status) == ([{"refused": "backup blocks sleep: it runs"}], 1)
    assert _word(controller)["said"] == "refused"
    rack.run(name, ["systemctl", "stop", "backup"], check=True)


def _word(controller: Controller) -> dict[str, Any]:
    word: dict[str, Any] = json.loads(controller.read("/run/labctl/order.json").stdout)
    return word


@contextmanager
def _logged_in(controller: Controller, key: Path) -> Iterator[None]:
    argv = controller.rack.ssh_argv(controller.host.name, "cat", key=key)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, bufsize=1) as login:
        try:
            assert login.stdin is not None
            assert login.stdout is not None
            login.stdin.write("here\n")
            assert login.stdout.readline() == "here\n"
            yield
        finally:
            login.kill()


def _somebody_who_is_logged_in_keeps_it_awake(controller: Controller, key: Path) -> None:
    with _logged_in(controller, key):
        said, status = controller.talk(ORDER)
        assert status == 1
        assert "is logged in from" in said[0]["refused"]
    assert wait_until(lambda: controller.busy() == [], within=20), controller.busy()


_SLOW = """\
[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c 'touch /run/stopping; sleep 3'
"""


def _who_is_killed_in_the_middle_leaves_it_serving(controller: Controller) -> None:
    rack, name = controller.rack, controller.host.name
    unit = rack.root(name) / "etc/systemd/system/labctl-slow.service"
    unit.write_text(_SLOW)
    told = rack.root(name) / "etc/labctl/agent.json"
    before = told.read_text()
    row = {"service": "slow", "kind": "vllm", "unit": "labctl-slow.service", "url": ""}
    told.write_text(json.dumps({**json.loads(before), "engines": [row]}))
    rack.run(name, ["systemctl", "start", "labctl-slow.service"], check=True)

    def go(nonce: str) -> dict[str, str]:
        kill = "systemctl kill -s KILL --kill-whom=main labctl-sleep"
        stopping = ["sh", "-c", f"until [ -e /run/stopping ]; do sleep 0.1; done; {kill}"]
        killed.append(killer.submit(rack.run, name, stopping, timeout=30, check=True))
        return {"go": nonce}

    killed: list[Any] = []
    with ThreadPoolExecutor(1) as killer:
        said, status = controller.talk(ORDER, go=go)
        killed[0].result()
    assert said[1:] == [{"refused": "the process that was to put it to sleep was killed, or took too long"}]
    assert status == 1
    state = ["systemctl", "is-active", "labctl-slow.service"]
    assert wait_until(lambda: rack.run(name, state).stdout == "active\n", within=10)
    assert _word(controller)["said"] == "refused"
    told.write_text(before)
    rack.run(name, ["systemctl", "stop", "--no-block", "labctl-slow.service"], check=True)
    unit.unlink()


def _sleeps_and_wakes(controller: Controller) -> None:
    rack, name = controller.rack, controller.host.name
    # The controller's watch, which stays open, is nobody's use.
    held_open, watch, _ = controller.connect().exec_command("report --watch")
    assert json.loads(watch.readline())["order"]["said"] == "refused"
    assert not held_open.closed
    boot_id = controller.read("/proc/sys/kernel/random/boot_id").stdout
    said, status = controller.talk(ORDER, go=lambda nonce: {"go": nonce})
    assert (said[1:], status) == ([{"going": said[0]["nonce"]}], 0)
    rack.await_state(name, "asleep", 20)
    rack.start(name)
    assert wait_until(lambda: _word(controller)["outcome"] == "resumed", within=20)
    word = _word(controller)
    assert (word["said"], word["nonce"], word["because"]) == ("going", said[0]["nonce"], "")
    assert controller.read("/proc/sys/kernel/random/boot_id").stdout == boot_id
    rack.run(name, ["ethtool", "-s", "eth0", "wol", "d"], check=True)
    answer = controller.ask("gate")
    assert (answer["broken"], answer["notes"]) == ([], [])
    assert "Wake-on: g" in rack.run(name, ["ethtool", "eth0"]).stdout
    assert controller.ask("mend --driver")["ok"] is False


def _runs_nothing_hostile(controller: Controller) -> None:
    clients = [controller.connect() for _ in range(4)]
    listing = ["find", "/var/lib/labctl-agent", "/tmp", "/run/labctl", "-printf", "%p %T@\\n"]
    before = controller.rack.run(controller.host.name, listing).stdout

    def tried(numbered: tuple[int, str]) -> tuple[str, int, bytes, bytes]:
        at, command = numbered
        _, out, err = clients[at % len(clients)].exec_command(command, timeout=60)
        said, complaint = out.read(), err.read()
        return command, out.channel.recv_exit_status(), said, complaint

    with ThreadPoolExecutor(len(clients)) as pool:
        ends = list(pool.map(tried, enumerate(HOSTILE[:200])))
    assert len(ends) == 200
    wrong = [end for end in ends if end[1:3] != (126, b"") or not end[3].startswith(REFUSED.encode())]
    assert wrong == []
    assert controller.rack.run(controller.host.name, listing).stdout == before
    sudo = ["runuser", "-u", "labctl-agent", "--", "sudo", "-n", "/usr/local/lib/labctl/agent.pyz"]
    for words in (
        ["sleep"],
        ["sleep", "--over"],
        ["mend"],
        ["suspend", "--now"],
        ["gate", "gate"],
        ["caps", "--order"],
    ):
        assert controller.rack.run(controller.host.name, [*sudo, *words]).returncode != 0, words
    checked = controller.rack.run(controller.host.name, ["visudo", "-c"])
    assert checked.returncode == 0, checked.stdout
