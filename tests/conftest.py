"""Fixtures for all tests. That this file is here also lets them import the modules beside it.

A property is not judged by its time: on a machine that is busy it would fail by chance.
"""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadGroupScheduling

from fake_gpus import amd_fuse, amd_tree, loaded_nvml, nvml, nvml_library

__all__ = ["amd_fuse", "amd_tree", "loaded_nvml", "nvml", "nvml_library"]

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tests that share something dear (a virtual machine, a wheel, a database server) stay on one worker.
# The mark xdist_group of pytest-xdist 3.8 has no effect with pytest 9.2, so they are told by their names.
GROUPS = {
    "sleepers": re.compile(
        r"tests/rack/test_(?:controller|gateway_rack|health_of_sleepers|monitoring_rack|page_rack|site_machine"
        r"|sleepers)\.py::"
    ),
    "package": re.compile(r"tests/test_package\.py::"),
    "postgres": re.compile("postgres"),
}


class Grouped(LoadGroupScheduling):
    """Hands out tests one by one, and each group whole."""

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group, names in GROUPS.items() if names.search(nodeid)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: whoever has the hosts that sleep mostly waits for them."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Grouped:
    return Grouped(config, log)
