"""Engines: is there a build for each, does it fit, and does it ask for a key where others can reach it?

What an engine is told by ``labctl`` itself (address, port, model, names, keys) is never to be said again by
``extra_args``: the last word would win there, past every check.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from labctl.inventory.builds import BUILDS, Unfit, cards_of, choose
from labctl.inventory.checks.finding import Finding, Where, each_host, twice
from labctl.inventory.engines import LlamaCpp
from labctl.inventory.hosts import Host
from labctl.inventory.models import Model
from labctl.inventory.rack import Rack
from labctl.inventory.services import (
    Command,
    Engine,
    Keyed,
    LlamaServer,
    Olla,
    Ollama,
    Program,
    Sglang,
    TabbyApi,
    Vllm,
    each_engine,
)

_SEMVER = re.compile(r"v?\d+\.\d+\.\d+.*")
# What labctl says itself, by every spelling, and the field by which to say it.
_OWN_FLAGS = {
    "--host": "listen",
    "--port": "port",
    "--model": "model",
    "-m": "model",
    "--model-path": "model",
    "--alias": "aliases of the model",
    "-a": "aliases of the model",
    "--served-model-name": "aliases of the model",
    "--api-key": "api_key",
    "--api-key-file": "api_key",
    "--mmproj": "mmproj of the model",
    "-mm": "mmproj of the model",
    "--config": "the options by their names",
}
_KEY_VARIABLES = ("VLLM_API_KEY", "LLAMA_API_KEY", "LLAMA_ARG_API_KEY_FILE")
# By these a program would listen elsewhere than `listen` and `port` say, past the demand for a key.
_ADDRESS_VARIABLES = {
    "OLLAMA_HOST": "listen",
    "OLLA_SERVER_HOST": "listen",
    "OLLA_SERVER_PORT": "port",
    "LLAMA_ARG_HOST": "listen",
    "LLAMA_ARG_PORT": "port",
}


def builds(rack: Rack) -> Iterator[Finding]:
    """Yield builds that are declared twice, and releases of llama.cpp that have no files."""
    yield from twice(
        (
            (
                ("engines", index, "version"),
                (
                    build.kind,
                    build.version,
                    build.arch,
                    getattr(build, "backend", ""),
                    getattr(build, "cuda", ""),
                ),
                f"another build of {build.kind} for the same machines",
            )
            for index, build in enumerate(rack.engines)
        ),
        "remove one of them",
    )
    for index, build in enumerate(rack.engines):
        if isinstance(build, LlamaCpp) and _SEMVER.fullmatch(build.version):
            yield Finding(
                ("engines", index, "version"),
                f"release {build.version} of llama.cpp carries no binaries",
                "take the bNNNNN release that its nightly-tag.txt names",
            )


def _each(rack: Rack) -> Iterator[tuple[Where, Host, Program]]:
    """Yield every program of every host with its path, engines under llama-swap included."""
    for at, host in each_host(rack):
        for index, service in enumerate(host.services):
            yield (*at, "services", index), host, service
            for below, engine in each_engine(service):
                if below:
                    yield (*at, "services", index, *below), host, engine


def choices(rack: Rack) -> Iterator[Finding]:
    """Yield services for which no build fits or several do, and those that name a build and a program."""
    for at, host, wanted in _each(rack):
        version, binary = getattr(wanted, "version", None), getattr(wanted, "binary", None)
        if version is not None and binary is not None:
            yield Finding(
                (*at, "binary"), "`version` and `binary` exclude each other", "keep the one that you mean"
            )
            continue
        found = choose(rack, host, wanted)
        if isinstance(found, Unfit):
            path = (*at, found.field) if found.field and version is not None else at
            yield Finding(
                path, found.reason, found.hint, version or BUILDS.get(getattr(wanted, "kind", ""), "")
            )


def keys(rack: Rack) -> Iterator[Finding]:
    """Yield servers that others may reach without a key, and keys where nobody would ask for them."""
    for at, host in each_host(rack):
        for index, service in enumerate(host.services):
            yield from _open((*at, "services", index), service)
            yield from _sleeping((*at, "services", index), service)
            for below, engine in each_engine(service):
                if below:
                    yield from _under_swap((*at, "services", index, *below), engine)
    for at, _, wanted in _each(rack):
        for name in sorted(wanted.env):
            if name in _KEY_VARIABLES:
                yield Finding(
                    (*at, "env"), f"{name} would show a secret in the unit", "say `api_key` instead"
                )
            elif name in _ADDRESS_VARIABLES and not isinstance(wanted, Command):
                field = _ADDRESS_VARIABLES[name]
                reason = f"{name} says where it listens, past `{field}` and the demand for a key"
                yield Finding((*at, "env"), reason, f"say it by {field} only")


def _is_open(wanted: Program) -> bool:
    return not ipaddress.ip_address(wanted.listen).is_loopback


def _open(at: Where, service: Program) -> Iterator[Finding]:
    if not isinstance(service, Keyed):
        return
    if isinstance(service, Ollama | Olla):
        name = type(service).__name__
        if _is_open(service):
            reason = f"listens on {service.listen}, but {name} asks nobody for a key"
            yield Finding(
                (*at, "listen"), reason, "leave it on loopback and put a llama-swap or a gateway before it"
            )
        if service.api_key is not None:
            yield Finding((*at, "api_key"), f"{name} asks nobody for a key", "remove it")
    elif _is_open(service) and service.api_key is None:
        yield Finding(
            (*at, "listen"),
            f"listens on {service.listen} without a key: anyone who reaches the host could use it",
            'add api_key=Secret(file="keys/...") or Secret(env="..."), or listen on "127.0.0.1"',
        )


def _sleeping(at: Where, service: Program) -> Iterator[Finding]:
    # The orders to sleep come with orders to run things (/collective_rpc), for which vLLM asks for no key.
    if isinstance(service, Vllm) and service.enable_sleep_mode and _is_open(service):
        reason = f"listens on {service.listen}, where anyone could order it about: its key guards /v1 alone"
        hint = "put it under a LlamaSwap(...), which is who sends it to sleep, or remove `enable_sleep_mode`"
        yield Finding((*at, "enable_sleep_mode"), reason, hint)


def _under_swap(at: Where, engine: Engine | Command) -> Iterator[Finding]:
    if _is_open(engine):
        reason = f"listens on {engine.listen}, past its llama-swap"
        yield Finding((*at, "listen"), reason, "remove it: llama-swap reaches engines on loopback")
    if isinstance(engine, Engine) and engine.api_key is not None:
        yield Finding(
            (*at, "api_key"),
            "is asked for by nobody: clients talk to llama-swap",
            "give it to the LlamaSwap(...)",
        )


def arguments(rack: Rack) -> Iterator[Finding]:
    """Yield further arguments that say again what labctl or a field says."""
    for at, _, wanted in _each(rack):
        if not isinstance(wanted, Engine):
            continue
        for index, argument in enumerate(wanted.extra_args):
            flag = argument.partition("=")[0]
            if not flag.startswith("-"):
                continue
            field = flag.lstrip("-").removeprefix("no-").replace("-", "_")
            own = _own(flag.replace("_", "-"))
            if (
                own is None
                and field in type(wanted).model_fields
                and getattr(wanted, field) not in (None, (), {})
            ):
                own = field
            if own is not None:
                path = (*at, "extra_args", index)
                yield Finding(path, f"{flag} is said by labctl already", f"say it by {own} only")


def _own(flag: str) -> str | None:
    """Return the field of what labctl says itself; Python's engines take the beginning of a flag for it."""
    begun = [field for known, field in _OWN_FLAGS.items() if len(flag) > 3 and known.startswith(flag)]
    return _OWN_FLAGS.get(flag) or next(iter(begun), None)


def options(rack: Rack) -> Iterator[Finding]:
    """Yield options that exclude each other, or that the host's cards or the model cannot meet."""
    for at, host, wanted in _each(rack):
        model = None
        if isinstance(wanted, Engine):
            model = rack.models_by_name().get(wanted.model)
            yield from _of_format(at, wanted, model)
        match wanted:
            case LlamaServer():
                yield from _of_llama(at, host, wanted, model)
            case Vllm() if wanted.cluster is None:
                yield from _parallel(at, host, wanted, ("tensor_parallel_size", "pipeline_parallel_size"))
            case Sglang():
                yield from _parallel(at, host, wanted, ("tp_size", "pp_size"))
            case TabbyApi() if wanted.gpu_split and wanted.gpu_split_auto:
                yield _exclude(at, "gpu_split", "gpu_split_auto")
            case _:
                pass


def _exclude(at: Where, one: str, other: str) -> Finding:
    return Finding((*at, one), f"`{one}` and `{other}` exclude each other", "keep the one that you mean")


def _of_format(at: Where, engine: Engine, model: Model | None) -> Iterator[Finding]:
    if model is None:
        return
    tensors = any(placed.name.endswith(".safetensors") for placed in model.layout())
    if isinstance(engine, LlamaServer) and tensors:
        hint = "give the GGUF of the model, or serve it by Vllm(...)"
        yield Finding((*at, "model"), f"{model.id} is {model.format}, and llama.cpp reads GGUF only", hint)
    if isinstance(engine, Sglang | TabbyApi) and any(
        placed.name.endswith(".gguf") for placed in model.layout()
    ):
        yield Finding(
            (*at, "model"), f"{model.id} is a GGUF, which {engine.kind} does not read", "use LlamaServer(...)"
        )
    if model.draft is not None and model.mtp and getattr(engine, "spec_type", "said") is None:
        reason = f"{model.id} drafts by `draft` and by `mtp`"
        yield Finding((*at, "model"), reason, "say by `spec_type` which of them this engine uses")


def _of_llama(at: Where, host: Host, engine: LlamaServer, model: Model | None) -> Iterator[Finding]:
    if engine.cpu_moe and engine.n_cpu_moe is not None:
        yield _exclude(at, "n_cpu_moe", "cpu_moe")
    if engine.split_mode == "none" and engine.tensor_split:
        yield _exclude(at, "tensor_split", 'split_mode="none"')
    cards = len(cards_of(host, engine))
    if engine.rpc or not cards:
        return
    if len(engine.tensor_split) > cards:
        reason = f"deals the model out to {len(engine.tensor_split)} cards, and it may use {cards}"
        yield Finding((*at, "tensor_split"), reason, "give one share for each card")
    if engine.main_gpu is not None and engine.main_gpu >= cards:
        reason = f"is card {engine.main_gpu} counted from 0, and it may use {cards}"
        yield Finding((*at, "main_gpu"), reason, f"say a number below {cards}")


def _parallel(at: Where, host: Host, engine: Engine, fields: tuple[str, ...]) -> Iterator[Finding]:
    sizes = {field: getattr(engine, field) or 1 for field in fields}
    product = 1
    for size in sizes.values():
        product *= size
    cards = max(1, len(cards_of(host, engine)))
    if product > cards:
        largest = max(sizes, key=lambda field: sizes[field])
        reason = f"needs {product} cards, and it may use {cards} of {host.name}"
        yield Finding((*at, largest), reason, "lower it, name more `gpus`, or use a cluster")
