"""What every service has, and what every server of a model has.

Services listen on loopback unless the inventory says otherwise. A server of models that listens elsewhere
needs a key, since none of these engines asks for a password by itself.
"""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from labctl.inventory.fields import (
    Argument,
    Duration,
    EnvName,
    GpuRef,
    Ip,
    ModelId,
    Port,
    RemotePath,
    ServiceName,
    Text,
    UserName,
    Version,
)
from labctl.inventory.secrets import Secret
from labctl.inventory.spec import Spec


def _program_first(argv: tuple[str, ...]) -> tuple[str, ...]:
    if argv and not argv[0].startswith("/"):
        raise ValueError("must start with the absolute path of a program, such as /usr/bin/python3")
    return argv


Argv = Annotated[tuple[Argument, ...], AfterValidator(_program_first)]


class Program(Spec):
    """A service: one systemd unit, ``labctl-NAME.service``."""

    name: ServiceName = Field(description="Name of the service, unique on its host.")
    user: UserName = Field(default="labctl-svc", description="User that it runs as.")
    env: dict[EnvName, Text] = Field(default={}, description="Environment variables; never put secrets here.")
    port: Port | None = Field(default=None, description="TCP port that it listens on.")
    listen: Ip = Field(default="127.0.0.1", description="Address that it listens on.")


class Keyed(Program):
    """A service that asks its clients for a key where the inventory gives one."""

    api_key: Secret | None = Field(
        default=None, description="Key that clients must show; needed wherever it listens beyond loopback."
    )


class Engine(Keyed):
    """A server of one model. Under llama-swap it has no `port`: llama-swap gives it one."""

    model: ModelId = Field(description="Id of a model of this rack.")
    gpus: tuple[GpuRef, ...] = Field(
        default=(), description="GPUs it may use, by slot, UUID or PCI address; default: all of the host."
    )
    version: Version | None = Field(
        default=None,
        description="Which of the rack's `engines` it runs; default: the only one that fits the host.",
    )
    binary: RemotePath | None = Field(
        default=None, description="A program on the host that labctl did not install, instead of `version`."
    )
    load_timeout: Duration | None = Field(
        default=None, description="How long loading may take; default: predicted from size and disk, doubled."
    )
    extra_args: tuple[Argument, ...] = Field(
        default=(), description="Further arguments, as the engine takes them."
    )

    @property
    def load_timeout_s(self) -> int | None:
        """Return the stated time for loading in seconds."""
        return None if self.load_timeout is None else int(self.load_timeout / timedelta(seconds=1))
