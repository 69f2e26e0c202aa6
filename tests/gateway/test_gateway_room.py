"""A process has room for its descriptors before it serves, since making it later stops all streams."""

import subprocess
import sys

import pytest

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
