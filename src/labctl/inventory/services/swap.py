"""llama-swap: which models of a host take turns, and which other hosts are asked for theirs.

Each host's llama-swap starts and stops the engines of that host; one on an always-on host passes requests on
to those of other hosts, its peers. All of their configurations are rendered from this one list.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from labctl.inventory.fields import (
    Count,
    Duration,
    Flag,
    Label,
    MendableError,
    ModelId,
    Port,
    RemotePath,
    ServiceName,
    Text,
    Version,
    Whole,
)
from labctl.inventory.services.command import Command
from labctl.inventory.services.llama import LlamaServer
from labctl.inventory.services.program import Keyed
from labctl.inventory.services.torch import Sglang, TabbyApi, Vllm
from labctl.inventory.spec import Spec

Swappable = Annotated[LlamaServer | Vllm | Sglang | TabbyApi | Command, Field(discriminator="kind")]


class Swapped(Spec):
    """A model under llama-swap: the engine that serves it, and llama-swap's own options for it."""

    engine: Swappable = Field(description="What serves it; without a port, which llama-swap gives.")
    ttl: Duration | None = Field(default=None, description="Stop it when nobody used it for so long.")
    concurrency_limit: Count | None = Field(default=None, description="Requests at a time; more are refused.")
    unlisted: Flag = Field(default=False, description="Leave it out of the list of models.")
    send_loading_state: Flag | None = Field(default=None, description="Tell clients while it loads.")
    unload_timeout: Duration | None = Field(default=None, description="How long stopping may take.")
    sleep: Flag = Field(
        default=False, description="Put it to sleep instead of stopping it (vLLM with enable_sleep_mode)."
    )
    settings: dict[str, Any] = Field(
        default={}, description="Further keys of llama-swap's model block, by their own names."
    )


class SwapGroup(Spec):
    """Models that share a fate: with `swap` one of them is loaded at a time, without it all may be."""

    name: ServiceName = Field(description="Name of the group.")
    members: tuple[ModelId, ...] = Field(min_length=1, description="Ids of models of this llama-swap.")
    swap: Flag = Field(default=True, description="Load one member at a time.")
    exclusive: Flag = Field(default=True, description="Loading a member unloads the other groups.")
    persistent: Flag = Field(default=False, description="Other groups never unload this one.")


class SwapMatrix(Spec):
    """Which models may be loaded together, as llama-swap's matrix router takes it."""

    sets: dict[ServiceName, Text] = Field(
        min_length=1,
        description='Sets of models in its language: "a & b" together, "a | b" either, "(...)", "+other".',
    )
    vars: dict[ServiceName, ModelId] = Field(default={}, description="Short names for models.")
    evict_costs: dict[ServiceName, Whole] = Field(default={}, description="How dear unloading one is.")


class LlamaSwap(Keyed):
    """llama-swap on a host: its own models, and the peers whose models it passes on."""

    kind: Literal["llama-swap"] = Field(default="llama-swap", description="Always ``llama-swap``.")
    port: Port = Field(description="TCP port that it listens on.")
    models: tuple[Swapped, ...] = Field(default=(), description="What it starts and stops on this host.")
    groups: tuple[SwapGroup, ...] = Field(
        default=(), description="Groups; models in none of them take turns with all others."
    )
    matrix: SwapMatrix | None = Field(default=None, description="Sets instead of groups.")
    peers: Literal["rack"] | tuple[Label, ...] = Field(
        default=(), description='Hosts whose llama-swap it passes requests on to; "rack": all others.'
    )
    version: Version | None = Field(default=None, description="Which of the rack's `engines` it is.")
    binary: RemotePath | None = Field(default=None, description="A program on the host instead of `version`.")
    start_port: Port = Field(default=5800, description="First of the ports on loopback that engines get.")
    health_check_timeout: Duration | None = Field(
        default=None,
        description="How long loading may take; default: the longest that is predicted, doubled.",
    )
    peer_timeout: Duration | None = Field(
        default=None, description="How long a peer may take to answer; default: its wake and its loading."
    )
    global_ttl: Duration | None = Field(default=None, description="`ttl` of models that state none.")
    preload: tuple[ModelId, ...] = Field(default=(), description="Models loaded at its start.")
    macros: dict[ServiceName, Text] = Field(default={}, description="Macros for `settings`.")
    settings: dict[str, Any] = Field(
        default={}, description="Further top-level keys of llama-swap's configuration, by their own names."
    )

    @model_validator(mode="after")
    def _one_router(self) -> "LlamaSwap":
        if self.groups and self.matrix is not None:
            raise MendableError("groups and matrix exclude each other", "keep the one that you mean")
        return self
