"""Which cards an engine sees.

NVIDIA cards are named by UUID, so that no reordering at boot gives an engine another card, and the order is
that of the PCI bus, so that numbers in the engine's own options (``main_gpu``) mean what ``nvidia-smi`` says.
AMD's and Vulkan's variables take numbers only. These are places in the order of PCI addresses, so all cards
of that vendor must state theirs. An engine that may use all cards is told none: it then sees what is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.domain.problem import LabctlError
from labctl.inventory import Gpu, Host
from labctl.inventory.builds import backends, cards_of, vendor_of
from labctl.inventory.services import Program

_BY_NUMBER = {"rocm": ("ROCR_VISIBLE_DEVICES",), "vulkan": ("GGML_VK_VISIBLE_DEVICES",)}


def visible(host: Host, wanted: Program) -> dict[str, str]:
    """Return the environment by which a service sees its cards and no others.

    Raises:
        LabctlError: a card is asked for by a name whose UUID (NVIDIA) or PCI address the inventory lacks.
    """
    cards = cards_of(host, wanted)
    nvidia = any(vendor_of(gpu) == "nvidia" for gpu in host.gpus)
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if nvidia else {}
    if not getattr(wanted, "gpus", ()):
        return order
    found = dict(order)
    by_number = [gpu for gpu in cards if vendor_of(gpu) not in ("nvidia", None)]
    by_uuid = [gpu for gpu in cards if gpu not in by_number]
    if by_uuid:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(_uuid(host, wanted, gpu) for gpu in by_uuid)
    if by_number or (nvidia and host.backend == "vulkan"):
        numbers = ",".join(map(str, _numbers(host, wanted, cards if host.backend == "vulkan" else by_number)))
        for backend in backends(host, cards):
            found |= dict.fromkeys(_BY_NUMBER.get(backend, ()), numbers)
    return found


def _uuid(host: Host, wanted: Program, gpu: Gpu) -> str:
    if gpu.uuid is None:
        raise LabctlError(
            f"service {wanted.name} asks for GPU {gpu.refs[0]}, whose UUID is not known",
            hint=f"add uuid= to that Gpu in the inventory; `nvidia-smi -L` on {host.name} prints it",
            host=host.name,
        )
    return gpu.uuid


def _numbers(host: Host, wanted: Program, cards: Sequence[Gpu]) -> list[int]:
    """Return the places of cards in the order of PCI addresses, among all that the same driver counts."""
    counted = list(host.gpus)
    if host.backend != "vulkan":
        counted = [gpu for gpu in host.gpus if vendor_of(gpu) not in ("nvidia", None)]
    if len(counted) == 1:
        return [0]
    for gpu in counted:
        if gpu.pci is None:
            raise LabctlError(
                f"service {wanted.name} asks for some of the GPUs, and where GPU {gpu.refs[0]} sits on the "
                "PCI bus is not known",
                hint=f"add pci= to every Gpu of {host.name}; `lspci -D` there prints it",
                host=host.name,
            )
    places = sorted(gpu.pci or "" for gpu in counted)
    return [places.index(gpu.pci or "") for gpu in cards]
