"""What engines compute with on AMD graphics: found out by trying, unless the inventory says it.

The choice is left in ``/etc/labctl/backend.env`` as ``LABCTL_BACKEND`` for units, and with all that it came
from in ``/var/lib/labctl/backend.json``. To have it tried again, remove that record.
"""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, LlamaServer
from labctl.ops import backend as proofs
from labctl.ops import files
from labctl.render import amd, gguf


@deploy("Backend")
def backend() -> None:
    """Choose the backend of a host with AMD graphics."""
    spec: Host = host.data.spec
    if not amd.has_cards(spec):
        files.absent_own(name="choice", path=proofs.ENVIRONMENT)
        return
    for path in (proofs.RECORD, proofs.ENVIRONMENT):
        files.directory(name=f"folder of {path}", path=path.rpartition("/")[0])
    if spec.backend != "auto":
        stated = proofs.environment(spec.backend)
        files.put(name="choice", dest=stated.dest, content=stated.content)
        return
    programs = tuple(
        dict.fromkeys(
            service.binary
            for service in spec.services
            if isinstance(service, LlamaServer) and service.binary is not None
        )
    )
    proofs.proved(name="choice by proof", programs=programs, model=gguf.tiny())


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    backend()
