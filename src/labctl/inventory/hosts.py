"""A host and what is inside it.

A host is one Linux machine reached by SSH. Everything that labctl derives for it (units, firewall, power
budget, wake packets) comes from the fields below and from the rack that holds it.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from labctl.domain.gpus import CapReason
from labctl.inventory.accelerators import Amd, Backend, Gpu, Nvidia, require_reason
from labctl.inventory.engines import Arch
from labctl.inventory.fields import (
    Address,
    Count,
    Flag,
    Gibibytes,
    Interface,
    Ip,
    Label,
    PackageName,
    Port,
    Prefix,
    RemotePath,
    UserName,
    Watts,
)
from labctl.inventory.idle import Gate, IdlePolicy
from labctl.inventory.power import Psu
from labctl.inventory.services import Service
from labctl.inventory.spec import Spec
from labctl.inventory.wake import NoWake, Switch, Wake

Role = Literal["gpu", "always-on", "storage"]


class Ssh(Spec):
    """How to log in."""

    user: UserName = Field(default="admin", description="User who may become root without a password.")
    port: Port = Field(default=22, description="TCP port of sshd.")
    key: Path = Field(
        default=Path("keys/operator"), description="Private key file, relative to the rack file's folder."
    )


class PrivateNet(Spec):
    """A network of the hosts' own, such as a direct cable between two of them; engines talk over it."""

    interface: Interface = Field(description="Its network interface on this host.")
    address: Ip = Field(description="This host's address in it.")
    prefix: Prefix | None = Field(
        default=None,
        description="Length of its network prefix; default: 24, for 169.254.x.x 16, for IPv6 64.",
    )


class Host(Spec):
    """One machine of the rack."""

    name: Label = Field(description="Name of the host; labctl also sets it as the machine's host name.")
    address: Address = Field(description="IP address or DNS name by which it is reached.")
    roles: tuple[Role, ...] = Field(
        default=(), description="What it is for; each role is also a pyinfra group."
    )
    ssh: Ssh | None = Field(default=None, description="How to log in, where it differs from the rack's.")
    arch: Arch | None = Field(
        default=None,
        description="Its processor as `uname -m` prints it; default: x86_64, aarch64 with a GB10.",
    )
    gpus: tuple[Gpu, ...] = Field(default=(), description="Its graphics cards.")
    cap_w: Watts | None = Field(
        default=None, description="Power cap in watts of each card that states none of its own."
    )
    cap_reason: CapReason | None = Field(default=None, description="Why they are capped.")
    nvidia: Nvidia = Field(default=Nvidia(), description="How the NVIDIA driver is installed.")
    amd: Amd = Field(default=Amd(), description="How ROCm and Vulkan are installed.")
    backend: Backend = Field(
        default="auto",
        description='What engines compute with; "auto" tries it out where there is a choice (AMD).',
    )
    psus: tuple[Psu, ...] = Field(default=(), description="Its power supplies.")
    base_w: Watts | None = Field(default=None, description="Watts of everything but the GPUs, under load.")
    wake: Wake = Field(default=NoWake(), description="How it is woken.")
    power: Switch | None = Field(
        default=None,
        description="What else switches its power (BMC, plug): tells sleep from off, may cut a hung host.",
    )
    gate: Gate = Field(default=Gate(), description="What must be true after a wake or boot before it serves.")
    priority: int = Field(
        default=0,
        strict=True,
        ge=-100,
        le=100,
        description="Who keeps watts when they are short; higher wins.",
    )
    idle: IdlePolicy = Field(default=IdlePolicy(), description="What happens when nobody uses it.")
    services: tuple[Service, ...] = Field(default=(), description="What runs on it.")
    depends_on: tuple[Label, ...] = Field(default=(), description="Hosts that must be awake before this one.")
    open_ports: tuple[Port, ...] = Field(
        default=(), description="TCP ports that the firewall opens, besides SSH."
    )
    packages: tuple[PackageName, ...] = Field(default=(), description="Debian packages to install here.")
    certificates: tuple[RemotePath, ...] = Field(
        default=(), description="Files on it with certificates whose end health warns of before it comes."
    )
    unified_memory_gib: Gibibytes | None = Field(
        default=None, description="Memory shared by CPU and GPU in GiB, for machines built that way."
    )
    memory_gib: Gibibytes | None = Field(
        default=None, description="Main memory in GiB; without it, what models need of it is not checked."
    )
    disk_mb_s: Count | None = Field(
        default=None, description="MB/s at which its disk reads models; default: what was measured there."
    )
    private: PrivateNet | None = Field(
        default=None, description="A network that only hosts of the rack are in."
    )
    vendor_image: Flag = Field(
        default=False,
        description="The vendor's own system (such as DGX OS): its driver stack is never replaced.",
    )

    @model_validator(mode="after")
    def _cap_has_a_reason(self) -> "Host":
        require_reason(self.cap_w, self.cap_reason)
        return self
