"""How the engines of the inventory are started: command line, environment, files and secrets.

One answer for all who start engines: a unit of its own, or llama-swap, which starts and stops many. An engine
below llama-swap belongs to llama-swap's unit: caches, folders and credentials are that unit's. Host and port
are always given, since engines change their defaults. No secret is ever among the arguments.
"""

from __future__ import annotations

from labctl.inventory import Command, Host, LlamaServer, Ollama, Rack, Sglang, TabbyApi, Vllm
from labctl.inventory.services import Engine, Program, each_engine, models_of
from labctl.render import places
from labctl.render.engines.cards import visible
from labctl.render.engines.llama import llama_server
from labctl.render.engines.ollama import ollama
from labctl.render.engines.terms import ConfigFile, Launch
from labctl.render.engines.torch import sglang, tabbyapi, vllm

__all__ = ["ConfigFile", "Launch", "launch", "owner"]


def owner(host: Host, wanted: Program) -> str:
    """Return the name of the service in whose unit a program runs: its own, or its llama-swap's."""
    for service in host.services:
        if any(below and engine is wanted for below, engine in each_engine(service)):
            return service.name
    return wanted.name


def launch(rack: Rack, host: Host, engine: Engine | Command | Ollama, *, port: str) -> Launch:
    """Return how an engine of ``host`` is started on ``port``, which may be a macro of llama-swap.

    Raises:
        LabctlError: no build fits, or a card is named whose UUID is not known.
    """
    unit = owner(host, engine)
    match engine:
        case LlamaServer():
            found = llama_server(rack, host, engine, port=port, unit=unit)
        case Vllm():
            found = vllm(rack, host, engine, port=port, unit=unit)
        case Sglang():
            found = sglang(rack, host, engine, port=port, unit=unit)
        case TabbyApi():
            found = tabbyapi(rack, host, engine, port=port, unit=unit)
        case Ollama():
            found = ollama(rack, host, engine, port=port, unit=unit)
        case Command():
            found = Launch(engine.argv, visible(host, engine), (*engine.argv, engine.working_dir or ""))
        case _:
            raise TypeError(type(engine).__name__)
    return Launch(
        found.argv,
        {**found.env, **engine.env},
        found.reads,
        found.secrets,
        found.files,
        found.before,
        (*places.marks(rack, host, engine), *_models(rack, engine)),
    )


def _models(rack: Rack, engine: Program) -> tuple[str, ...]:
    """Return a line for each file of its models that is pinned, those that draft included."""
    served = [rack.model(name) for name in models_of((engine,))]
    drafting = [rack.model(model.draft) for model in served if model.draft is not None]
    return tuple(
        f"model {model.id} {placed.name} {placed.sha256}"
        for model in (*served, *drafting)
        for placed in model.layout()
        if placed.sha256 is not None
    )
