"""List the models as OpenAI's and as Anthropic's clients expect it, each with its live state.

A key sees the models that it may ask for, and no other one exists for it. Models that the inventory does not
list are found by their name only.
"""

from __future__ import annotations

from datetime import UTC, datetime

from labctl.domain.gateway.table import Key, Model
from labctl.gateway.terms import Ask

from .documents import Listed, Listing, OtherListed, OtherListing
from .outlook import Outlook


def may_ask_for(key: Key, model: str) -> bool:
    """Return whether a key may ask for a model, by its id."""
    return not key.models or model in key.models


class Lists:
    """The lists of one process; ``began`` (wall) is what they call each model's time."""

    def __init__(self, rack: str, outlook: Outlook, began: float) -> None:
        """Keep what all entries share."""
        self._rack = rack
        self._outlook = outlook
        self._created = int(began)
        self._created_at = datetime.fromtimestamp(self._created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def all(self, ask: Ask, key: Key) -> Listing | OtherListing:
        """Return the list that this client understands."""
        models = [model for model in self._outlook.listed if may_ask_for(key, model.id)]
        if b"anthropic-version" in ask.named:
            ids = [model.id for model in models]
            data = tuple(self._other(model, model.id, key) for model in models)
            return OtherListing(data, ids[0] if ids else None, ids[-1] if ids else None)
        return Listing(tuple(self._listed(model, model.id, key) for model in models))

    def one(self, ask: Ask, key: Key, name: str) -> Listed | OtherListed | None:
        """Return one model by its id or an alias, under the name that was asked for; None: there is none."""
        model = self._outlook.models.get(name)
        if model is None or not may_ask_for(key, model.id):
            return None
        return (
            self._other(model, name, key)
            if b"anthropic-version" in ask.named
            else self._listed(model, name, key)
        )

    def _listed(self, model: Model, name: str, key: Key) -> Listed:
        return Listed(name, self._created, self._rack, self._outlook.model_now(model, outside=key.outside))

    def _other(self, model: Model, name: str, key: Key) -> OtherListed:
        return OtherListed(name, name, self._created_at, self._outlook.model_now(model, outside=key.outside))
