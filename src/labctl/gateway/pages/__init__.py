"""What the gateway answers by itself: models, health, metrics, status, and the wish for a host in advance.

The rule: **looking wakes nobody.** Everything here is answered from the table and from what was last seen of
the store; nothing asks a host, and nothing but ``POST /labctl/v1/prewake`` writes anything.

    routes    which paths are ours, which methods they know, who may read them; what browsers may do
    outlook   the live state of each model and host, in the words that all pages use
    lists     GET /v1/models as OpenAI's and as Anthropic's clients expect it
    prewake   POST /labctl/v1/prewake: one wish, held until the host is ready or the time is over
    openapi   GET /labctl/v1/openapi.json, which the tests hold the answers to
    pages     one door to all of it
"""

from __future__ import annotations

from .pages import Around, OwnPages

__all__ = ["Around", "OwnPages"]
