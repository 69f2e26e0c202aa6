"""Other people's gateways and PostgreSQL with pgvector: their configuration and how they are started.

All gateways are rendered from the one list of models that their host can reach (``inventory.upstreams``). A
configuration holds no secret: it names a variable or a credential, which only the gateway's unit gets.
Nothing in it asks an upstream more often than a person would: a health check that wakes a host or loads a
model costs more than it tells.
"""

from __future__ import annotations

from labctl.inventory import Bifrost, Host, LiteLlm, Olla, PgVector, Rack
from labctl.inventory.remembered import remembered
from labctl.inventory.services import Program
from labctl.render.engines.terms import Launch
from labctl.render.gateways import bifrost, litellm, olla, pgvector
from labctl.render.gateways.terms import FOLDER

__all__ = ["FOLDERS", "launch"]

# Where their configurations lie, and nobody else's.
FOLDERS = tuple(f"{FOLDER}/{kind}" for kind in ("bifrost", "litellm", "olla", "pgvector"))


@remembered(8)
def launch(rack: Rack, host: Host, wanted: Program) -> Launch:
    """Return how a gateway or a PgVector of ``host`` is started.

    Raises:
        LabctlError: no build fits, which a loaded rack excludes.
    """
    match wanted:
        case Bifrost():
            return bifrost.launch(rack, host, wanted)
        case LiteLlm():
            return litellm.launch(rack, host, wanted)
        case Olla():
            return olla.launch(rack, host, wanted)
        case PgVector():
            return pgvector.launch(wanted)
        case _:
            raise TypeError(type(wanted).__name__)
