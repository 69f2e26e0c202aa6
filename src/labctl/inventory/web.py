"""The web page: where it listens, and who may look and act.

It runs on the controller's host, beside it, and speaks to it over its socket. Without a key it shows itself
on loopback and changes nothing; beyond loopback nothing is shown without one. Keys are given by reference,
or by their hash: its host gets hashes only.
"""

from pathlib import Path

from pydantic import Field, model_validator

from labctl.inventory.fields import (
    Address,
    Flag,
    Ip,
    MendableError,
    Port,
    SecretFile,
    ServiceName,
    Sha256,
)
from labctl.inventory.secrets import Secret
from labctl.inventory.spec import Spec

FOLDER = "/etc/labctl/web"
USER = "labctl-web"
TABLE = f"{FOLDER}/table.json"


class WebKey(Spec):
    """A key of the web page: who looks, and whether who shows it may wake hosts and put them to sleep."""

    name: ServiceName = Field(description="What the log of hosts calls whoever shows it.")
    secret: Secret | None = Field(default=None, description="Where the key is read; its host gets the hash.")
    sha256: Sha256 | None = Field(
        default=None, description="Or the SHA-256 of the key; `labctl gateway keys new` makes both."
    )
    acts: Flag = Field(
        default=True, description="Whether it may wake, suspend, hold and release; else it only looks."
    )

    @model_validator(mode="after")
    def _one_key(self) -> "WebKey":
        if (self.secret is None) == (self.sha256 is None):
            raise MendableError(
                "give either `secret` or `sha256`", "umask 077; openssl rand -hex 32 > keys/web"
            )
        return self


class Web(Spec):
    """The web page of the rack and its metrics, on the controller's host."""

    port: Port = Field(default=8090, description="TCP port that it listens on.")
    listen: Ip = Field(
        default="127.0.0.1",
        description="Address that it listens on; beyond loopback it needs keys, and the firewall opens it.",
    )
    keys: tuple[WebKey, ...] = Field(
        default=(), description="Who may act, and look from elsewhere; default: nobody, it only shows."
    )
    names: tuple[Address, ...] = Field(
        default=(),
        description="Names by which browsers on loopback call it besides localhost, such as that of a proxy; "
        "under any other name it wants a key, also to look.",
    )
    certificate: Path | None = Field(
        default=None, description="Certificate as PEM, relative to the rack file's folder; default: no TLS."
    )
    private_key: SecretFile | None = Field(default=None, description="Its private key; mode 0600.")

    @model_validator(mode="after")
    def _whole_certificate(self) -> "Web":
        if (self.certificate is None) != (self.private_key is None):
            raise MendableError("`certificate` and `private_key` go together", "give both, or none")
        return self
