"""Fixtures for all tests. That this file is here also lets them import the modules beside it.

A property is not judged by its time: on a machine that is busy it would fail by chance.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from fake_gpus import amd_fuse, amd_tree, loaded_nvml, nvml, nvml_library

__all__ = ["amd_fuse", "amd_tree", "loaded_nvml", "nvml", "nvml_library"]

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
