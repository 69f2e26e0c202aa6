"""The documents that pages answer with, as types: what is written by them is what openapi.json promises.

Seconds are real numbers. ``None`` means that nobody can say; an empty text that there is nothing to say.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from labctl.domain.sleep.lifecycle import Mode

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class State(StrEnum):
    """How soon a model answers, the soonest first."""

    READY = "ready"  # its host is awake, and it is loaded
    AWAKE = "awake"  # its host is awake; it is loaded by the first request
    WAKING = "waking"  # its host is on the way
    ASLEEP = "asleep"  # its host sleeps; the first request wakes it
    UNKNOWN = "unknown"  # nobody knows whether its host is on; the first request finds out
    OUTSIDE = "outside"  # no host of the rack has it, another service does
    UNAVAILABLE = "unavailable"  # its hosts failed, are paused or held back


class ModelNow(msgspec.Struct, frozen=True):
    """The state of a model; ``expected_s`` is how long until it could answer, and 0 for now."""

    state: State
    expected_s: Seconds | None
    kind: str
    hosts: tuple[str, ...]
    loaded: tuple[str, ...]
    aliases: tuple[str, ...]
    context: int


class Listed(msgspec.Struct, frozen=True):
    """A model as OpenAI's clients list it."""

    id: str
    created: int
    owned_by: str
    labctl: ModelNow
    object: str = "model"


class Listing(msgspec.Struct, frozen=True):
    """OpenAI's list of models."""

    data: tuple[Listed, ...]
    object: str = "list"


class OtherListed(msgspec.Struct, frozen=True):
    """A model as Anthropic's clients list it."""

    id: str
    display_name: str
    created_at: str
    labctl: ModelNow
    type: str = "model"


class OtherListing(msgspec.Struct, frozen=True):
    """Anthropic's list of models; it always has one page."""

    data: tuple[OtherListed, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


class HostStatus(msgspec.Struct, frozen=True):
    """A host: ``since`` is a wall time, ``expected_s`` how long until it could serve.

    ``refused`` says why it must not be woken now; ``leases`` counts processes that serve by it.
    """

    name: str
    mode: Mode
    since: float
    because: str
    expected_s: Seconds | None
    refused: str
    leases: int
    sleeps: bool
    wakeable: bool
    models: tuple[str, ...]


class ModelStatus(msgspec.Struct, frozen=True):
    """A model and its state."""

    id: str
    labctl: ModelNow


class Status(msgspec.Struct, frozen=True):
    """The rack as the gateway sees it; ``at`` is wall, ``seen_s`` how old the view is.

    ``trouble`` is why the store cannot be used, ``paused`` why the rack is.
    """

    rack: str
    at: float
    seen_s: Seconds
    trouble: str
    paused: str
    draining: bool
    hosts: tuple[HostStatus, ...]
    models: tuple[ModelStatus, ...]


class Health(msgspec.Struct, frozen=True):
    """Whether this process serves: ``status`` is "ok" or "draining", ``store`` "ok" or "unusable"."""

    status: str
    store: str


class Prewake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be woken: a model's host, or a host; one of both."""

    model: str = ""
    host: str = ""


class Prewaken(msgspec.Struct, frozen=True):
    """What a prewake came to; ``host`` is empty where a service outside of the rack serves the model.

    ``expected_s`` is how long until the host serves; for a model, until it is loaded as well.
    """

    host: str
    state: State
    expected_s: Seconds | None
    because: str
