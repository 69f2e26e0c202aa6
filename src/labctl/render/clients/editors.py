"""Configuration of coding agents and editors. Each function returns one whole file in the client's format."""

from __future__ import annotations

import json
from typing import Any

import yaml

from labctl.inventory.endpoints import Served
from labctl.render.clients.target import CHATTING, KEY, UNKNOWN_CONTEXT, Target

# The provider's name in clients; Zed makes the name of the key's variable of it.
PROVIDER = "labctl"


def context(served: Served) -> int:
    """Return the tokens of a request, or what stands for an unknown number."""
    return served.context or UNKNOWN_CONTEXT


def answer(served: Served) -> int:
    """Return how much of the context an answer may take: a quarter, and no more than 8192 tokens."""
    return min(context(served) // 4, 8192)


def label(served: Served) -> str:
    """Return a model's name for people: its id, and the host that it runs on."""
    return f"{served.id} ({served.host.name})"


def as_json(document: object) -> str:
    """Return a document as JSON for people."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_yaml(document: object) -> str:
    """Return a document as YAML, in the order in which it was made."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return text


def opencode(target: Target) -> str:
    """Return opencode.json; its timeouts are milliseconds, of which `timeout` counts the whole answer."""
    models = {
        served.id: {"name": label(served), "limit": {"context": context(served), "output": answer(served)}}
        | ({"attachment": True} if served.kind == "vision" else {})
        for served in target.models
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": target.rack,
        "options": {
            "baseURL": target.base_url,
            "apiKey": f"{{env:{KEY}}}",
            "timeout": target.whole_s * 1000,
            "headerTimeout": target.first_byte_s * 1000,
            "chunkTimeout": target.first_byte_s * 1000,
        },
        "models": models,
    }
    return as_json(
        {
            "$schema": "https://opencode.ai/config.json",
            "provider": {PROVIDER: provider},
            "model": f"{PROVIDER}/{target.models[0].id}",
        }
    )


def continue_(target: Target) -> str:
    """Return Continue's config.yaml; its timeout is in seconds."""
    models: list[dict[str, Any]] = []
    for served in target.models:
        entry: dict[str, Any] = {
            "name": label(served),
            "provider": "openai",
            "model": served.id,
            "apiBase": target.base_url,
            "apiKey": f"${{{{ secrets.{KEY} }}}}",
            "roles": ["chat", "edit", "apply"] if served.kind in CHATTING else ["embed"],
        }
        if served.kind == "vision":
            entry["capabilities"] = ["image_input"]
        if served.kind in CHATTING:
            entry["defaultCompletionOptions"] = {
                "contextLength": context(served),
                "maxTokens": answer(served),
            }
        entry["requestOptions"] = {"timeout": target.whole_s}
        models.append(entry)
    return as_yaml({"name": target.rack, "version": "1.0.0", "schema": "v1", "models": models})


def aider(target: Target) -> str:
    """Return .aider.conf.yml; its timeout is in seconds, and the key comes from the environment."""
    return as_yaml(
        {
            "model": f"openai/{target.models[0].id}",
            "openai-api-base": target.base_url,
            "timeout": target.whole_s,
            "show-model-warnings": False,
        }
    )


def zed(target: Target) -> str:
    """Return settings.json for Zed, which reads the key of a provider X from $X_API_KEY."""
    models = [
        {
            "name": served.id,
            "display_name": label(served),
            "max_tokens": context(served),
            "max_output_tokens": answer(served),
            "capabilities": {
                "tools": True,
                "images": served.kind == "vision",
                "parallel_tool_calls": False,
                "prompt_cache_key": False,
            },
        }
        for served in target.models
    ]
    provider = {"api_url": target.base_url, "available_models": models}
    return as_json({"language_models": {"openai_compatible": {PROVIDER: provider}}})


def crush(target: Target) -> str:
    """Return crush.json."""
    models = [
        {
            "id": served.id,
            "name": label(served),
            "context_window": context(served),
            "default_max_tokens": answer(served),
            "supports_attachments": served.kind == "vision",
        }
        for served in target.models
    ]
    provider = {
        "name": target.rack,
        "type": "openai-compat",
        "base_url": target.base_url,
        "api_key": f"${KEY}",
        "models": models,
    }
    return as_json({"$schema": "https://charm.land/crush.json", "providers": {PROVIDER: provider}})


def codex(target: Target) -> str:
    """Return config.toml for Codex; JSON's strings are TOML's too, and its timeout is in milliseconds."""
    first = target.models[0]
    lines = [
        f"model = {json.dumps(first.id)}",
        f"model_provider = {json.dumps(PROVIDER)}",
        f"model_context_window = {context(first)}",
        "",
        f"[model_providers.{PROVIDER}]",
        f"name = {json.dumps(target.rack)}",
        f"base_url = {json.dumps(target.base_url)}",
        f"env_key = {json.dumps(KEY)}",
        'wire_api = "responses"',
        "# A repeated request would only wait behind the first one for the same model to load.",
        "request_max_retries = 0",
        "stream_max_retries = 0",
        f"stream_idle_timeout_ms = {target.first_byte_s * 1000}",
    ]
    return "\n".join(lines)


def roo(target: Target) -> str:
    """Return settings for Roo Code to import: one profile for each model, without the key."""
    profiles = {
        label(served): {
            "id": f"{PROVIDER}-{served.id}",
            "apiProvider": "openai",
            "openAiBaseUrl": target.base_url,
            "openAiModelId": served.id,
            "openAiStreamingEnabled": True,
            "openAiCustomModelInfo": {
                "contextWindow": context(served),
                "maxTokens": answer(served),
                "supportsImages": served.kind == "vision",
                "supportsPromptCache": False,
            },
        }
        for served in target.models
    }
    current = {"currentApiConfigName": label(target.models[0]), "apiConfigs": profiles}
    return as_json({"providerProfiles": current, "globalSettings": {}})
