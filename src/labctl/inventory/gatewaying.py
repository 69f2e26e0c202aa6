"""The gateway: one endpoint for the models of the rack, who may use it, and what it may ask beyond the rack.

Which hosts serve which model follows from their services; here stands only what does not. Keys and secrets
are given by reference, or a key by its hash, so that nobody can read one here. On its host the gateway reads
one folder, and nothing else of labctl's.
"""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from labctl.inventory.fields import (
    BaseAddress,
    Bytes,
    Count,
    Duration,
    Flag,
    Ip,
    Label,
    MendableError,
    ModelId,
    Port,
    SecretFile,
    ServiceName,
    Sha256,
    Text,
    Whole,
    duration,
    is_address,
    is_near,
)
from labctl.inventory.secrets import Secret
from labctl.inventory.spec import Spec

FOLDER = "/etc/labctl/gateway"
USER = "labctl-gateway"
TABLE = f"{FOLDER}/table.json"

_CALL = re.compile(r"(?P<method>GET|POST|PUT|DELETE) (?P<path>/[A-Za-z0-9._~/-]{0,200})", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?", re.ASCII)
WaitingName = Literal["comments", "loading", "silent", "refuse"]


def _call(text: str) -> str:
    if not _CALL.fullmatch(text) or "//" in text or any(one in text.split("/") for one in (".", "..")):
        raise ValueError('must be a method and a path, such as "POST /completion"')
    return text


def _web(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must be an http:// or https:// address")
    if "?" in text or "#" in text:
        raise ValueError("must end with its path, such as https://openrouter.ai/api/v1")
    try:
        parts = urlsplit(text)
        sound = is_address(parts.hostname or "") and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must have a host name or IP address, and a port from 1 to 65535 if any")
    if not _PATH.fullmatch(parts.path) or parts.path.rstrip("/").endswith("/completions"):
        raise ValueError("must end with the path before what is asked, such as https://openrouter.ai/api/v1")
    if parts.scheme == "http" and not is_near(parts.hostname or ""):
        raise MendableError(
            "would send what is asked, and the key, so that anyone on the way can read it",
            "write https://; http:// is for addresses of your own network",
        )
    return text


Call = Annotated[Text, AfterValidator(_call)]
WebAddress = Annotated[BaseAddress, AfterValidator(_web)]


class GatewayKey(Spec):
    """A key of the gateway: who may ask, for what, and how much."""

    name: ServiceName = Field(description="What logs and metrics call whoever shows it.")
    secret: Secret | None = Field(default=None, description="Where the key is read; its host gets the hash.")
    sha256: Sha256 | None = Field(
        default=None, description="Or the SHA-256 of the key; `labctl gateway keys new` makes both."
    )
    models: tuple[ModelId, ...] = Field(default=(), description="Models that it may ask for; default: all.")
    per_minute: Whole = Field(default=0, description="Requests in a minute; 0 is no limit.")
    at_once: Whole = Field(default=0, description="Requests at a time; 0 is no limit.")
    wakes_per_hour: Whole | None = Field(
        default=None, description="Hosts that it may wake in an hour, 0 for none; default: no limit."
    )
    waiting: WaitingName = Field(
        default="comments",
        description='What it gets while a host wakes: "comments" in its event stream, "loading" as thoughts '
        'of the model, "silent", or "refuse": 503 at once, and the host wakes all the same.',
    )
    outside: Flag = Field(default=False, description="Whether `outside` may serve it as a last resort.")
    sees: Flag = Field(default=True, description="Whether it may read metrics and how hosts are.")

    @model_validator(mode="after")
    def _one_key(self) -> "GatewayKey":
        if (self.secret is None) == (self.sha256 is None):
            raise MendableError(
                "give either `secret` or `sha256`",
                "labctl gateway keys new makes a key, and says what to write here",
            )
        return self


class Outside(Spec):
    """A server beyond the rack that speaks OpenAI's API: asked when no host of the rack can serve."""

    name: Label = Field(description="What logs and metrics call it.")
    url: WebAddress = Field(description="Its address, such as https://openrouter.ai/api/v1.")
    models: dict[ModelId, Text] = Field(
        min_length=1,
        description="What it serves: the name by which clients ask the gateway, and its name there.",
    )
    api_key: Secret | None = Field(default=None, description="Key that it asks for.")
    ca_file: Path | None = Field(
        default=None, description="Certificates that it is checked by, as PEM; default: the system's."
    )
    at_once: Whole = Field(default=0, description="Requests at a time; 0 is no limit.")


class GatewayModel(Spec):
    """How the gateway treats one model, where that is not what follows from its services."""

    model: ModelId = Field(description="Id of the model.")
    wait: Duration | None = Field(
        default=None, description="How long a request may wait for a host and a place; default: the rack's."
    )
    waiting: WaitingName | None = Field(
        default=None, description="What clients get meanwhile, whatever their key says."
    )
    first_byte: Duration | None = Field(
        default=None, description="How long its first byte may take once it was sent; default: generous."
    )
    whole: Duration | None = Field(default=None, description="How long the whole answer may take.")
    last_resort: tuple[Label, ...] | None = Field(
        default=None, description="Which of `outside`, best first; default: all that have it."
    )
    listed: Flag | None = Field(
        default=None, description="Whether the list of models shows it; default: as llama-swap does."
    )


class GatewayHost(Spec):
    """How the gateway treats one host, where that is not what follows from its services."""

    host: Label = Field(description="Name of the host.")
    at_once: Whole | None = Field(
        default=None, description="Requests at a time for each of its services; default: as they are told."
    )
    queue: Whole = Field(
        default=256, description="Requests of a key that may wait for a place on each of them."
    )
    passes: tuple[Call, ...] | None = Field(
        default=None,
        description='What else is let through below /hosts/NAME/, such as "POST /completion"; default: of a '
        "llama-server what makes tokens, counts them, or tells its health.",
    )
    wakes: tuple[Call, ...] | None = Field(
        default=None, description="Which of those may wake it; default: those that make tokens."
    )


class GatewayLimits(Spec):
    """What one client may cost; sizes are in bytes."""

    head: Bytes = Field(default=64 * 1024, description="All lines before the body.")
    headers: Count = Field(default=100, description="Their number.")
    head_within: Duration = Field(default=duration("10s"), description="How long they may take.")
    body_within: Duration = Field(default=duration("10s"), description="How long a body may stand still.")
    idle: Duration = Field(default=duration("75s"), description="How long a connection may do nothing.")
    json_body: Bytes = Field(default=64 * 1024 * 1024, description="A body that is read whole.")
    form: Bytes = Field(
        default=32 * 1024 * 1024, description="Of a form, what comes before its field `model`."
    )
    upload: Bytes = Field(default=1024**3, description="A body that is passed on as it comes.")
    held: Bytes = Field(default=256 * 1024 * 1024, description="All bodies held at a time.")
    clients: Count = Field(default=4096, description="Connections at a time.")


class Gateway(Spec):
    """The process that serves all models of the rack under one address, and wakes their hosts."""

    host: Text = Field(description="Name of the host that it runs on, which is always on.")
    port: Port = Field(default=8000, description="TCP port that it listens on.")
    listen: Ip = Field(
        default="127.0.0.1",
        description="Address that it listens on; beyond loopback it needs keys, and the firewall opens it.",
    )
    hosts: tuple[Label, ...] = Field(
        default=(), description="Whose models it serves; default: all that its host can reach."
    )
    keys: tuple[GatewayKey, ...] = Field(default=(), description="Who may use it; default: who reaches it.")
    outside: tuple[Outside, ...] = Field(default=(), description="Whom it may ask beyond the rack.")
    models: tuple[GatewayModel, ...] = Field(default=(), description="What differs for single models.")
    treats: tuple[GatewayHost, ...] = Field(default=(), description="What differs for single hosts.")
    wait: Duration | None = Field(
        default=None,
        description="How long a request may wait for a host and a place; default: what waking it may take.",
    )
    waiting: WaitingName = Field(
        default="comments", description="What clients without a key get while a host wakes."
    )
    processes: Annotated[Count, Field(le=64)] = Field(
        default=1, description="How many processes share the port; one serves some thousand streams."
    )
    certificate: Path | None = Field(
        default=None, description="Certificate as PEM, relative to the rack file's folder; default: no TLS."
    )
    private_key: SecretFile | None = Field(default=None, description="Its private key; mode 0600.")
    drain: Duration = Field(
        default=duration("15m"), description="How long a request may go on when it is told to stop."
    )
    limits: GatewayLimits = Field(default=GatewayLimits(), description="What one client may cost.")

    @model_validator(mode="after")
    def _whole_certificate(self) -> "Gateway":
        if (self.certificate is None) != (self.private_key is None):
            raise MendableError("`certificate` and `private_key` go together", "give both, or none")
        return self
