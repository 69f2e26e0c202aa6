"""What nvidia-smi tells of a card: the columns of its query, and the elements of its XML report."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_uint

from .cards import Card, count, version

BRANDS = {1: "Quadro", 2: "Tesla", 5: "GeForce", 13: "NVIDIA RTX", 14: "NVIDIA"}
ARCHITECTURES = {
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
}


def _watts(name: str) -> Callable[[Card], str]:
    return lambda card: f"{card.number(name) / 1000:.2f}"


def _plain(name: str, *args: int) -> Callable[[Card], str]:
    return lambda card: str(card.number(name, *args))


def _text(name: str) -> Callable[[Card], str]:
    return lambda card: card.text(name)


def _switch(value: int) -> str:
    return "Enabled" if value else "Disabled"


def _limit(end: int) -> Callable[[Card], str]:
    return lambda card: f"{card.pair('PowerManagementLimitConstraints')[end] / 1000:.2f}"


def _mib(what: str) -> Callable[[Card], str]:
    return lambda card: str(card.mib(what))


def _ecc(kind: int, span: int) -> Callable[[Card], str]:
    return lambda card: str(card.number("TotalEccErrors", kind, span, wide=True))


def _utilization(card: Card) -> tuple[int, int]:
    both = (c_uint * 2)()
    card.call("nvmlDeviceGetUtilizationRates", byref(both))
    return both[0], both[1]


# Column: its heading, its unit, and where it is from.
COLUMNS: dict[str, tuple[str, str, Callable[[Card], str]]] = {
    "index": ("index", "", lambda card: str(card.index)),
    "name": ("name", "", _text("Name")),
    "uuid": ("uuid", "", _text("UUID")),
    "serial": ("serial", "", _text("Serial")),
    "vbios_version": ("vbios_version", "", _text("VbiosVersion")),
    "pci.bus_id": ("pci.bus_id", "", lambda card: card.bus),
    "pci.bus": ("pci.bus", "", lambda card: f"0x{card.pci().bus:02X}"),
    "pci.device_id": ("pci.device_id", "", lambda card: f"0x{card.pci().id:08X}"),
    "pci.sub_device_id": ("pci.sub_device_id", "", lambda card: f"0x{card.pci().subsystem:08X}"),
    "driver_version": ("driver_version", "", lambda card: version(card.nvml, "Driver")),
    "count": ("count", "", lambda card: str(count(card.nvml))),
    "persistence_mode": ("persistence_mode", "", lambda card: _switch(card.number("PersistenceMode"))),
    "pcie.link.gen.current": ("pcie.link.gen.current", "", _plain("CurrPcieLinkGeneration")),
    "pcie.link.gen.max": ("pcie.link.gen.max", "", _plain("MaxPcieLinkGeneration")),
    "pcie.link.width.current": ("pcie.link.width.current", "", _plain("CurrPcieLinkWidth")),
    "pcie.link.width.max": ("pcie.link.width.max", "", _plain("MaxPcieLinkWidth")),
    "fan.speed": ("fan.speed", "%", _plain("FanSpeed")),
    "pstate": ("pstate", "", lambda card: f"P{card.number('PerformanceState')}"),
    "memory.total": ("memory.total", "MiB", _mib("total")),
    "memory.reserved": ("memory.reserved", "MiB", _mib("reserved")),
    "memory.used": ("memory.used", "MiB", _mib("used")),
    "memory.free": ("memory.free", "MiB", _mib("free")),
    "utilization.gpu": ("utilization.gpu", "%", lambda card: str(_utilization(card)[0])),
    "utilization.memory": ("utilization.memory", "%", lambda card: str(_utilization(card)[1])),
    "ecc.mode.current": ("ecc.mode.current", "", lambda card: _switch(card.pair("EccMode")[0])),
    "ecc.mode.pending": ("ecc.mode.pending", "", lambda card: _switch(card.pair("EccMode")[1])),
    "ecc.errors.corrected.volatile.total": ("ecc.errors.corrected.volatile.total", "", _ecc(0, 0)),
    "ecc.errors.corrected.aggregate.total": ("ecc.errors.corrected.aggregate.total", "", _ecc(0, 1)),
    "ecc.errors.uncorrected.volatile.total": ("ecc.errors.uncorrected.volatile.total", "", _ecc(1, 0)),
    "ecc.errors.uncorrected.aggregate.total": ("ecc.errors.uncorrected.aggregate.total", "", _ecc(1, 1)),
    "temperature.gpu": ("temperature.gpu", "", _plain("Temperature", 0)),
    "power.management": ("power.management", "", lambda card: _switch(card.number("PowerManagementMode"))),
    "power.draw": ("power.draw", "W", _watts("PowerUsage")),
    "power.limit": ("power.limit", "W", _watts("PowerManagementLimit")),
    "power.default_limit": ("power.default_limit", "W", _watts("PowerManagementDefaultLimit")),
    "power.min_limit": ("power.min_limit", "W", _limit(0)),
    "power.max_limit": ("power.max_limit", "W", _limit(1)),
    "clocks.gr": ("clocks.current.graphics", "MHz", _plain("ClockInfo", 0)),
    "clocks.sm": ("clocks.current.sm", "MHz", _plain("ClockInfo", 1)),
    "clocks.mem": ("clocks.current.memory", "MHz", _plain("ClockInfo", 2)),
    "clocks.max.gr": ("clocks.max.graphics", "MHz", _plain("MaxClockInfo", 0)),
    "clocks.max.sm": ("clocks.max.sm", "MHz", _plain("MaxClockInfo", 1)),
    "clocks.max.mem": ("clocks.max.memory", "MHz", _plain("MaxClockInfo", 2)),
    "compute_cap": ("compute_cap", "", lambda card: "{}.{}".format(*card.pair("CudaComputeCapability"))),
}
for other, known in (
    ("gpu_name", "name"),
    ("gpu_uuid", "uuid"),
    ("gpu_bus_id", "pci.bus_id"),
    ("gpu_serial", "serial"),
):
    COLUMNS[other] = COLUMNS[known]

# The XML report: depth, element, and the column or function that fills it; a unit stands behind the value.
REPORT: tuple[tuple[int, str, str | Callable[[Card], str] | None], ...] = (
    (2, "product_name", "name"),
    (2, "product_brand", lambda card: BRANDS.get(card.number("Brand"), "Unknown")),
    (2, "product_architecture", lambda card: ARCHITECTURES.get(card.number("Architecture"), "Unknown")),
    (2, "persistence_mode", "persistence_mode"),
    (2, "serial", "serial"),
    (2, "uuid", "uuid"),
    (2, "minor_number", _plain("MinorNumber")),
    (2, "vbios_version", "vbios_version"),
    (2, "pci", None),
    (3, "pci_bus", lambda card: f"{card.pci().bus:02X}"),
    (3, "pci_device", lambda card: f"{card.pci().device:02X}"),
    (3, "pci_domain", lambda card: f"{card.pci().domain:04X}"),
    (3, "pci_device_id", lambda card: f"{card.pci().id:08X}"),
    (3, "pci_bus_id", "pci.bus_id"),
    (3, "pci_sub_system_id", lambda card: f"{card.pci().subsystem:08X}"),
    (3, "pci_gpu_link_info", None),
    (4, "pcie_gen", None),
    (5, "max_link_gen", "pcie.link.gen.max"),
    (5, "current_link_gen", "pcie.link.gen.current"),
    (5, "device_current_link_gen", "pcie.link.gen.current"),
    (5, "max_device_link_gen", "pcie.link.gen.max"),
    (4, "link_widths", None),
    (5, "max_link_width", lambda card: f"{card.number('MaxPcieLinkWidth')}x"),
    (5, "current_link_width", lambda card: f"{card.number('CurrPcieLinkWidth')}x"),
    (3, "replay_counter", _plain("PcieReplayCounter")),
    (2, "fan_speed", "fan.speed"),
    (2, "performance_state", "pstate"),
    (2, "fb_memory_usage", None),
    (3, "total", "memory.total"),
    (3, "reserved", "memory.reserved"),
    (3, "used", "memory.used"),
    (3, "free", "memory.free"),
    (2, "utilization", None),
    (3, "gpu_util", "utilization.gpu"),
    (3, "memory_util", "utilization.memory"),
    (2, "ecc_mode", None),
    (3, "current_ecc", "ecc.mode.current"),
    (3, "pending_ecc", "ecc.mode.pending"),
    (2, "temperature", None),
    (3, "gpu_temp", lambda card: f"{card.number('Temperature', 0)} C"),
    (3, "gpu_temp_max_threshold", lambda card: f"{card.number('TemperatureThreshold', 0)} C"),
    (3, "gpu_temp_slow_threshold", lambda card: f"{card.number('TemperatureThreshold', 1)} C"),
    (2, "gpu_power_readings", None),
    (3, "power_state", "pstate"),
    (3, "average_power_draw", "power.draw"),
    (3, "instant_power_draw", "power.draw"),
    (3, "current_power_limit", "power.limit"),
    (3, "requested_power_limit", "power.limit"),
    (3, "default_power_limit", "power.default_limit"),
    (3, "min_power_limit", "power.min_limit"),
    (3, "max_power_limit", "power.max_limit"),
    (2, "clocks", None),
    (3, "graphics_clock", "clocks.gr"),
    (3, "sm_clock", "clocks.sm"),
    (3, "mem_clock", "clocks.mem"),
    (2, "max_clocks", None),
    (3, "graphics_clock", "clocks.max.gr"),
    (3, "sm_clock", "clocks.max.sm"),
    (3, "mem_clock", "clocks.max.mem"),
)
