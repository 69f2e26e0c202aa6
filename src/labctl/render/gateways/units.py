"""Units of gateways and of PgVector: no GPU, and no writable code except for what cannot do without."""

from __future__ import annotations

from labctl.inventory import Host, LiteLlm, PgVector, Rack
from labctl.inventory.services import OthersGateway
from labctl.render.gateways import launch
from labctl.render.units import Sandbox, Unit, unit


def gateway(rack: Rack, host: Host, wanted: OthersGateway) -> Unit:
    """Return the unit of a gateway.

    Raises:
        LabctlError: no build fits.
    """
    start = launch(rack, host, wanted)
    sandbox = Sandbox(
        paths=start.reads,
        gpu=False,
        # Python's foreign functions need it.
        jit=isinstance(wanted, LiteLlm),
        lock_memory=False,
        environment=start.env,
        secrets=start.secrets,
        files=start.files,
        before=start.before,
        marks=start.marks,
    )
    return unit(wanted, f"{type(wanted).__name__} {wanted.name}, a gateway", start.argv, sandbox)


def pgvector(rack: Rack, host: Host, wanted: PgVector) -> Unit:
    """Return the unit of PostgreSQL with pgvector."""
    start = launch(rack, host, wanted)
    sandbox = Sandbox(
        paths=start.reads,
        gpu=False,
        jit=False,
        lock_memory=False,
        files=start.files,
        before=start.before,
        marks=start.marks,
        # Its default would wait for every client to leave, and then be killed.
        stop_signal="SIGINT",
    )
    description = f"PostgreSQL with pgvector, database {wanted.database}"
    return unit(wanted, description, start.argv, sandbox)
