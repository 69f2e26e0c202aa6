"""The library that gives a virtual host's card Wake-on-LAN, compiled from ``fakewol.c`` into a cache."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from labctl.domain.problem import LabctlError
from labctl.lab.commands import attempt
from labctl.lab.fake.nvml import compiler

NAME = "libwol.so"
_SOURCE = "fakewol.c"


def library(cache: Path) -> Path:
    """Return the built library; builds it if the source has changed.

    Raises:
        LabctlError: there is no compiler, or it failed.
    """
    source = files(__package__).joinpath(_SOURCE).read_bytes()
    built = cache / f"fakewol-{hashlib.sha256(source).hexdigest()[:12]}" / NAME
    if built.exists():
        return built
    gcc = compiler()
    if gcc is None:
        raise LabctlError(
            "hosts that sleep need a C compiler",
            hint="apt-get install --no-install-recommends gcc libc6-dev",
        )
    built.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own, since several may build at once.
    partial = built.with_name(f".{uuid4().hex}.so")
    done = attempt(
        gcc, "-std=gnu11", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(partial), "-xc", "-",
        stdin=source.decode(),
    )  # fmt: skip
    if done.returncode:
        raise LabctlError(f"{gcc} can't build a card with Wake-on-LAN: {done.stderr.strip()[-400:]}")
    partial.rename(built)
    return built
