"""Any program as a service."""

from typing import Literal

from pydantic import Field

from labctl.inventory.fields import ModelId, RemotePath
from labctl.inventory.services.program import Argv, Program


class Command(Program):
    """Any program as a service; under llama-swap, an engine of which labctl knows nothing."""

    kind: Literal["command"] = Field(default="command", description="Always ``command``.")
    argv: Argv = Field(
        min_length=1, description="Program (absolute path) and arguments; no shell is involved."
    )
    model: ModelId | None = Field(default=None, description="Id of the model that it serves, if any.")
    working_dir: RemotePath | None = Field(default=None, description="Folder that it starts in.")
