"""The OpenAPI document of what the gateway answers by itself.

Its schemas are made from the types that the answers are written from, so it can't promise another answer.
What is passed on to upstreams (/v1/chat/completions and its like) is theirs to describe.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .documents import Health, Listed, Listing, OtherListed, OtherListing, Prewake, Prewaken, Status

Document = dict[str, Any]

TYPES = (Health, Listed, Listing, OtherListed, OtherListing, Prewaken, Status)
_NAME = {"type": "string", "minLength": 1}


def document(version: str) -> Document:
    """Return the whole document; ``version`` is labctl's."""
    _, schemas = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "labctl gateway",
            "version": version,
            "description": "Live state of models and hosts, and waking them in advance.",
        },
        "paths": _paths(),
        "components": {
            "schemas": {**schemas, "Prewake": _prewake(), "Problem": _problem()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"apiKey": []}],
    }


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Document, content_type: str = "application/json") -> Document:
    return {content_type: {"schema": schema}}


def _says(description: str, schema: Document, content_type: str = "application/json") -> Document:
    return {"description": description, "content": _content(schema, content_type)}


def _refusals(**because: str) -> Document:
    """Return refusals by their status, such as ``s404="there is no such model"``."""
    return {
        status[1:]: _says(text, _ref("Problem"), "application/problem+json")
        for status, text in because.items()
    }


def _paths() -> Document:
    needs_key = {"s401": "no key, or a wrong one", "s403": "the key may not, or a strange web page asks"}
    model = {"name": "id", "in": "path", "required": True, "schema": _NAME, "description": "an id or alias"}
    anthropic = {
        "name": "anthropic-version", "in": "header", "required": False, "schema": {"type": "string"},
        "description": "with it the answer has the form that Anthropic's clients expect",
    }  # fmt: skip
    lists = {"oneOf": [_ref("Listing"), _ref("OtherListing")]}
    listed = {"oneOf": [_ref("Listed"), _ref("OtherListed")]}
    page = {"type": "string"}
    return {
        "/": _get("This rack at a glance, for people", _says("a page", page, "text/html"), security=[]),
        "/health": _get(
            "Whether this process serves",
            _says("it does", _ref("Health")),
            security=[],
            more={"503": _says("it takes nothing new", _ref("Health"))},
        ),
        "/metrics": _get(
            "Metrics in Prometheus' text format",
            _says("metrics", page, "text/plain"),
            more=_refusals(**needs_key),
        ),
        "/v1/models": _get(
            "Models and how soon they answer",
            _says("models", lists),
            parameters=[anthropic],
            more=_refusals(**needs_key),
        ),
        "/v1/models/{id}": _get(
            "One model",
            _says("the model", listed),
            parameters=[model, anthropic],
            more=_refusals(**needs_key, s404="there is no such model"),
        ),
        "/labctl/v1/status": _get(
            "Hosts and models", _says("the rack", _ref("Status")), more=_refusals(**needs_key)
        ),
        "/labctl/v1/openapi.json": _get("This document", _says("it", {"type": "object"}), security=[]),
        "/labctl/v1/prewake": {"post": _waking(needs_key)},
    }


def _get(
    summary: str,
    says: Document,
    *,
    security: list[Document] | None = None,
    parameters: list[Document] | None = None,
    more: Document | None = None,
) -> Document:
    operation: Document = {"summary": summary, "responses": {"200": says, **(more or {})}}
    if security is not None:
        operation["security"] = security
    if parameters is not None:
        operation["parameters"] = parameters
    return {"get": operation}


def _waking(needs_key: dict[str, str]) -> Document:
    return {
        "summary": "Wake a model's host, or a host, in advance",
        "description": "Answered at once. It counts as a request, and as a wake where it begins one.",
        "requestBody": {"required": True, "content": _content(_ref("Prewake"))},
        "responses": {
            "200": _says("nothing has to be woken", _ref("Prewaken")),
            "202": _says("it is being woken", _ref("Prewaken")),
            **_refusals(
                **needs_key,
                s400="neither a model nor a host is named, or both are",
                s404="there is no such model or host",
                s413="too large",
                s415="it is not sent as application/json",
                s429="the key has no request or wake left",
                s503="it can't be woken, or the store can't be used",
            ),
        },
    }


def _prewake() -> Document:
    """Return the schema of ``Prewake``, of which exactly one field is stated."""
    return {
        "description": "What is to be woken: a model's host, or a host.",
        "oneOf": [
            {
                "type": "object",
                "properties": {name: _NAME},
                "required": [name],
                "additionalProperties": False,
            }
            for name in Prewake.__struct_fields__
        ],
    }


def _problem() -> Document:
    """Return the schema of ``gateway.refusals.problem``."""
    text = {"type": "string"}
    error = {"message": text, "type": text, "code": text, "param": {"type": "null"}}
    properties = {
        "type": text,
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "host": text,
        "hint": text,
        "error": {"type": "object", "properties": error, "required": list(error)},
    }
    return {
        "description": "Why not (RFC 9457); `error` is what OpenAI's clients look for.",
        "type": "object",
        "properties": properties,
        "required": ["type", "title", "status", "detail", "error"],
    }
