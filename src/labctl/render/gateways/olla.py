"""Olla: config.yaml, and how it is started.

It marks an upstream that does not answer as gone, and asks no model of it until a check finds it back; so
checks go on, but seldom, and by addresses that load and wake nothing: ``/health`` of a llama-swap or a
llama-server, ``/ready`` of SGLang (whose ``/health`` makes a token), ``/api/version`` of Ollama. A host that
sleeps is therefore out of Olla's sight until something else wakes it. It asks nobody for a key.
"""

from __future__ import annotations

from typing import Any

from labctl.inventory import Host, Olla, Rack
from labctl.inventory.services import Ollama
from labctl.inventory.upstreams import Upstream, models_of, reach
from labctl.render import places
from labctl.render.engines.terms import ConfigFile, Launch
from labctl.render.gateways.terms import config_path, mark, upstream_keys, with_reasons

# What Olla calls each kind of service, and the path that tells its health without any work.
_KINDS = {
    "llama-server": ("llamacpp", "/health"),
    "llama-swap": ("openai-compatible", "/health"),
    "vllm": ("vllm", "/health"),
    "sglang": ("sglang", "/ready"),
    "ollama": ("ollama", "/api/version"),
    "tabbyapi": ("openai-compatible", "/health"),
}
_OTHER = ("openai-compatible", "/v1/models")
CHECK_S = 60
# Olla allows no more than 30 s.
CHECK_TIMEOUT_S = 10
LIST_S = 600


def config(rack: Rack, host: Host, gateway: Olla) -> str:
    """Return its config.yaml; durations are Go's."""
    found = reach(rack, host, gateway)
    first_byte = max((one.first_byte_s for one in found.upstreams), default=600)
    whole = max((one.whole_s for one in found.upstreams), default=1200)
    aliases = {alias: [served.id] for served in models_of(found.upstreams) for alias in served.model.aliases}
    document: dict[str, Any] = {
        "server": {
            "host": gateway.listen,
            "port": gateway.port,
            "read_timeout": "30s",
            "write_timeout": "0s",
            "shutdown_timeout": "30s",
            "request_logging": False,
        },
        "proxy": {
            "engine": "olla",
            "profile": "auto",
            "load_balancer": "least-connections",
            "connection_timeout": "30s",
            "response_timeout": f"{whole}s",
            "read_timeout": f"{first_byte}s",
            "response_header_timeout": f"{first_byte}s",
        },
        "discovery": {
            "type": "static",
            "refresh_interval": f"{LIST_S}s",
            "health_check": {"initial_delay": "1s"},
            "static": {"endpoints": [_endpoint(gateway, one) for one in found.upstreams]},
            "model_discovery": {
                "enabled": True,
                "interval": f"{LIST_S}s",
                "timeout": "30s",
                "concurrent_workers": 2,
                "retry_attempts": 1,
                "retry_backoff": "5s",
            },
        },
        "model_registry": {
            "type": "memory",
            "enable_unifier": True,
            "routing_strategy": {"type": "strict"},
        },
        **({"model_aliases": aliases} if aliases else {}),
        "translators": {"anthropic": {"enabled": False}},
        "dashboard": {"enabled": False},
        "logging": {"level": "warn", "format": "json", "output": "stdout"},
    }
    return with_reasons(document, found.left_out)


def _endpoint(gateway: Olla, upstream: Upstream) -> dict[str, Any]:
    service = upstream.endpoint.service
    kind, health = _KINDS.get(getattr(service, "kind", ""), _OTHER)
    entry: dict[str, Any] = {
        "url": upstream.url,
        "name": upstream.name,
        "type": kind,
        "priority": 100,
        "model_url": "/api/tags" if isinstance(service, Ollama) else "/v1/models",
        "health_check_url": health,
        "check_interval": f"{CHECK_S}s",
        "check_timeout": f"{CHECK_TIMEOUT_S}s",
    }
    keys = upstream_keys(gateway, [upstream], environment=False)
    if keys:
        entry["auth"] = {"type": "bearer", "token_file": keys[0].inside}
    return entry


def launch(rack: Rack, host: Host, gateway: Olla) -> Launch:
    """Return how it is started."""
    file = ConfigFile(config_path(gateway, "olla", "yaml"), config(rack, host, gateway))
    argv = (places.program(rack, host, gateway), "-config", file.path)
    upstreams = reach(rack, host, gateway).upstreams
    return Launch(
        argv,
        {},
        (argv[0], file.path),
        tuple(upstream_keys(gateway, upstreams, environment=False)),
        (file,),
        marks=(*places.marks(rack, host, gateway), mark(file.content)),
    )
