"""Secrets by reference: the inventory says where one is read, and never holds it."""

from pathlib import Path

from pydantic import Field, model_validator

from labctl.inventory.fields import EnvName, MendableError
from labctl.inventory.spec import Spec


class Secret(Spec):
    """Where a secret is read on the machine that runs labctl: a file, or an environment variable."""

    file: Path | None = Field(
        default=None,
        description="File whose first line is the secret, relative to the rack file's folder; mode 0600.",
    )
    env: EnvName | None = Field(default=None, description="Environment variable that holds the secret.")

    @model_validator(mode="after")
    def _one_place(self) -> "Secret":
        if (self.file is None) == (self.env is None):
            raise MendableError(
                "give either `file` or `env`", 'write Secret(file="keys/hf") or Secret(env="HF_TOKEN")'
            )
        return self
