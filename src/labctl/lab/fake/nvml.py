"""The fake NVML: its library, compiled from ``fakenvml.c``, and the state file that it answers from.

The library is built with the machine's own C compiler into a cache, once for each version of the source. The
state of a fresh card is that of a real one after boot: cap at its default, persistence mode off, no clients.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.commands import attempt, find
from labctl.lab.fake.boards import Card, NvidiaBoard

DRIVER = "580.95.05"
CUDA = 13000
SONAME = "libnvidia-ml.so.1"
_SOURCE = "fakenvml.c"
_IDLE_W = 21
_KEY = re.compile(r"[A-Za-z0-9_.]+")


def compiler() -> str | None:
    """Return the path of a C compiler of this machine, if there is one."""
    return next((found for name in ("gcc", "cc", "clang") if (found := find(name))), None)


def library(cache: Path) -> Path:
    """Return the built library, named ``libnvidia-ml.so.1``; builds it if the source has changed.

    Raises:
        LabctlError: there is no compiler, or it failed.
    """
    source = files(__package__).joinpath(_SOURCE).read_bytes()
    built = cache / f"fakenvml-{hashlib.sha256(source).hexdigest()[:12]}" / SONAME
    if built.exists():
        return built
    gcc = compiler()
    if gcc is None:
        raise LabctlError(
            "fake NVIDIA cards need a C compiler",
            hint="apt-get install --no-install-recommends gcc libc6-dev",
        )
    built.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own, since several processes may build at once.
    partial = built.with_name(f".{os.getpid()}.so")
    argv = [
        gcc,
        "-std=gnu11",
        "-O1",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{SONAME}",
        "-o",
        str(partial),
        "-xc",
        "-",
    ]
    done = attempt(*argv, stdin=source.decode())
    if done.returncode:
        raise LabctlError(f"{gcc} can't build the fake NVML: {done.stderr.strip()[-400:]}")
    partial.rename(built)
    return built


def state_text(cards: Iterable[Card], *, driver: str | None = DRIVER, cuda: int = CUDA) -> str:
    """Return the state file of these cards after a boot; ``driver`` None: no kernel module is loaded."""
    mine = [card for card in cards if isinstance(card.board, NvidiaBoard)]
    lines = [f"count={len(mine)}", *([f"driver={driver}", f"cuda={cuda}"] if driver else [])]
    for card in mine:
        lines += [f"gpu{card.index}.{key}={value}" for key, value in _properties(card).items()]
    return "\n".join(lines) + "\n"


def _properties(card: Card) -> dict[str, str | int]:
    """Return what a card says of itself; what it lacks is left out."""
    board = card.board
    assert isinstance(board, NvidiaBoard)
    gen, width = board.pcie
    bus = "0000" + card.pci.upper()
    said: dict[str, str | int | None] = {
        "name": board.name,
        "uuid": card.uuid,
        "serial": f"13200{int(card.uuid[4:12], 16) % 10**8:08d}" if board.ecc else None,
        "vbios": "94.02.42.00.B4",
        "brand": board.brand,
        "arch": board.arch,
        "cc_major": board.compute[0],
        "cc_minor": board.compute[1],
        "bus_id": bus,
        "pci_id": f"0x{board.device:04X}10DE",
        "pci_subsys": "0x40373842",
        "pcie_gen": 1,
        "pcie_width": width,
        "pcie_gen_max": gen,
        "pcie_width_max": width,
        "pcie_replay": 0,
        "util_gpu": 0,
        "util_mem": 0,
        "clock_gr": 210,
        "clock_sm": 210,
        "clock_mem": 405,
        "clock_video": 555,
        "clock_gr_max": board.clock_mhz,
        "clock_sm_max": board.clock_mhz,
        "clock_mem_max": board.memory_mhz or None,
        "clock_video_max": 1950,
        "temp": 34,
        "temp_shutdown": 98,
        "temp_slowdown": 95,
        "temp_gpu_max": 93,
        "fan": 0 if board.memory_mib and not board.ecc else None,
        "pstate": 8,
        "throttle": "0x1",
        "throttle_supported": "0x1ff",
        "power_mw": _IDLE_W * 1000,
        "persistence": 0,
        "compute_mode": 0,
    }
    return {
        key: value
        for key, value in (said | _memory(board) | _power(board) | _links(board)).items()
        if value is not None
    }


def _memory(board: NvidiaBoard) -> dict[str, str | int | None]:
    if board.memory_mib is None:
        return {}
    plain: dict[str, str | int | None] = {
        "mem_total": board.memory_mib << 20,
        "mem_used": 4 << 20,
        "mem_reserved": 341 << 20,
        "bar1_total": 256 << 20,
    }
    if not board.ecc:
        return plain
    counters = [f"ecc_{kind}_{span}" for kind in ("corr", "uncorr") for span in ("volatile", "aggregate")]
    return plain | {"ecc": 1, "ecc_pending": 1} | dict.fromkeys(counters, 0)


def _power(board: NvidiaBoard) -> dict[str, str | int | None]:
    if board.default_w is None or board.min_w is None or board.max_w is None:
        return {}
    return {
        "power_mode": 1,
        "power_default_mw": board.default_w * 1000,
        "power_min_mw": board.min_w * 1000,
        "power_max_mw": board.max_w * 1000,
        "power_limit_mw": board.default_w * 1000,
    }


def _links(board: NvidiaBoard) -> dict[str, str | int | None]:
    return {"nvlinks": board.nvlinks, "nvlink_up": 0, "nvlink_version": 3} if board.nvlinks else {}


def parse(text: str) -> dict[str, str]:
    """Return a state file's values by key."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def changed(text: str, **values: str | int | None) -> str:
    """Return a state file with some values changed; None takes a key away. Dots in keys are written ``__``.

    Raises:
        LabctlError: a key or a value can't stand in the file.
    """
    state = parse(text)
    for name, value in values.items():
        key = name.replace("__", ".")
        if not _KEY.fullmatch(key) or "\n" in str(value):
            raise LabctlError(f"{key}={value!r} can't stand in the state of a card")
        if value is None:
            state.pop(key, None)
        else:
            state[key] = str(value)
    return "".join(f"{key}={value}\n" for key, value in state.items())
