"""Configuration of tools that are neither editors nor libraries."""

from __future__ import annotations

from typing import Any

from labctl.render.clients.editors import as_yaml
from labctl.render.clients.target import CHATTING, KEY, Target


def llm(target: Target) -> str:
    """Return extra-openai-models.yaml for Simon Willison's llm, which keeps keys in a store of its own."""
    return as_yaml(
        [
            {
                "model_id": f"labctl/{served.id}",
                "model_name": served.id,
                "aliases": [served.id, *served.model.aliases],
                "api_base": target.base_url,
                **({"api_key_name": "labctl"} if target.asks_for_key else {}),
                **({"vision": True} if served.kind == "vision" else {}),
            }
            for served in target.models
        ]
    )


def open_webui(target: Target) -> str:
    """Return an addition to a compose file for Open WebUI; its timeouts are seconds.

    Its own database wins over variables after the first start, unless it is told to heed them.
    """
    key = f"${{{KEY}:?}}" if target.asks_for_key else "none"
    environment: dict[str, Any] = {
        "ENABLE_PERSISTENT_CONFIG": "False",
        "ENABLE_OLLAMA_API": "False",
        "AIOHTTP_CLIENT_TIMEOUT": str(target.whole_s),
    }
    if target.of(CHATTING):
        environment |= {
            "OPENAI_API_BASE_URLS": target.base_url,
            "OPENAI_API_KEYS": key,
            "DEFAULT_MODELS": target.of(CHATTING)[0].id,
        }
    for served in target.of({"embedding"})[:1]:
        environment |= {
            "RAG_EMBEDDING_ENGINE": "openai",
            "RAG_EMBEDDING_MODEL": served.id,
            "RAG_OPENAI_API_BASE_URL": target.base_url,
            "RAG_OPENAI_API_KEY": key,
        }
    for served in target.of({"rerank"})[:1]:
        environment |= {
            "ENABLE_RAG_HYBRID_SEARCH": "True",
            "RAG_RERANKING_ENGINE": "external",
            "RAG_RERANKING_MODEL": served.id,
            "RAG_EXTERNAL_RERANKER_URL": f"{target.base_url}/rerank",
            "RAG_EXTERNAL_RERANKER_API_KEY": key,
        }
    return as_yaml({"services": {"open-webui": {"environment": environment}}})
