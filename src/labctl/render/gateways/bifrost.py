"""Bifrost: config.json, and how it is started.

With its store of configuration off, the file is all that it knows, and a change means a restart. Models are
asked for as UPSTREAM/MODEL. Each upstream is a provider of its own that speaks OpenAI's API. A key that
clients show must begin with ``sk-bf-`` to be taken for one, so that is put before the secret.
"""

from __future__ import annotations

import json
from typing import Any

from labctl.inventory import Bifrost, Host, Rack
from labctl.inventory.upstreams import Upstream, reach
from labctl.render import places
from labctl.render.engines.terms import ConfigFile, Launch
from labctl.render.gateways.terms import (
    OWN_KEY,
    config_path,
    mark,
    own_key,
    upstream_keys,
    variable,
)

KEY_PREFIX = "sk-bf-"
_CHAT = (
    "text_completion",
    "text_completion_stream",
    "chat_completion",
    "chat_completion_stream",
    "responses",
    "responses_stream",
)
_REQUESTS = {"chat": _CHAT, "vision": _CHAT, "embedding": ("embedding",), "rerank": ("rerank",)}


def config(rack: Rack, host: Host, gateway: Bifrost) -> str:
    """Return its config.json; JSON has no comments, so what is left out is not in it."""
    upstreams = reach(rack, host, gateway).upstreams
    document: dict[str, Any] = {
        "$schema": "https://www.getbifrost.ai/schema",
        "client": {
            "drop_excess_requests": False,
            "enable_logging": False,
            "disable_content_logging": True,
            "enforce_auth_on_inference": gateway.api_key is not None,
        },
        "providers": {upstream.name: _provider(upstream) for upstream in upstreams},
        "config_store": {"enabled": False},
        "logs_store": {"enabled": False},
    }
    if gateway.api_key is not None:
        document["governance"] = {
            # Also for its own pages and orders, which could change what it does.
            "auth_config": {
                "is_enabled": True,
                "admin_username": "labctl",
                "admin_password": f"env.{OWN_KEY}",
            },
            "virtual_keys": [
                {
                    "id": "labctl",
                    "name": "labctl",
                    "value": f"env.{OWN_KEY}",
                    "is_active": True,
                    "provider_configs": [
                        {"provider": upstream.name, "allowed_models": ["*"], "key_ids": ["*"], "weight": 1}
                        for upstream in upstreams
                    ],
                }
            ],
        }
    return json.dumps(document, indent=2) + "\n"


def _provider(upstream: Upstream) -> dict[str, Any]:
    keyed = upstream.endpoint.key is not None
    names = [name for served in upstream.models for name in (served.id, *served.model.aliases)]
    allowed = {request for served in upstream.models for request in _REQUESTS[served.kind]}
    return {
        "keys": [
            {
                "name": upstream.name,
                "value": f"env.{variable(upstream)}" if keyed else "",
                "models": list(dict.fromkeys(names)),
                "weight": 1.0,
            }
        ],
        "network_config": {
            "base_url": upstream.url,
            "default_request_timeout_in_seconds": upstream.whole_s,
            # It also counts until the first chunk, which comes when the model is loaded.
            "stream_idle_timeout_in_seconds": upstream.first_byte_s,
            "max_retries": 0,
        },
        "custom_provider_config": {
            "base_provider_type": "openai",
            "is_key_less": not keyed,
            "allowed_requests": {"list_models": True, **dict.fromkeys(sorted(allowed), True)},
        },
    }


def launch(rack: Rack, host: Host, gateway: Bifrost) -> Launch:
    """Return how it is started: in its folder of state, where it looks for ``config.json``."""
    file = ConfigFile(config_path(gateway, "bifrost", "json"), config(rack, host, gateway))
    argv = [places.program(rack, host, gateway), "-app-dir", f"/var/lib/labctl-{gateway.name}"]
    argv += ["-host", gateway.listen, "-port", str(gateway.port)]
    argv += ["-log-level", "warn", "-log-style", "json"]
    upstreams = reach(rack, host, gateway).upstreams
    return Launch(
        tuple(argv),
        {},
        (argv[0], file.path),
        (*own_key(gateway, KEY_PREFIX), *upstream_keys(gateway, upstreams, environment=True)),
        (file,),
        (("/bin/ln", "-sfn", file.path, "config.json"),),
        (*places.marks(rack, host, gateway), mark(file.content)),
    )
