"""What a host measured of itself: ``telemetry`` in the controller's status (see ``domain.telemetry``)."""

from __future__ import annotations

from labctl.domain.sleep.telemetry_words import telemetry_of
from labctl.domain.telemetry import EngineNow, GpuNow
from labctl.web.metrics.families import Sheet
from labctl.web.metrics.reading import number

_MIB = 1024.0 * 1024.0
_MOST_MODELS = 64


def put(sheet: Sheet, host: str, said: object) -> None:
    """Put a host's cards, processor and engines on the page; nothing where it does not measure."""
    found = telemetry_of(said)
    if found is None:
        return
    sheet.put("labctl_host_telemetry_seconds", found.wall, host=host)
    for zone, used_uj in found.rapl_uj.items():
        sheet.put("labctl_host_cpu_energy_joules_total", _times(used_uj, 1e-6), host=host, zone=zone)
    for gpu in found.gpus:
        _put_gpu(sheet, host, gpu)
    for engine in found.engines:
        _put_engine(sheet, host, engine)


def _put_gpu(sheet: Sheet, host: str, one: GpuNow) -> None:
    gpu = one.uuid or one.pci
    if not gpu:
        return
    sheet.put("labctl_gpu_info", 1.0, host=host, gpu=gpu, name=one.name, pci=one.pci)
    for name, value in (
        ("labctl_gpu_asleep", float(one.asleep)),
        ("labctl_gpu_power_watts", _times(one.power_w)),
        ("labctl_gpu_power_cap_watts", _times(one.cap_w)),
        ("labctl_gpu_energy_joules_total", _times(one.energy_mj, 1e-3)),
        ("labctl_gpu_busy_ratio", _times(one.busy_percent, 1e-2)),
        ("labctl_gpu_temperature_celsius", _times(one.temperature_c)),
        ("labctl_gpu_memory_bytes", _times(one.vram_mib, _MIB)),
        ("labctl_gpu_memory_used_bytes", _times(one.vram_used_mib, _MIB)),
    ):
        sheet.put(name, value, host=host, gpu=gpu)


def _put_engine(sheet: Sheet, host: str, one: EngineNow) -> None:
    if not one.service:
        return
    for name, value in (
        ("labctl_engine_up", float(one.active)),
        ("labctl_engine_requests_running", _times(one.running)),
        ("labctl_engine_requests_waiting", _times(one.waiting)),
        ("labctl_engine_tokens_total", _times(one.tokens)),
    ):
        sheet.put(name, value, host=host, service=one.service, kind=one.kind)
    for model in one.models[:_MOST_MODELS]:
        sheet.put("labctl_model_loaded", 1.0, host=host, service=one.service, model=model)


def _times(said: float | None, factor: float = 1.0) -> float | None:
    """Return what was said in another unit; None where it is not known, or cannot be."""
    value = number(said)
    return None if value is None else number(value * factor)
