"""The typed inventory: what a rack file may say, and the loader that reads it.

Importable without pyinfra, gevent or paramiko. A rack file imports its classes from here::

    from labctl.inventory import Gpu, Host, Rack
"""

from labctl.inventory.accelerators import Amd, AptMirror, Gpu, Nvidia
from labctl.inventory.engines import (
    Artifact,
    BinaryBuild,
    EngineBuild,
    LlamaCpp,
    LlamaSwapBuild,
    OllamaBuild,
    PythonEnv,
)
from labctl.inventory.gatewaying import (
    Gateway,
    GatewayHost,
    GatewayKey,
    GatewayLimits,
    GatewayModel,
    Outside,
)
from labctl.inventory.health import Health, MailNotice, NtfyNotice, WebhookNotice
from labctl.inventory.hosts import Host, PrivateNet, Role, Ssh
from labctl.inventory.idle import Controller, Gate, IdlePolicy, Signals
from labctl.inventory.limits import Limits
from labctl.inventory.loader import LoadedRack, load_rack
from labctl.inventory.models import HuggingFace, Model, ModelFile
from labctl.inventory.power import Circuit, Psu
from labctl.inventory.rack import Rack
from labctl.inventory.secrets import Secret
from labctl.inventory.services import (
    Bifrost,
    Command,
    LiteLlm,
    LlamaServer,
    LlamaSwap,
    Olla,
    Ollama,
    PgVector,
    RayCluster,
    RpcServer,
    Service,
    Sglang,
    SwapGroup,
    SwapMatrix,
    Swapped,
    TabbyApi,
    Vllm,
)
from labctl.inventory.tariff import Tariff, TariffWindow
from labctl.inventory.wake import Ipmi, NoWake, Redfish, SmartPlug, Wake, WakeCommand, WakeOnLan, Webhook
from labctl.inventory.web import Web, WebKey

__all__ = [
    "Amd",
    "AptMirror",
    "Artifact",
    "Bifrost",
    "BinaryBuild",
    "Circuit",
    "Command",
    "Controller",
    "EngineBuild",
    "Gate",
    "Gateway",
    "GatewayHost",
    "GatewayKey",
    "GatewayLimits",
    "GatewayModel",
    "Gpu",
    "Health",
    "Host",
    "HuggingFace",
    "IdlePolicy",
    "Ipmi",
    "Limits",
    "LiteLlm",
    "LlamaCpp",
    "LlamaServer",
    "LlamaSwap",
    "LlamaSwapBuild",
    "LoadedRack",
    "MailNotice",
    "Model",
    "ModelFile",
    "NoWake",
    "NtfyNotice",
    "Nvidia",
    "Olla",
    "Ollama",
    "OllamaBuild",
    "Outside",
    "PgVector",
    "PrivateNet",
    "Psu",
    "PythonEnv",
    "Rack",
    "RayCluster",
    "Redfish",
    "Role",
    "RpcServer",
    "Secret",
    "Service",
    "Sglang",
    "Signals",
    "SmartPlug",
    "Ssh",
    "SwapGroup",
    "SwapMatrix",
    "Swapped",
    "TabbyApi",
    "Tariff",
    "TariffWindow",
    "Vllm",
    "Wake",
    "WakeCommand",
    "WakeOnLan",
    "Web",
    "WebKey",
    "Webhook",
    "WebhookNotice",
    "load_rack",
]
