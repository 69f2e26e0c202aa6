"""LiteLLM's proxy: config.yaml, and how it is started.

Its ``/health`` asks every model, so nothing here polls, and its own polling in the background is off. A model
that is loading is no reason to leave a host out for a minute (a cooldown), nor to ask again. Its table of
prices comes from its own package, not from the network.
"""

from __future__ import annotations

from typing import Any

from labctl.inventory import Host, LiteLlm, Rack
from labctl.inventory.coldstart import cold_start
from labctl.inventory.endpoints import Served
from labctl.inventory.upstreams import Upstream, models_of, reach
from labctl.render import places
from labctl.render.engines.terms import ConfigFile, Launch
from labctl.render.gateways.terms import (
    NO_KEY,
    OWN_KEY,
    config_path,
    mark,
    own_key,
    upstream_keys,
    variable,
    with_reasons,
)

_MODES = {"chat": "chat", "vision": "chat", "embedding": "embedding", "rerank": "rerank"}


def config(rack: Rack, host: Host, gateway: LiteLlm) -> str:
    """Return its config.yaml."""
    found = reach(rack, host, gateway)
    aliases = {alias: served.id for served in models_of(found.upstreams) for alias in served.model.aliases}
    document: dict[str, Any] = {
        "model_list": [
            _entry(upstream, served) for upstream in found.upstreams for served in upstream.models
        ],
        "router_settings": {
            "num_retries": 0,
            "disable_cooldowns": True,
            **({"model_group_alias": aliases} if aliases else {}),
        },
        "litellm_settings": {
            "drop_params": True,
            "num_retries": 0,
            "request_timeout": max((one.whole_s for one in found.upstreams), default=600),
        },
        "general_settings": {
            **({"master_key": f"os.environ/{OWN_KEY}"} if gateway.api_key is not None else {}),
            "background_health_checks": False,
            "disable_spend_logs": True,
        },
    }
    return with_reasons(document, found.left_out)


def _entry(upstream: Upstream, served: Served) -> dict[str, Any]:
    cold = cold_start(served)
    keyed = upstream.endpoint.key is not None
    # Its provider "openai" cannot rerank; that of vLLM asks /v1/rerank, which all engines have.
    rerank = served.kind == "rerank"
    context = served.context
    return {
        "model_name": served.id,
        "litellm_params": {
            "model": f"{'hosted_vllm' if rerank else 'openai'}/{served.id}",
            "api_base": f"{upstream.url}/v1",
            "api_key": f"os.environ/{variable(upstream)}" if keyed else NO_KEY,
            "timeout": cold.whole_s,
            "stream_timeout": cold.first_byte_s,
            "max_retries": 0,
        },
        "model_info": {
            "mode": _MODES[served.kind],
            **({"supports_vision": True} if served.kind == "vision" else {}),
            **({"max_input_tokens": context} if context is not None else {}),
        },
    }


def launch(rack: Rack, host: Host, gateway: LiteLlm) -> Launch:
    """Return how it is started."""
    found = reach(rack, host, gateway)
    file = ConfigFile(config_path(gateway, "litellm", "yaml"), config(rack, host, gateway))
    argv = [places.program(rack, host, gateway), "--config", file.path]
    argv += ["--host", gateway.listen, "--port", str(gateway.port), "--num_workers", "1"]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "WARNING",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
    }
    return Launch(
        tuple(argv),
        environment,
        (argv[0], file.path),
        (*own_key(gateway), *upstream_keys(gateway, found.upstreams, environment=True)),
        (file,),
        marks=(*places.marks(rack, host, gateway), mark(file.content)),
    )
