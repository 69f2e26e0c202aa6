"""Reading a rack that is written as data: what the controller's host has instead of a rack file.

labctl wrote it from a rack that it had checked, so a fault in it means another version or another hand.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from labctl.domain.problem import LabctlError, Problem
from labctl.inventory.explain import field_text
from labctl.inventory.loader import LoadedRack, read_text
from labctl.inventory.rack import Rack

_HINT = "write it anew with: labctl apply --only controller"


def load_data(path: Path) -> LoadedRack:
    """Return the rack that a JSON file holds.

    Raises:
        LabctlError: it cannot be read, or holds no rack that this labctl knows.
    """
    file = path.absolute()
    text = read_text(file)
    try:
        rack = Rack.model_validate_json(text)
    except ValidationError as error:
        raise LabctlError(
            Problem(found["msg"], _HINT, str(file), field=field_text(found["loc"]))
            for found in error.errors(include_url=False)
        ) from None
    data = {host.name: rack.host_data(host, file.parent) for host in rack.hosts}
    return LoadedRack(rack, file, {"hosts": tuple(data)}, data)
