"""Graphics cards, and how their drivers get onto a host.

A card is known by its UUID, else by its PCI address. One that has neither stands for any card of its model:
that is enough as long as the cards of that model need not be told apart (same cap, same clocks), and spares
a beginner from looking UUIDs up. Drivers follow from the cards; the settings here are for who needs another.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from labctl.domain.gpus import CapReason, Vendor
from labctl.inventory.fields import (
    ClocksMhz,
    CudaToolkit,
    Fingerprint,
    Flag,
    Gibibytes,
    GpuUuid,
    MendableError,
    PciAddress,
    PcieGen,
    PcieWidth,
    RemotePath,
    RocmRelease,
    Slot,
    Source,
    Text,
    Watts,
)
from labctl.inventory.spec import Spec

Backend = Literal["auto", "cuda", "rocm", "vulkan", "none"]


class Gpu(Spec):
    """One graphics card. Drivers' numbers change, so it is known by its UUID, PCI address or slot's name."""

    model: Text = Field(description='What it is, such as "RTX 3090".')
    uuid: GpuUuid | None = Field(default=None, description="UUID as `nvidia-smi -L` prints it.")
    pci: PciAddress | None = Field(
        default=None, description="PCI address as `lspci -D` prints it, such as 0000:3b:00.0."
    )
    slot: Slot | None = Field(
        default=None, description="Your own name for the place it sits in, such as slot0."
    )
    cap_w: Watts | None = Field(
        default=None, description="Power cap in watts; default: the host's, else the card's own."
    )
    cap_reason: CapReason | None = Field(
        default=None,
        description="Why it is capped. What protects a circuit or psu is not raised by a careless command.",
    )
    clocks_mhz: ClocksMhz | None = Field(
        default=None, description="Lowest and highest graphics clock in MHz that the card is locked to."
    )
    pcie_width: PcieWidth | None = Field(
        default=None, description="PCIe lanes of its slot or riser, such as 4; default: all that it can use."
    )
    pcie_gen: PcieGen | None = Field(
        default=None, description="PCIe generation of its slot or riser, such as 3; default: the card's best."
    )
    display: Flag = Field(
        default=False, description="Whether a monitor hangs on it; a part of its memory is kept for that."
    )
    vendor: Vendor | None = Field(default=None, description="Only for a card that labctl does not know.")
    tdp_w: Watts | None = Field(
        default=None,
        description="Watts at full load, for a card that labctl does not know or a board that draws more.",
    )
    memory_gib: Gibibytes | None = Field(
        default=None, description="Its own memory, for a card that labctl does not know or a board with more."
    )

    @model_validator(mode="after")
    def _known_by_something(self) -> "Gpu":
        if self.uuid is None and self.pci is None and self.slot is None:
            raise MendableError(
                "give `uuid`, `pci` or `slot`, so that the card can be told from the others",
                'a slot is your own name for the place it sits in, such as slot="slot0"',
            )
        return self

    @model_validator(mode="after")
    def _cap_has_a_reason(self) -> "Gpu":
        require_reason(self.cap_w, self.cap_reason)
        return self

    @property
    def refs(self) -> tuple[str, ...]:
        """Names by which the rest of the inventory may refer to the card, the shortest first."""
        return tuple(name for name in (self.slot, self.pci, self.uuid) if name is not None)


def require_reason(cap_w: int | None, reason: str | None) -> None:
    """Raise ``ValueError`` unless a cap and its reason come together."""
    if cap_w is not None and reason is None:
        raise MendableError(
            "a cap needs its reason", 'add cap_reason="circuit", "psu", "efficiency", "noise" or "heat"'
        )
    if cap_w is None and reason is not None:
        raise MendableError("`cap_reason` without `cap_w` caps nothing", "add `cap_w`, or remove it")


class AptMirror(Spec):
    """A copy of a vendor's package repository, for racks that do not reach the vendor."""

    url: Source = Field(description="Address of the copy, the folder that holds its Packages or dists.")
    key: Path | None = Field(
        default=None,
        description="Armored public key file, relative to the rack file's folder; default: the vendor's.",
    )
    fingerprint: Fingerprint | None = Field(default=None, description="Fingerprint of that key.")

    @model_validator(mode="after")
    def _key_with_fingerprint(self) -> "AptMirror":
        if (self.key is None) != (self.fingerprint is None):
            raise MendableError(
                "give `key` and `fingerprint` together", "`gpg --show-keys FILE` prints the fingerprint"
            )
        return self


class Nvidia(Spec):
    """How the NVIDIA driver gets onto a host; the defaults suit every card that it supports."""

    manage: Flag = Field(default=True, description="Whether labctl installs the driver.")
    branch: int | None = Field(
        default=None, strict=True, ge=535, le=999, description="Driver branch such as 580; default: by card."
    )
    flavour: Literal["auto", "open", "proprietary"] = Field(
        default="auto", description="Kernel modules; default: open wherever the cards allow it."
    )
    source: Literal["auto", "distro", "nvidia"] = Field(
        default="auto",
        description="The distribution's archive or NVIDIA's; default: the archive where it is new enough.",
    )
    mirror: AptMirror | None = Field(default=None, description="A copy of NVIDIA's repository.")
    container_toolkit: Flag = Field(default=False, description="Whether containers get to use the cards.")
    container_mirror: AptMirror | None = Field(
        default=None, description="A copy of the container toolkit's repository."
    )
    cuda_toolkit: CudaToolkit | None = Field(
        default=None, description='CUDA toolkit to compile with, such as "12-8".'
    )
    suspend: Literal["unload", "preserve"] = Field(
        default="unload",
        description="On suspend: unload models before, or preserve video memory in `suspend_path`.",
    )
    suspend_path: RemotePath = Field(
        default="/var/lib/labctl/vram", description="Folder with room for all video memory and 5 % more."
    )


class Amd(Spec):
    """How ROCm gets onto a host with AMD graphics; Vulkan always does."""

    manage: Flag = Field(default=True, description="Whether labctl installs ROCm and Vulkan.")
    rocm: RocmRelease | None = Field(
        default=None,
        description='ROCm release such as "10.0"; default: newest known.',
    )
    source: Literal["auto", "distro", "amd"] = Field(
        default="auto", description="The distribution's ROCm or AMD's; default: AMD's where it exists."
    )
    mirror: AptMirror | None = Field(default=None, description="A copy of AMD's repository.")
