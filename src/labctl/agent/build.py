"""Build the file that hosts get: one executable zip of the agent and the NVML binding.

The same sources give the same bytes, whoever builds and when: sorted names, one date, one mode. So a plan
says "no change" where nothing changed, and a host's file can be checked by its sha256. (The compressor is
zlib's; a Python linked with another one may pack the same content into other bytes.)

Only what a host needs goes in; ``build``, ``prune`` and ``access`` are for the machine that provisions. Of
the domain that is what decides about caps, since a host decides that by itself at every boot.

The program runs under the distribution's own Python and nothing else: ``-I`` keeps the environment and the
user's packages out, ``-S`` the machine's, which a root program should not read and which cost time.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from functools import cache
from pathlib import Path

import labctl
from labctl.agent import prune
from labctl.domain.problem import LabctlError

SHEBANG = b"#!/usr/bin/python3 -IS\n"
STAYS_HERE = frozenset({"build.py", "prune.py", "access.py"})
DOMAIN = ("__init__.py", "capping.py", "capstep.py", "cap_json.py", "pci.py")
_MAIN = """\
import sys

from labctl.agent.main import main

try:
    status = main()
except KeyboardInterrupt:
    status = 130
sys.exit(status)
"""
_MEND = "install labctl again: its dependency is nvidia-ml-py"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644
_UNIX = 3


@cache
def zipapp_bytes() -> bytes:
    """Return the executable zip, to be written to a file of mode 755.

    Raises:
        LabctlError: the NVML binding is not installed beside labctl, or another one than the agent needs.
    """
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(_contents().items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = _MODE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def _contents() -> dict[str, bytes]:
    """Return what goes into the zip, by its name there."""
    package = Path(labctl.__file__).parent
    agent = {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in (package / "agent").rglob("*.py")
        if path.name not in STAYS_HERE
    }
    return {
        "__main__.py": _MAIN.encode(),
        "labctl/__init__.py": (package / "__init__.py").read_bytes(),
        **{f"labctl/domain/{name}": (package / "domain" / name).read_bytes() for name in DOMAIN},
        **agent,
        "pynvml.py": _nvml_binding(prune.used(agent.values())),
    }


def _nvml_binding(wanted: frozenset[str]) -> bytes:
    found = importlib.util.find_spec("pynvml")
    if found is None or found.origin is None:
        raise LabctlError("the NVML binding is missing", hint=_MEND)
    try:
        return prune.pruned(Path(found.origin).read_bytes(), wanted)
    except prune.Lacking as error:
        raise LabctlError(str(error), hint=_MEND) from None
