"""Fixtures for all tests. That this file is here also lets them import the modules beside it."""

from __future__ import annotations

from fake_gpus import amd_fuse, amd_tree, loaded_nvml, nvml, nvml_library

__all__ = ["amd_fuse", "amd_tree", "loaded_nvml", "nvml", "nvml_library"]
