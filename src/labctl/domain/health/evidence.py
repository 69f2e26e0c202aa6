"""What a host said of itself, as the checks see it.

The agent's verb ``health`` prints one JSON document: its ``report`` and more sections, of which
``reading.evidence_of`` makes an ``Evidence``. A section that is missing or of another kind is None, and
``errors`` says under the section's name why; a number that a card or disk does not have is None as well,
without an error.
Watts are W, memory is MiB, times are seconds (wall times since 1970), temperatures degrees Celsius.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Link:
    """A PCIe link now and at best; ``replays`` counts since the driver was loaded."""

    gen: int | None
    width: int | None
    gen_max: int | None
    width_max: int | None
    replays: int | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a card's memory that were replaced; ``pending``: a reset will replace one more."""

    corrected: int | None
    uncorrected: int | None
    pending: bool | None
    failed: bool | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card. ``code`` names what is wrong with it as a whole (``gpu-is-lost``, ``hang``); "" nothing.

    ``asleep``: runtime suspended, so not asked. ``throttle`` are the reasons that hold its clocks down now:
    ``power-cap``, ``hw-slowdown``, ``sw-thermal``, ``hw-thermal``, ``power-brake``, ``board-limit``,
    ``reliability``. ``recovery`` is what the driver wants done: none, reset, reboot, drain-p2p,
    drain-and-reset, bus-reset, system-reboot. ``device`` are its PCI ids (``1002:1586``): one
    without a name is known by them.
    """

    vendor: str
    uuid: str | None
    pci: str | None
    name: str | None
    asleep: bool = False
    code: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    vram_mib: int | None = None
    vram_used_mib: int | None = None
    busy_percent: int | None = None
    power_w: float | None = None
    cap_w: float | None = None
    temperature_c: float | None = None
    hotspot_c: float | None = None
    memory_c: float | None = None
    slowdown_c: float | None = None
    throttle: tuple[str, ...] | None = None
    link: Link | None = None
    ecc_uncorrected: int | None = None
    ecc_corrected: int | None = None
    rows: Rows | None = None
    retired_pending: bool | None = None
    recovery: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Xid:
    """A message of NVIDIA's driver in the kernel's log of this boot; ``count`` of the same code on a card."""

    pci: str
    code: int
    last: float
    count: int
    text: str


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver: what is loaded, what is on disk, and what the library is."""

    loaded: str | None
    on_disk: str | None
    library: str | None


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system: its mount point, size and room in MiB, and inodes left in percent."""

    path: str
    device: str
    total_mib: int
    free_mib: int
    inodes_free_percent: float | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class Smart:
    """What a disk says of itself; ``passed`` None: it did not say."""

    device: str
    passed: bool | None
    wear_percent: int | None = None
    media_errors: int | None = None
    pending_sectors: int | None = None
    spare_percent: int | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory; ``stall_percent``: share of the last minute in which all waited for it (PSI full)."""

    total_mib: int
    available_mib: int
    swap_total_mib: int
    swap_free_mib: int
    stall_percent: float | None
    oom_kills: int | None


@dataclass(frozen=True, slots=True)
class Clock:
    """The host's wall time when it looked, whether it is synchronised, and how far off it thinks it is."""

    wall: float
    synchronised: bool | None
    offset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What the package system waits for; ``security`` None: not known, ``age_s``: of its lists."""

    reboot_required: bool | None
    reboot_because: tuple[str, ...] = ()
    security: int | None = None
    pending: int | None = None
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in a file of this host, and until when it holds (wall)."""

    path: str
    subject: str
    not_after: float


@dataclass(frozen=True, slots=True)
class Engine:
    """An inference server of labctl's, as systemd, /proc and its own metrics tell it.

    One that llama-swap runs is an engine of its own, called ``SERVICE/MODEL``.

    ``answer`` is the status of its health page, None: no answer in time. ``running`` and ``waiting`` are
    requests; ``tokens`` those read and made since it started; None: it does not tell. Some engines count
    tokens only when a request ends, so ``pulse`` is a number that is another one whenever it computed
    anything. ``gpus`` are the UUIDs (else PCI addresses) of cards on which its processes hold memory; None:
    not known. ``device`` is what it itself says that it runs on: gpu, cpu or empty. ``config`` is, for
    llama-swap, the digest of what it runs by, ``config_file`` the one that its file bears, and
    ``config_sha256`` the file's own. ``silent``: its counters did not come in time.
    ``rests``: labctl stopped it for as long as nobody uses the host.
    """

    service: str
    unit: str
    kind: str
    active: str
    sub: str
    restarts: int | None
    answer: int | None
    running: int | None = None
    waiting: int | None = None
    tokens: float | None = None
    pulse: float | None = None
    models: tuple[tuple[str, str], ...] = ()
    gpus: tuple[str, ...] | None = None
    gpu_mib: int | None = None
    device: str = ""
    config: str = ""
    config_file: str = ""
    config_sha256: str = ""
    silent: bool = False
    rests: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a host said; see the module's text for None."""

    at: float
    agent: str
    boot_id: str
    gpus: tuple[Gpu, ...] | None = None
    driver: Driver | None = None
    xids: tuple[Xid, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    smart: tuple[Smart, ...] | None = None
    memory: Memory | None = None
    clock: Clock | None = None
    upkeep: Upkeep | None = None
    failed_units: tuple[str, ...] | None = None
    certificates: tuple[Certificate, ...] | None = None
    engines: tuple[Engine, ...] | None = None
    caps_wanted_w: Mapping[str, float] | None = None
    wol_armed: bool | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
