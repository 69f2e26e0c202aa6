"""What runs on hosts. Every service becomes one systemd unit, ``labctl-NAME.service``.

``each_engine`` is the one way to walk all engines of a host, those under llama-swap included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from labctl.inventory.services.clusters import RayCluster
from labctl.inventory.services.command import Command
from labctl.inventory.services.gateways import Bifrost, LiteLlm, Olla, OthersGateway, PgVector
from labctl.inventory.services.llama import LlamaServer, RpcServer
from labctl.inventory.services.ollama import Ollama
from labctl.inventory.services.program import Engine, Keyed, Program
from labctl.inventory.services.swap import LlamaSwap, SwapGroup, SwapMatrix, Swappable, Swapped
from labctl.inventory.services.torch import Sglang, TabbyApi, Vllm

__all__ = [
    "Bifrost",
    "Command",
    "Engine",
    "Keyed",
    "LiteLlm",
    "LlamaServer",
    "LlamaSwap",
    "Olla",
    "Ollama",
    "OthersGateway",
    "PgVector",
    "Program",
    "RayCluster",
    "RpcServer",
    "Service",
    "Sglang",
    "SwapGroup",
    "SwapMatrix",
    "Swappable",
    "Swapped",
    "TabbyApi",
    "Vllm",
    "each_engine",
    "models_of",
]

Service = Annotated[
    Command
    | LlamaServer
    | RpcServer
    | LlamaSwap
    | Vllm
    | Sglang
    | Ollama
    | TabbyApi
    | Bifrost
    | LiteLlm
    | Olla
    | PgVector,
    Field(discriminator="kind"),
]
Where = tuple[Literal["models"], int, Literal["engine"]] | tuple[()]


def each_engine(service: Program) -> Iterator[tuple[Where, Engine | Command]]:
    """Yield every engine of a service with its path below it: itself, or those that llama-swap starts."""
    if isinstance(service, LlamaSwap):
        for index, swapped in enumerate(service.models):
            yield ("models", index, "engine"), swapped.engine
    elif isinstance(service, Engine | Command):
        yield (), service


def models_of(services: Iterable[Program]) -> Iterator[str]:
    """Yield the model names that services serve, each as often as it is served."""
    for service in services:
        if isinstance(service, Ollama):
            yield from service.models
        for _, engine in each_engine(service):
            if engine.model is not None:
                yield engine.model
