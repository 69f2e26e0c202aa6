"""NVIDIA's cards through NVML, by ctypes alone: numbers, texts and pairs, and the errors as they are."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_uint, c_ulonglong, c_void_p, create_string_buffer

INVALID, UNSUPPORTED, DENIED, NOT_LOADED, LOST = 2, 3, 4, 9, 15
WORDS = {DENIED: "Insufficient Permissions", LOST: "GPU is lost", 16: "GPU requires reset"}


class Failed(Exception):
    """A call of NVML failed; ``code`` says how."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Pci(ctypes.Structure):
    """NVML's place of a card on the bus."""

    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        *((name, c_uint) for name in ("domain", "bus", "device", "id", "subsystem")),
        ("busid", ctypes.c_char * 32),
    )


class Memory(ctypes.Structure):
    """NVML's memory of a card, in bytes."""

    _fields_ = (("version", c_uint), *((n, c_ulonglong) for n in ("total", "reserved", "free", "used")))


class Card:
    """One card; every method raises ``Failed`` if NVML says no."""

    def __init__(self, nvml: ctypes.CDLL, index: int) -> None:
        self.nvml, self.index, self.handle = nvml, index, c_void_p()
        self.call("nvmlDeviceGetHandleByIndex_v2", index, byref(self.handle), bare=True)

    def call(self, name: str, *args: object, bare: bool = False) -> None:
        """Call a function of NVML; not ``bare``: with the card first."""
        code = getattr(self.nvml, name)(*args) if bare else getattr(self.nvml, name)(self.handle, *args)
        if code:
            raise Failed(code)

    def number(self, name: str, *args: object, wide: bool = False) -> int:
        """Return the number that a function gives."""
        value = c_ulonglong() if wide else c_uint()
        self.call(f"nvmlDeviceGet{name}", *args, byref(value))
        return value.value

    def text(self, name: str) -> str:
        """Return the text that a function gives."""
        value = create_string_buffer(96)
        self.call(f"nvmlDeviceGet{name}", value, 96)
        return value.value.decode()

    def pair(self, name: str) -> tuple[int, int]:
        """Return the two numbers that a function gives."""
        one, two = c_uint(), c_uint()
        self.call(f"nvmlDeviceGet{name}", byref(one), byref(two))
        return one.value, two.value

    def pci(self) -> Pci:
        """Return the card's place on the bus."""
        found = Pci()
        self.call("nvmlDeviceGetPciInfo_v3", byref(found))
        return found

    def mib(self, what: str) -> int:
        """Return how much memory is total, reserved, used or free."""
        found = Memory(version=ctypes.sizeof(Memory) | 2 << 24)
        self.call("nvmlDeviceGetMemoryInfo_v2", byref(found))
        return int(getattr(found, what)) >> 20

    @property
    def bus(self) -> str:
        """Return the card's address as nvidia-smi prints it."""
        return str(self.pci().busid.decode())


def version(nvml: ctypes.CDLL, what: str) -> str:
    """Return the version of the driver or of NVML."""
    value = create_string_buffer(96)
    getattr(nvml, f"nvmlSystemGet{what}Version")(value, 96)
    return value.value.decode()


def count(nvml: ctypes.CDLL) -> int:
    """Return how many cards the driver shows."""
    number = c_uint()
    nvml.nvmlDeviceGetCount_v2(byref(number))
    return number.value
