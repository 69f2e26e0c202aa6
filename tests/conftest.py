"""Fixtures for all tests. That this file is here also lets them import the modules beside it."""

from __future__ import annotations

from fake_gpus import loaded_nvml, nvml, nvml_library

__all__ = ["loaded_nvml", "nvml", "nvml_library"]
