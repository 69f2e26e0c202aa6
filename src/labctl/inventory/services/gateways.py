"""Other people's gateways and a vector store, rendered from the same list of models; none runs unasked.

Each is a program on the host, which labctl configures and starts. A gateway serves every model of the rack's
llama-swaps and engines that it can reach from its host.
"""

from typing import Literal

from pydantic import Field

from labctl.inventory.fields import Label, Port, RemotePath, UserName, Version
from labctl.inventory.secrets import Secret
from labctl.inventory.services.program import Keyed, Program


class OthersGateway(Keyed):
    """A gateway in front of the rack's engines."""

    port: Port = Field(description="TCP port that it listens on.")
    hosts: tuple[Label, ...] = Field(
        default=(), description="Whose models it serves; default: the whole rack."
    )
    version: Version | None = Field(default=None, description="Which of the rack's `engines` it is.")
    binary: RemotePath | None = Field(default=None, description="A program on the host instead of `version`.")


class Bifrost(OthersGateway):
    """Bifrost, configured by its config.json alone."""

    kind: Literal["bifrost"] = Field(default="bifrost", description="Always ``bifrost``.")


class LiteLlm(OthersGateway):
    """LiteLLM's proxy. Versions 1.82.7 and 1.82.8 steal secrets and are refused."""

    kind: Literal["litellm"] = Field(default="litellm", description="Always ``litellm``.")


class Olla(OthersGateway):
    """Olla, without health checks that would wake or load anything."""

    kind: Literal["olla"] = Field(default="olla", description="Always ``olla``.")


class PgVector(Program):
    """PostgreSQL with pgvector from the distribution, for whoever stores embeddings."""

    kind: Literal["pgvector"] = Field(default="pgvector", description="Always ``pgvector``.")
    user: UserName = Field(
        default="labctl-pg", description="User that it runs as and that nothing else runs as."
    )
    port: Port = Field(default=5432, description="TCP port that it listens on.")
    database: Label = Field(default="rag", description="Name of the database.")
    password: Secret = Field(description="Password of the database's owner, who is called like it.")
