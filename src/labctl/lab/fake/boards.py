"""The graphics cards that the lab can imitate, as real ones of their kind describe themselves.

These rows are what fakes *answer*; what labctl *believes* of a card is its profile. The two are kept apart,
so that a wrong profile meets a card that contradicts it. A value is None where such a card has none: a GB10
and a Strix Halo have no power cap, an APU no memory of its own worth the name. Identities (UUID, serial, PCI
address) follow from the card's place, so the same rack has the same cards each time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from labctl.domain.problem import LabctlError

NVIDIA = "0x10de"
AMD = "0x1002"
_CARDS = uuid.UUID("6c616263-746c-4c61-8b00-000000000000")
_FIRST_BUS = 0x03
_BUSES_APART = 0x10


@dataclass(frozen=True, slots=True)
class NvidiaBoard:
    """One NVIDIA board; watts, MiB and MHz. ``arch`` and ``brand`` are NVML's numbers."""

    model: str
    name: str
    device: int
    arch: int
    compute: tuple[int, int]
    memory_mib: int | None
    default_w: int | None
    min_w: int | None
    max_w: int | None
    clock_mhz: int = 2100
    memory_mhz: int = 9751
    pcie: tuple[int, int] = (4, 16)
    brand: int = 5
    ecc: bool = False
    nvlinks: int = 0


@dataclass(frozen=True, slots=True)
class AmdBoard:
    """One AMD board; watts, MiB and MHz. An APU (``apu``) shares the machine's memory and has no cap."""

    model: str
    name: str
    device: int
    gfx: int
    vram_mib: int
    gtt_mib: int
    default_w: int | None
    min_w: int | None
    max_w: int | None
    clock_mhz: int = 2500
    units: int = 96
    apu: bool = False

    @property
    def gfx_name(self) -> str:
        """Return LLVM's name of the target: 110501 is gfx1151."""
        major, minor, step = self.gfx // 10000, self.gfx // 100 % 100, self.gfx % 100
        return f"gfx{major}{minor:x}{step:x}"


Board = NvidiaBoard | AmdBoard

_N = NvidiaBoard
BOARDS: tuple[Board, ...] = (
    _N("RTX 3090", "NVIDIA GeForce RTX 3090", 0x2204, 7, (8, 6), 24576, 350, 100, 400, nvlinks=4),
    _N("RTX 4090", "NVIDIA GeForce RTX 4090", 0x2684, 8, (8, 9), 24564, 450, 150, 600, 3105, 10501),
    _N(
        "RTX 5090", "NVIDIA GeForce RTX 5090", 0x2B85, 10, (12, 0), 32607, 575, 400, 600, 3090, 14001, (5, 16)
    ),
    _N(
        "RTX 6000 Ada",
        "NVIDIA RTX 6000 Ada Generation",
        0x26B1,
        8,
        (8, 9),
        49140,
        300,
        100,
        300,
        3105,
        10001,
        brand=13,
        ecc=True,
    ),
    _N(
        "RTX PRO 6000 Blackwell",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        0x2BB1,
        10,
        (12, 0),
        97887,
        600,
        150,
        600,
        3090,
        14001,
        (5, 16),
        13,
        True,
    ),
    _N(
        "RTX PRO 4000 Blackwell SFF",
        "NVIDIA RTX PRO 4000 Blackwell SFF Edition",
        0x2C34,
        10,
        (12, 0),
        24467,
        70,
        50,
        70,
        2617,
        9001,
        (5, 8),
        13,
        True,
    ),
    _N("L40S", "NVIDIA L40S", 0x26B9, 8, (8, 9), 46068, 350, 100, 350, 2520, 9001, brand=14, ecc=True),
    _N(
        "A100",
        "NVIDIA A100-SXM4-40GB",
        0x20B0,
        7,
        (8, 0),
        40960,
        400,
        100,
        400,
        1410,
        1215,
        brand=14,
        ecc=True,
        nvlinks=12,
    ),
    _N(
        "H100",
        "NVIDIA H100 80GB HBM3",
        0x2330,
        9,
        (9, 0),
        81559,
        700,
        200,
        700,
        1980,
        2619,
        (5, 16),
        14,
        True,
        18,
    ),
    _N("H200", "NVIDIA H200", 0x2335, 9, (9, 0), 143771, 700, 200, 700, 1980, 3201, (5, 16), 14, True, 18),
    _N("P40", "Tesla P40", 0x1B38, 4, (6, 1), 24576, 250, 125, 250, 1531, 3615, (3, 16), 2, True),
    _N("V100", "Tesla V100-PCIE-32GB", 0x1DB6, 5, (7, 0), 32768, 250, 100, 250, 1380, 877, (3, 16), 2, True),
    _N("GB10", "NVIDIA GB10", 0x2E12, 10, (12, 1), None, None, None, None, 3003, 0, (1, 1), 14),
    AmdBoard("RX 7900 XTX", "Radeon RX 7900 XTX", 0x744C, 110000, 24560, 15936, 303, 272, 348),
    AmdBoard("RX 7900 XT", "Radeon RX 7900 XT", 0x744C, 110000, 20464, 15936, 265, 238, 304, 2400, 84),
    AmdBoard("W7900", "AMD Radeon PRO W7900", 0x7448, 110000, 49136, 15936, 241, 0, 241, 1760),
    AmdBoard("RX 9070 XT", "Radeon RX 9070 XT", 0x7550, 120001, 16304, 15936, 304, 213, 334, 2970, 64),
    AmdBoard(
        "Radeon 8060S", "Radeon 8060S Graphics", 0x1586, 110501, 512, 63488, None, None, None, 2900, 40, True
    ),
)
_ALIASES = {
    "strixhalo": "Radeon 8060S",
    "dgxspark": "GB10",
    "h100/h200": "H200",
    "rtxpro6000": "RTX PRO 6000 Blackwell",
    "rtxpro4000": "RTX PRO 4000 Blackwell SFF",
}
_NOISE = ("nvidia", "amd", "geforce", "tesla")


@dataclass(frozen=True, slots=True)
class Card:
    """A board in a place; ``index`` counts the cards of its maker in this host."""

    board: Board
    index: int
    pci: str
    uuid: str

    @property
    def vendor(self) -> str:
        """Return the maker's PCI number."""
        return NVIDIA if isinstance(self.board, NvidiaBoard) else AMD


def find(model: str) -> Board | None:
    """Return the board called ``model``, as rack files and drivers spell it; None for one without a fake."""
    wanted = _plain(model)
    wanted = _plain(_ALIASES.get(wanted, wanted))
    return next((board for board in BOARDS if wanted in (_plain(board.model), _plain(board.name))), None)


def _plain(name: str) -> str:
    """Return a name without makers, brands, address, identity, spaces and capitals."""
    words = [word for word in name.lower().split() if word not in _NOISE and word[0] not in "@="]
    return "".join(words)


def require(model: str) -> Board:
    """Return the board called ``model``.

    Raises:
        LabctlError: the lab has no fake of it; the hint lists those it has.
    """
    board = find(model)
    if board is None:
        known = ", ".join(board.model for board in BOARDS)
        raise LabctlError(f"the lab can't imitate the card {model!r}", hint=f"it knows: {known}")
    return board


def cards(models: tuple[str, ...], salt: str = "") -> tuple[Card, ...]:
    """Return the cards of a host that has boards of these models.

    Args:
        models: one for each card, each followed by ``@ADDRESS`` and ``=UUID`` where these are given.
        salt: the host's name, which makes the UUIDs of different hosts differ.

    Raises:
        LabctlError: there is no fake of a model.
    """
    counts = {NvidiaBoard: 0, AmdBoard: 0}
    taken = {word[1:].lower() for model in models for word in model.split() if word[0] == "@"}
    buses = (f"0000:{bus:02x}:00.0" for bus in range(_FIRST_BUS, 0x100, _BUSES_APART))
    free = (address for address in buses if address not in taken)
    made = []
    for place, model in enumerate(models):
        words = model.split()
        board = require(model)
        given = {word[0]: word[1:] for word in words}
        index = counts[type(board)]
        counts[type(board)] += 1
        made_up = str(uuid.uuid5(_CARDS, f"{salt}/{place}/{board.model}"))
        prefix = "GPU-" if isinstance(board, NvidiaBoard) else ""
        pci = given["@"].lower() if "@" in given else next(free)
        made.append(Card(board, index, pci, given.get("=", prefix + made_up)))
    return tuple(made)
