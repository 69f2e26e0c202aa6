"""The real command in a terminal of 80 columns, over real SSH connections to loopback hosts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from loopback import Lan

LABCTL = str(Path(sys.executable).with_name("labctl"))
WHY = "the driver said that this limit is not one that it knows, and it was not to be moved from that"

# In place of the agent, which is no file here; the host to hang is told by its port.
SUDO = """#!/bin/sh
cat >/dev/null
[ "$PORT" != "$(cat {folder}/hangs 2>/dev/null)" ] || {{ echo begun >>{folder}/begun; sleep 3; }}
cat {folder}/answer
"""


def a_card(slot: str, status: str, after: int, why: str = "") -> dict[str, object]:
    name = "NVIDIA GeForce RTX 3090"
    return {"slot": slot, "name": name, "status": status, "before_w": 350, "after_w": after, "why": why}


@pytest.fixture
def rack(lan: Lan) -> Path:
    """A rack of two hosts on this machine, each with a card that takes its cap and one that does not."""
    cards = [a_card("slot0", "changed", 200), a_card("slot1", "failed", 350, WHY)]
    (lan.folder / "answer").write_text(json.dumps({"format": 1, "cards": cards, "findings": []}))
    lan.sudo(SUDO.format(folder=lan.folder))
    hosts = ""
    for number, name in enumerate(("quick", "slow"), 2):
        lan.start(address=f"127.0.0.{number}")
        gpus = '[Gpu(model="RTX 3090", slot=s) for s in ("slot0", "slot1")]'
        ssh = f'Ssh(user="admin", port={lan.hosts[-1].port}, key="operator")'
        hosts += f'    Host(name="{name}", address="127.0.0.{number}", gpus={gpus}, ssh={ssh}),\n'
    (lan.folder / "rack.py").write_text(
        "from labctl.inventory import Gpu, Host, Rack, Ssh\n\n"
        f"rack = Rack(name='lan', hosts=[\n{hosts}])\nglobals().update(rack.groups())\n"
    )
    return lan.folder / "rack.py"


def environment(folder: Path) -> dict[str, str]:
    own = {"LABCTL_STATE": str(folder / "state"), "LABCTL_CACHE": str(folder / "cache"), "TERM": "xterm"}
    return {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | own


def in_a_terminal(folder: Path, *args: str) -> tuple[int, str]:
    """Run labctl in a terminal of 80 columns; return its exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.execve(LABCTL, [LABCTL, *args], environment(folder))
    shown, end = b"", time.monotonic() + 30
    while select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_the_table_fits_80_columns_and_is_coloured_only_in_a_terminal(rack: Path) -> None:
    code, shown = in_a_terminal(rack.parent, "powercap", "200", "-i", str(rack))
    assert code == 4
    plain = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", shown).replace("\r\n", "\n").replace("\r", "\n")
    assert "\x1b[32mchanged" in shown
    assert max(map(len, plain.splitlines())) <= 80
    assert " ".join(re.findall(r"\S+", plain)).count("350 -> 200 W") == 2
    assert "Result: 2 of 4 cards as ordered; not done: quick/slot1, slow/slot1" in plain.replace("\n", " ")
    piped = subprocess.run(
        [LABCTL, "powercap", "200", "-i", str(rack)], capture_output=True, text=True,
        env=environment(rack.parent), check=False,
    )  # fmt: skip
    assert piped.returncode == 4
    assert "\x1b" not in piped.stdout + piped.stderr
    assert f"quick  slot1  RTX 3090  350 W         failed   {WHY}" in piped.stdout


def test_a_ctrl_c_ends_at_once_with_what_is_known_while_the_host_finishes_its_order(
    rack: Path, lan: Lan
) -> None:
    (lan.folder / "hangs").write_text(f"{lan.hosts[1].port}\n")
    running = subprocess.Popen(
        [LABCTL, "powercap", "200", "-i", str(rack)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(rack.parent),
    )  # fmt: skip
    until = time.monotonic() + 20
    while not ((lan.folder / "begun").exists() and lan.hosts[0].left):
        assert time.monotonic() < until, "one host was never asked, or the other never left alone"
        time.sleep(0.02)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "quick  slot0  RTX 3090  350 -> 200 W  changed" in out
    assert (
        "slow                                  interrupted  it was asked, and its answer not awaited" in out
    )
