"""What joins hosts for a model that is too large for one."""

from typing import Literal

from pydantic import Field

from labctl.inventory.fields import Count, Label, Port, Text
from labctl.inventory.secrets import Secret
from labctl.inventory.spec import Spec


class RayCluster(Spec):
    """A Ray cluster for vLLM: one head and its workers, over their hosts' `private` network."""

    kind: Literal["ray"] = Field(default="ray", description="Always ``ray``.")
    name: Label = Field(description="Name of the cluster.")
    head: Label = Field(description="Host of the head; vLLM is a service of that host.")
    workers: tuple[Label, ...] = Field(min_length=1, description="Hosts of the workers.")
    port: Port = Field(default=6379, description="TCP port of the head on its private address.")
    env: Text | None = Field(
        default=None, description="Version of the PythonEnv(...) that holds Ray; default: that of its Vllm."
    )
    token: Secret | None = Field(
        default=None,
        description="Key that nodes and vLLM show each other (Ray 2.52 or later); without it whoever reaches "
        "a node's ports commands it, and the firewall alone keeps others out.",
    )
    object_store_mib: Count | None = Field(
        default=None, description="Memory of each node's object store in MiB."
    )
