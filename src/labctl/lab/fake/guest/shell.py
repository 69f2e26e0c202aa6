#!/usr/bin/python3
"""The lab's way into a virtual machine past its network: runs commands as root that come over a virtio port.

One JSON line there, {"id", "argv", "stdin", "timeout"}, one back, {"id", "status", "out", "err"}; several at
once. The first line, {"booted"}, says that the boot is complete. Only the machine that runs this virtual one
has the other end.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

PORT = Path("/dev/virtio-ports/lab")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def set_the_clock() -> None:
    """Take the time of day from the hardware: the kernel of a state that is loaded knows that of then."""
    now = int(Path("/sys/class/rtc/rtc0/since_epoch").read_text())
    time.clock_settime(time.CLOCK_REALTIME, now)


class Shell:
    """The port, and what comes and goes through it."""

    def __init__(self, port: BinaryIO) -> None:
        self.port, self.lock = port, threading.Lock()

    def say(self, document: dict[str, Any]) -> None:
        """Write one line."""
        with self.lock:
            left = memoryview(json.dumps(document).encode() + b"\n")
            while left:
                left = left[self.port.write(left) :]

    def obey(self, order: dict[str, Any]) -> None:
        """Run one command, and say what came of it."""
        try:
            done = subprocess.run(
                order["argv"],
                input=order["stdin"],
                timeout=order["timeout"],
                capture_output=True,
                text=True,
                errors="replace",
                env=ENVIRONMENT,
                cwd="/",
            )
            answer = {"status": done.returncode, "out": done.stdout, "err": done.stderr}
        except subprocess.TimeoutExpired:
            answer = {"status": 124, "out": "", "err": "", "late": True}
        except OSError as error:
            answer = {"status": 127, "out": "", "err": str(error)}
        self.say({"id": order["id"], **answer})


def main() -> None:
    """Obey for ever."""
    with PORT.open("r+b", buffering=0) as port:
        shell = Shell(port)
        shell.say({"booted": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
        reader = os.fdopen(os.dup(port.fileno()), "rb")
        while True:
            line = reader.readline()
            if not line:
                time.sleep(0.1)  # nobody holds the other end just now
                continue
            order = json.loads(line)
            if "argv" in order:
                threading.Thread(target=shell.obey, args=(order,), daemon=True).start()
            else:
                set_the_clock()
                shell.say({"id": order["id"], "status": 0})


if __name__ == "__main__":
    main()
