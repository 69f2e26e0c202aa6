"""The typed inventory: what a rack file may say, and the loader that reads it.

Importable without pyinfra, gevent or paramiko. A rack file imports its classes from here::

    from labctl.inventory import Gpu, Host, Rack
"""

from labctl.inventory.accelerators import Amd, AptMirror, Gpu, Nvidia
from labctl.inventory.hosts import Host, IdlePolicy, Role, Ssh
from labctl.inventory.loader import LoadedRack, load_rack
from labctl.inventory.power import Circuit, Psu
from labctl.inventory.rack import Rack
from labctl.inventory.services import Command, LlamaServer, Model, Service
from labctl.inventory.wake import Ipmi, NoWake, Redfish, SmartPlug, Wake, WakeCommand, WakeOnLan

__all__ = [
    "Amd",
    "AptMirror",
    "Circuit",
    "Command",
    "Gpu",
    "Host",
    "IdlePolicy",
    "Ipmi",
    "LlamaServer",
    "LoadedRack",
    "Model",
    "NoWake",
    "Nvidia",
    "Psu",
    "Rack",
    "Redfish",
    "Role",
    "Service",
    "SmartPlug",
    "Ssh",
    "Wake",
    "WakeCommand",
    "WakeOnLan",
    "load_rack",
]
