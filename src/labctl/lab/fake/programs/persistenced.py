#!/usr/bin/python3
"""Keep the (fake) driver of NVIDIA's cards awake; stands in for nvidia-persistenced on hosts of the lab.

Like the real one it goes into the background once it has the driver, and is a client that never leaves, so
settings stay while it runs. With ``--persistence-mode`` (its default) it also switches every card's
persistence mode on, and off when it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PID = Path("/run/nvidia-persistenced/nvidia-persistenced.pid")


def main(argv: list[str]) -> int:
    """Go into the background if the driver is there; return the exit status of who stays in front."""
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return 0 if os.read(ready, 1) else 1
    os.setsid()
    return hold(tell, keeps="--no-persistence-mode" not in argv)


def hold(tell: int, *, keeps: bool) -> int:
    """Hold the driver until a signal to end comes; ``tell`` is written to once it is held."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        sys.stderr.write(f"nvidia-persistenced: {error}\n")
        return 1
    status = nvml.nvmlInit_v2()
    if status:
        sys.stderr.write(f"nvidia-persistenced: failed to query NVIDIA devices ({status})\n")
        return 1
    if keeps:
        switch(nvml, 1)
    PID.parent.mkdir(exist_ok=True)
    PID.write_text(f"{os.getpid()}\n")
    os.write(tell, b"1")
    os.close(tell)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    if keeps:
        switch(nvml, 0)
    nvml.nvmlShutdown()
    PID.unlink(missing_ok=True)
    return 0


def switch(nvml: ctypes.CDLL, on: int) -> None:
    """Set the persistence mode of every card that answers."""
    number, card = ctypes.c_uint(), ctypes.c_void_p()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(number))
    for index in range(number.value):
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card)) == 0:
            nvml.nvmlDeviceSetPersistenceMode(card, on)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
