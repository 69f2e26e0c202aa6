"""A host on which all is well, for tests that break one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from labctl.domain.capping import Declared
from labctl.domain.health.evidence import (
    Certificate,
    Clock,
    Driver,
    Engine,
    Evidence,
    Gpu,
    Link,
    Memory,
    Mount,
    Rows,
    Smart,
    Upkeep,
)
from labctl.domain.health.expected import Expected, ExpectedEngine, ExpectedGpu
from labctl.domain.health.terms import Case, Sleep
from labctl.domain.health.thresholds import DAY_S
from labctl.domain.sleep.lifecycle import Mode

NOW = 1_764_400_000.0
LOOK_S = 300.0
UUIDS = tuple(f"GPU-1111111{n}-2222-3333-4444-555555555555" for n in range(4))
PCIS = tuple(f"0000:0{n + 1}:00.0" for n in range(4))
PATTERN = "(NVIDIA )?(GeForce )?RTX ?3090"

CHAT = Engine(
    "chat", "labctl-chat.service", "llama-server", "active", "running", 0, 200, running=0, waiting=0,
    tokens=9.0, pulse=9.0, gpus=UUIDS[:2], gpu_mib=20_000,
)  # fmt: skip
SWAP = Engine(
    "swap", "labctl-swap.service", "llama-swap", "active", "running", 0, 200,
    config="aa", config_file="aa", config_sha256="cc",
)  # fmt: skip


def card(n: int, **changes: Any) -> Gpu:
    """Return a card that is well."""
    whole = Gpu(
        "nvidia",
        UUIDS[n],
        PCIS[n],
        "NVIDIA GeForce RTX 3090",
        vram_mib=24576,
        vram_used_mib=1000,
        busy_percent=90,
        power_w=100.0,
        cap_w=280.0,
        temperature_c=60.0,
        hotspot_c=70.0,
        memory_c=80.0,
        slowdown_c=95.0,
        throttle=(),
        link=Link(4, 16, 4, 16, replays=3),
        ecc_uncorrected=0,
        ecc_corrected=0,
        rows=Rows(0, 0, False, False),
        retired_pending=False,
        recovery="none",
    )
    return replace(whole, **changes)


def declared(n: int, **changes: Any) -> ExpectedGpu:
    """Return what is declared of it."""
    whole = ExpectedGpu(
        f"slot{n}",
        UUIDS[n],
        "RTX 3090",
        "nvidia",
        280.0,
        counted_w=280.0,
        declared=Declared("RTX 3090", slot=f"slot{n}", uuid=UUIDS[n], patterns=(PATTERN,), cap_w=280),
    )
    return replace(whole, **changes)


def evidence(**changes: Any) -> Evidence:
    """Return what the host says when all is well."""
    whole = Evidence(
        at=NOW,
        agent="0.1.0",
        boot_id="b",
        gpus=(card(0), card(1)),
        driver=Driver("580.1", "580.1", "580.1"),
        xids=(),
        mounts=(
            Mount("/", "/dev/sda1", 500_000, 300_000, 80.0, False),
            Mount("/srv/models", "/dev/nvme0n1", 4_000_000, 2_000_000, 90.0, False),
        ),
        smart=(Smart("/dev/nvme0", True, 3, 0, None, 100, 41.0), Smart("/dev/sda", True, None, None, 0)),
        memory=Memory(128_000, 100_000, 0, 0, 0.0, 2),
        clock=Clock(NOW, True, 0.001),
        upkeep=Upkeep(False, (), 0, 4, 3600.0),
        failed_units=(),
        certificates=(Certificate("/etc/gateway.pem", "CN=rack", NOW + 90 * DAY_S),),
        engines=(CHAT, SWAP),
        caps_wanted_w={UUIDS[0]: 280.0, UUIDS[1]: 280.0},
        wol_armed=True,
        errors={},
    )
    return replace(whole, **changes)


def expected(**changes: Any) -> Expected:
    """Return what the rack file wants of the host."""
    whole = Expected(
        "rig",
        gpus=(declared(0), declared(1)),
        engines=(
            ExpectedEngine("chat", "llama-server", ("slot0", "slot1")),
            ExpectedEngine("swap", "llama-swap", (), "aa", "cc"),
        ),
        model_mount="/srv/models/llm",
        sleeps=True,
        wakeable=True,
        armed=True,
        controlled=True,
        agent="0.1.0",
        certificates=("/etc/gateway.pem",),
    )
    return replace(whole, **changes)


def well(**changes: Any) -> Case:
    """Return the host on which all is well, or with those changes of the case."""
    whole = Case(
        expected=expected(),
        evidence=evidence(),
        unreachable="",
        sleep=Sleep(Mode.READY, NOW - 3600, "it serves", waking_usual_s=40.0),
        earlier=evidence(at=NOW - LOOK_S),
        engines=(),
        now=NOW,
    )
    return replace(whole, **changes)


def told(case: Case, **changes: Any) -> Case:
    """Return a case with changes of what the host said."""
    assert case.evidence is not None
    return replace(case, evidence=replace(case.evidence, **changes))


def wanted(case: Case, **changes: Any) -> Case:
    """Return a case with changes of what the rack file wants."""
    return replace(case, expected=replace(case.expected, **changes))


def with_card(case: Case, **changes: Any) -> Case:
    """Return a case with changes of its first card."""
    return told(case, gpus=(card(0, **changes), card(1)))
