"""What the controller costs and how quick it is, over hosts that answer by real SSH channels.

The hosts live in a process of their own. Measured are: a tick over all hosts (wall and CPU), CPU at the
usual interval, the memory of the process with all channels open, its threads and descriptors, and how long
after a wish the magic packet is sent.

Usage: python -m bench.controller [HOSTS] [SECONDS]
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paramiko

TICK_LIMIT_S = 1.0
CORE_LIMIT = 0.05
RSS_LIMIT_MB = 120
PACKET_LIMIT_S = 0.050
TICK_S = 10.0
DARK = 10
_ME = "bench.controller"


# --- the hosts, in a process of their own ---


class _Door(paramiko.ServerInterface):
    def __init__(self, boot: str) -> None:
        self._boot = boot

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        target = self._watch if b"watch" in command else self._gate
        threading.Thread(target=target, args=(channel,), daemon=True).start()
        return True

    def _gate(self, channel: paramiko.Channel) -> None:
        channel.sendall(b'{"broken": [], "notes": []}\n')
        channel.send_exit_status(0)
        channel.close()

    def _watch(self, channel: paramiko.Channel) -> None:
        names = (
            "sessions",
            "console",
            "gpu",
            "engines",
            "inhibitors",
            "packages",
            "downloads",
            "timers",
            "load",
        )
        readings = [
            {"signal": name, "busy": name == "sessions", "because": f"{name} of it"} for name in names
        ]
        line = {
            "format": 1,
            "watch": "w",
            "n": 1,
            "boot_id": self._boot,
            "resumes": 0,
            "up_s": 60.0,
            "readings": readings,
            "order": None,
            "fingerprint": None,
            "wol_armed": True,
        }
        every_s = TICK_S
        channel.settimeout(0.05)
        while not channel.closed:
            channel.sendall(json.dumps(line).encode() + b"\n")
            end = time.monotonic() + every_s
            while time.monotonic() < end:
                try:
                    said = channel.recv(4096)
                except TimeoutError:
                    time.sleep(0.2)
                    continue
                if not said:
                    return
                every_s = json.loads(said.splitlines()[-1]).get("every_s", every_s)
                end = min(end, time.monotonic() + every_s)


def hosts(count: int) -> None:
    """Serve so many hosts; print their ports and key, then wait until standard input ends."""
    key = paramiko.ECDSAKey.generate()
    ports = []
    for number in range(count):
        listener = socket.create_server(("127.0.0.1", 0))
        ports.append(listener.getsockname()[1])
        boot = f"{number:08x}-0000-4000-8000-000000000000"
        threading.Thread(target=_serve, args=(listener, key, boot), daemon=True).start()
    print(json.dumps({"ports": ports, "key": f"{key.get_name()} {key.get_base64()}"}), flush=True)
    sys.stdin.read()


def _serve(listener: socket.socket, key: paramiko.PKey, boot: str) -> None:
    while True:
        connection, _ = listener.accept()
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        try:
            transport.start_server(server=_Door(boot))
        except (paramiko.SSHException, EOFError):
            continue


# --- the controller ---


class _Looks:
    """Hosts called dark are off; the others answer."""

    def signs(self, host: str, *, deadline_s: float) -> Mapping[str, Any]:
        from labctl.domain.sleep.terms import Sign

        here = Sign.DARK if host.startswith("dark") else Sign.ON
        return {"ssh": here, "ping": here, "arp": here if here is Sign.DARK else Sign.UNCLEAR}


class _Switch:
    kind, can_cut, has_meter = "bench", False, False

    def __init__(self) -> None:
        self.sent: list[float] = []

    def wake(self) -> None:
        self.sent.append(time.monotonic())

    def power(self) -> str:
        return "unclear"

    def cut(self) -> None: ...


def main(count: int = 50, seconds: float = 60.0) -> int:
    """Measure, print, and return 0 where all limits hold."""
    argv = [sys.executable, "-m", _ME, "--hosts", str(count)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as served,
    ):
        assert served.stdout is not None and served.stdin is not None
        try:
            return _measure(Path(folder), json.loads(served.stdout.readline()), seconds)
        finally:
            served.stdin.close()


def _measure(folder: Path, served: Mapping[str, Any], seconds: float) -> int:
    from labctl.controller.leader import Pulse

    parts, switches = _assembled(folder, served)
    names = [name for name in parts.means.policy.hosts if not name.startswith("dark")]
    ticks: list[tuple[float, float]] = []
    tick = parts.loop.tick

    def timed() -> None:
        began, spent = time.monotonic(), time.thread_time()
        tick()
        ticks.append((time.monotonic() - began, time.thread_time() - spent))

    parts.loop.tick = timed  # type: ignore[method-assign]
    pulse = Pulse(parts.means.leader, lambda error: None)
    pulse.start()
    over = threading.Event()
    loop = threading.Thread(target=parts.loop.run, args=(over, lambda: None), daemon=True)
    loop.start()
    _until(lambda: _ready(parts, names), 120)
    time.sleep(2 * TICK_S)
    ticks.clear()
    spent = time.process_time()
    time.sleep(seconds)
    share = (time.process_time() - spent) / seconds
    rss, threads, files = _size()
    usual = list(ticks)
    delays = [_delay(parts, f"dark{number}", switches[f"dark{number}"]) for number in range(DARK)]
    over.set()
    parts.loop.nudge()
    loop.join()
    pulse.stop()
    parts.means.observer.stop()
    parts.means.doors.talker.stop()
    return _told(len(names), usual, share, (rss, threads, files), delays)


def _told(
    count: int,
    ticks: list[tuple[float, float]],
    share: float,
    size: tuple[float, int, int],
    delays: list[float],
) -> int:
    wall, cpu = max(one[0] for one in ticks), statistics.median(one[1] for one in ticks)
    print(f"{count} hosts, {len(ticks)} ticks, load {os.getloadavg()[0]:.1f}")
    print(f"tick: {wall * 1000:.0f} ms at most, {cpu * 1000:.1f} ms of CPU (median)")
    print(f"CPU: {share * 100:.2f} % of one core at an interval of {TICK_S:g} s")
    print(f"memory: {size[0]:.0f} MB with {count} open channels, {size[1]} threads, {size[2]} descriptors")
    print(
        f"packet after a wish: {statistics.median(delays) * 1000:.1f} ms, {max(delays) * 1000:.1f} ms at most"
    )
    held = wall <= TICK_LIMIT_S and share <= CORE_LIMIT and size[0] <= RSS_LIMIT_MB
    return 0 if held and max(delays) <= PACKET_LIMIT_S else 1


def _assembled(folder: Path, served: Mapping[str, Any]) -> tuple[Any, dict[str, _Switch]]:
    from labctl import wiring
    from labctl.adapters.clock import SleeplessClock
    from labctl.adapters.ssh import SshRemote
    from labctl.controller.doors import Doors
    from labctl.controller.run import assembled
    from labctl.domain.budget import Rack
    from labctl.domain.sleep.terms import HostPolicy, Policy

    key = folder / "key"
    key.touch(mode=0o600)
    with key.open("w") as stream:
        paramiko.ECDSAKey.generate().write_private_key(stream)
    known = folder / "known_hosts"
    known.write_text("".join(f"[127.0.0.1]:{port} {served['key']}\n" for port in served["ports"]))
    common = {
        "ssh_hostname": "127.0.0.1",
        "ssh_user": "labctl-agent",
        "ssh_key": str(key),
        "ssh_known_hosts_file": str(known),
        "ssh_strict_host_key_checking": "yes",
        "ssh_forced": True,
    }
    data = {f"gpu{number}": {**common, "ssh_port": port} for number, port in enumerate(served["ports"])}
    data |= {f"dark{number}": {**common, "ssh_port": 1} for number in range(DARK)}
    store = wiring.store(folder / "store.db", create=True)
    ssh, names = SshRemote(), list(data)
    store.enlist(names, now=time.time())
    switches = {name: _Switch() for name in names}
    doors = Doors(store, ssh, ssh, _Looks(), switches, SleeplessClock(), data, time.sleep)  # type: ignore[arg-type]
    policy = Policy(
        {name: HostPolicy(name, wakeable=True, sleeps=True) for name in names}, Rack(()), tick_s=TICK_S
    )
    return assembled(doors, policy, "bench"), switches


def _ready(parts: Any, names: list[str]) -> bool:
    known = parts.means.doors.store.known(now=time.time()).hosts
    return all(known[name].mode == "ready" for name in names)


def _until(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit("not all hosts became ready")
        time.sleep(0.5)


def _delay(parts: Any, host: str, switch: _Switch) -> float:
    """Return the seconds from a wish for a host that sleeps to the first packet."""
    time.sleep(1.0)
    sent, began = len(switch.sent), time.monotonic()
    (ticket,) = parts.service.wake([host], why="bench", by="bench")
    while len(switch.sent) == sent:
        if time.monotonic() - began > 5:
            raise SystemExit("no packet was sent")
        time.sleep(0.0005)
    parts.service.forget([ticket])
    return switch.sent[sent] - began


def _size() -> tuple[float, int, int]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"]), len(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--hosts"]:
        hosts(int(sys.argv[2]))
    else:
        sys.exit(main(*(int(word) for word in sys.argv[1:])))
