"""llama.cpp's server.

The model's kind decides what it serves: embeddings and reranking need their own flags, a vision model its
projector. A draft model is loaded and then ignored unless ``--spec-type`` names it, so both are always given
together. Keys come from a file, one a line. Sources: llama-server's ``--help`` (b9000 and later).
"""

from __future__ import annotations

from labctl.domain.problem import LabctlError
from labctl.inventory import Host, LlamaServer, Model, Rack, RpcServer
from labctl.render import places
from labctl.render.credentials import Credential
from labctl.render.engines.cards import visible
from labctl.render.engines.terms import Launch, flags

RPC_PORT = 50052
KIND_FLAGS = {"embedding": ("--embedding",), "rerank": ("--reranking",)}
_ONE_WAY = ("swa_full", "cpu_moe")


def llama_server(rack: Rack, host: Host, engine: LlamaServer, *, port: str, unit: str) -> Launch:
    """Return how llama-server is started for an engine of the service ``unit``."""
    model = rack.model(engine.model)
    program = places.program(rack, host, engine)
    argv = [program, "--model", model.main, "--host", engine.listen, "--port", port]
    argv += ["--alias", ",".join((model.id, *model.aliases)), "--metrics"]
    argv += KIND_FLAGS.get(model.kind, ())
    reads = [program, model.main]
    if model.mmproj_path is not None:
        argv += ["--mmproj", model.mmproj_path]
        reads.append(model.mmproj_path)
    drafted, draft_reads = _drafting(rack, engine, model)
    argv += [*drafted, *flags(engine, "rpc", one_way=_ONE_WAY)]
    if engine.rpc:
        argv += ["--rpc", ",".join(lenders(rack, engine))]
    secrets: tuple[Credential, ...] = ()
    if engine.api_key is not None:
        secrets = (Credential(unit, "api-key", engine.api_key),)
        argv += ["--api-key-file", secrets[0].inside]
    if engine.chat_template_file is not None:
        reads.append(engine.chat_template_file)
    return Launch(
        (*argv, *engine.extra_args),
        visible(host, engine),
        (*reads, *draft_reads, *engine.extra_args),
        secrets,
    )


def _drafting(rack: Rack, engine: LlamaServer, model: Model) -> tuple[list[str], list[str]]:
    """Return the flags of speculative decoding that follow from the model, and what is read for them."""
    argv, reads = [], []
    kinds = []
    if model.draft is not None:
        draft = rack.model(model.draft)
        argv += ["--spec-draft-model", draft.main]
        reads.append(draft.main)
        kinds.append("draft-simple")
    if model.mtp:
        kinds.append("draft-mtp")
    if kinds and engine.spec_type is None:
        argv += ["--spec-type", ",".join(kinds)]
    return argv, reads


def lenders(rack: Rack, engine: LlamaServer) -> tuple[str, ...]:
    """Return the ADDRESS:PORT of each host that lends cards to an engine, in its order.

    Raises:
        LabctlError: one lends nothing.
    """
    return tuple(_worker(rack, name) for name in engine.rpc)


def _worker(rack: Rack, name: str) -> str:
    """Return the address at which the RPC worker of a host answers."""
    host = rack.host(name)
    worker = next((one for one in host.services if isinstance(one, RpcServer)), None)
    if worker is None or host.private is None:
        raise LabctlError(
            f"{name} lends no cards over the private network",
            hint=f"give {name} `private` and an RpcServer(...) service",
            host=name,
        )
    address = host.private.address
    return f"{f'[{address}]' if ':' in address else address}:{worker.port or RPC_PORT}"
