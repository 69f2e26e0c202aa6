"""What a host measured of itself: ``telemetry`` in the controller's status (see ``domain.telemetry``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labctl.web.metrics.families import Sheet
from labctl.web.metrics.reading import items, number, text

_MIB = 1024.0 * 1024.0
_MOST_MODELS = 64

# Each with its field, and by what the field is multiplied.
_OF_GPU = {
    "labctl_gpu_power_watts": ("power_w", 1.0),
    "labctl_gpu_power_cap_watts": ("cap_w", 1.0),
    "labctl_gpu_energy_joules_total": ("energy_mj", 1e-3),
    "labctl_gpu_busy_ratio": ("busy_percent", 1e-2),
    "labctl_gpu_temperature_celsius": ("temperature_c", 1.0),
    "labctl_gpu_memory_bytes": ("vram_mib", _MIB),
    "labctl_gpu_memory_used_bytes": ("vram_used_mib", _MIB),
}
_OF_ENGINE = {
    "labctl_engine_requests_running": "running",
    "labctl_engine_requests_waiting": "waiting",
    "labctl_engine_tokens_total": "tokens",
}


def put(sheet: Sheet, host: str, said: object) -> None:
    """Put a host's cards, processor and engines on the page; nothing where it does not measure."""
    if not isinstance(said, Mapping):
        return
    sheet.put("labctl_host_telemetry_seconds", number(said.get("wall")), host=host)
    rapl = said.get("rapl_uj")
    for zone, value in rapl.items() if isinstance(rapl, Mapping) else ():
        used = number(value)
        if isinstance(zone, str) and used is not None:
            sheet.put("labctl_host_cpu_energy_joules_total", used / 1e6, host=host, zone=zone)
    for gpu in items(said.get("gpus")):
        _put_gpu(sheet, host, gpu)
    for engine in items(said.get("engines")):
        _put_engine(sheet, host, engine)


def _put_gpu(sheet: Sheet, host: str, one: Mapping[str, Any]) -> None:
    pci = text(one.get("pci"))
    gpu = text(one.get("uuid")) or pci
    if not gpu:
        return
    sheet.put("labctl_gpu_info", 1.0, host=host, gpu=gpu, name=text(one.get("name")), pci=pci)
    asleep = one.get("asleep") is True
    sheet.put("labctl_gpu_asleep", float(asleep), host=host, gpu=gpu)
    for name, (field, times) in _OF_GPU.items():
        value = number(one.get(field))
        sheet.put(name, None if value is None else value * times, host=host, gpu=gpu)


def _put_engine(sheet: Sheet, host: str, one: Mapping[str, Any]) -> None:
    service, kind = text(one.get("service")), text(one.get("kind"))
    if not service:
        return
    said = {"host": host, "service": service, "kind": kind}
    sheet.put("labctl_engine_up", float(one.get("active") is True), **said)
    for name, field in _OF_ENGINE.items():
        sheet.put(name, number(one.get(field)), **said)
    models = one.get("models")
    for model in models[:_MOST_MODELS] if isinstance(models, list) else ():
        if isinstance(model, str) and model:
            sheet.put("labctl_model_loaded", 1.0, host=host, service=service, model=model)
