"""Which files of which models a host needs: one answer for apply, for `labctl models` and for what may go.

A host needs the models that its services serve, those of a cluster that it works in, and the smaller models
that draft for them. A model that lies on hosts already, by the word of the inventory, is needed and never
fetched.
"""

from __future__ import annotations

from labctl.domain.problem import LabctlError
from labctl.inventory.clusters import models_on
from labctl.inventory.hosts import Host
from labctl.inventory.models import Model
from labctl.inventory.rack import Rack


def models(rack: Rack, host: Host) -> tuple[Model, ...]:
    """Return every model whose files a host needs, in the order in which its services name them."""
    found: dict[str, Model] = {}
    for name in models_on(rack, host):
        model: Model | None = rack.model(name)
        while model is not None and model.id not in found:
            found[model.id] = model
            model = rack.model(model.draft) if model.draft is not None else None
    return tuple(found.values())


def fetched(rack: Rack, host: Host) -> tuple[Model, ...]:
    """Return those of a host's models that must be brought to their path.

    Raises:
        LabctlError: no sha256 says which file it is.
    """
    found = tuple(model for model in models(rack, host) if not model.in_place)
    for model in found:
        require_pinned(model, host.name)
    return found


def require_pinned(model: Model, host: str = "") -> None:
    """Raise ``LabctlError`` for a model that is to be fetched and that nothing pins."""
    if any(placed.sha256 is None for placed in model.layout()):
        raise LabctlError(
            f"model {model.id} is fetched from {model.source}, but no sha256= says which file that is",
            hint="add sha256= to the Model; `sha256sum FILE` prints it",
            host=host,
        )
