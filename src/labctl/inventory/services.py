"""What runs on hosts, and the models it serves.

Every service becomes one systemd unit, ``labctl-NAME.service``. Services listen on loopback unless the
inventory says otherwise, because none of them asks for a password.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from labctl.inventory.fields import (
    Argument,
    Count,
    EnvName,
    GpuRef,
    Ip,
    ModelId,
    Port,
    RemotePath,
    ServiceName,
    Sha256,
    Source,
    Text,
    UserName,
)
from labctl.inventory.spec import Spec


class Model(Spec):
    """A model file, and where it comes from."""

    id: ModelId = Field(description="Name by which clients ask for it.")
    source: Source = Field(
        description="Where to fetch it: an https:// address, or file:///path on the host itself."
    )
    sha256: Sha256 | None = Field(
        default=None, description="SHA-256 of the file; needed for anything that comes over the network."
    )
    path: RemotePath = Field(description="Where it lies on the host.")
    aliases: tuple[ModelId, ...] = Field(
        default=(), description="Other names by which clients may ask for it."
    )

    @model_validator(mode="after")
    def _pinned(self) -> "Model":
        if self.sha256 is None and not self.source.startswith("file:"):
            raise ValueError("give `sha256`, since anything could come over the network")
        return self


def _program_first(argv: tuple[str, ...]) -> tuple[str, ...]:
    if argv and not argv[0].startswith("/"):
        raise ValueError("must start with the absolute path of a program, such as /usr/bin/python3")
    return argv


Argv = Annotated[tuple[Argument, ...], AfterValidator(_program_first)]


class Command(Spec):
    """Any program as a service."""

    kind: Literal["command"] = Field(default="command", description="Always ``command``.")
    name: ServiceName = Field(description="Name of the service, unique on its host.")
    argv: Argv = Field(
        min_length=1, description="Program (absolute path) and arguments; no shell is involved."
    )
    user: UserName = Field(default="labctl-svc", description="User that it runs as.")
    env: dict[EnvName, Text] = Field(default={}, description="Environment variables; never put secrets here.")
    port: Port | None = Field(default=None, description="TCP port that it listens on, if any.")
    listen: Ip = Field(default="127.0.0.1", description="Address that it listens on.")
    working_dir: RemotePath | None = Field(default=None, description="Folder that it starts in.")


class LlamaServer(Spec):
    """llama.cpp's server for one model."""

    kind: Literal["llama-server"] = Field(default="llama-server", description="Always ``llama-server``.")
    name: ServiceName = Field(description="Name of the service, unique on its host.")
    binary: RemotePath = Field(default="/usr/bin/llama-server", description="The program on the host.")
    model: ModelId = Field(description="Id of a model of this rack.")
    port: Port = Field(description="TCP port that it listens on.")
    listen: Ip = Field(default="127.0.0.1", description="Address that it listens on.")
    context: Count | None = Field(
        default=None, description="Context length in tokens; default: the model's own."
    )
    gpu_layers: int | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=100_000,
        description="Layers kept on GPUs; default: as many as fit.",
    )
    gpus: tuple[GpuRef, ...] = Field(
        default=(), description="GPUs it may use, by slot, UUID or PCI address; default: all of the host."
    )
    user: UserName = Field(default="labctl-svc", description="User that it runs as.")
    env: dict[EnvName, Text] = Field(default={}, description="Environment variables; never put secrets here.")
    extra_args: tuple[Argument, ...] = Field(
        default=(), description="Further arguments, as llama-server takes them."
    )


Service = Annotated[Command | LlamaServer, Field(discriminator="kind")]
