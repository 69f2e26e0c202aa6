"""A process has room for what comes before it serves, and takes no more of it than it needs."""

import subprocess
import sys

import pytest
import sqlalchemy

_SAY = """
import resource, sys
from labctl.gateway.process import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
make_room(400)
size = next(line for line in open("/proc/self/status") if line.startswith("FDSize"))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], size.split()[1])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "then", "room"),
    [(256, 4096, 1312, 1312), (256, 1000, 1000, 1000), (4096, 4096, 4096, 1312)],
    ids=["is raised", "as far as it may", "is enough"],
)
def test_the_limit_of_descriptors_and_their_table_are_large_enough_before_any_client_comes(
    soft: int, hard: int, then: int, room: int
) -> None:
    argv = [sys.executable, "-c", _SAY, str(soft), str(hard)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.split()

    assert int(said[0]) == then
    assert int(said[1]) >= room


_LOADED = """
import sys
from labctl.cli import gateway_run
gateway_run._put_off("importlib.metadata")
import labctl.gateway.assembly, labctl.gateway.process, labctl.adapters.store
import sqlalchemy.util.compat as compat
heavy = {"email", "zipfile", "csv", "pydantic", "rich", "click", "paramiko", "prometheus_client", "jinja2"}
print(sorted(heavy & set(sys.modules)), compat.importlib_metadata.version("sqlalchemy"), end=" ")
import importlib.metadata
print(importlib.metadata.version("sqlalchemy"))
"""


def test_what_takes_memory_and_is_not_used_is_not_loaded() -> None:
    """As the process begins; what was put off is there as soon as somebody asks."""
    told = subprocess.run(
        [sys.executable, "-I", "-OO", "-c", _LOADED], check=True, capture_output=True, text=True, timeout=60
    )
    assert told.stdout.split() == ["[]", sqlalchemy.__version__, sqlalchemy.__version__]
