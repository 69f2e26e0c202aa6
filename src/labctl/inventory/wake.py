"""The ways to bring a sleeping or powered-off host back.

A host has exactly one; ``kind`` tells them apart. Besides, `Host.power` may name one that switches its
power. Passwords are never written in the inventory: a field that ends in ``_file`` names a local file which
holds the secret, relative to the rack file's folder.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from labctl.inventory.fields import Address, Flag, Interface, Ip, Label, Mac, Port, SecretFile, Text
from labctl.inventory.spec import Spec


class NoWake(Spec):
    """Nothing can wake the host; labctl never lets it sleep."""

    kind: Literal["none"] = Field(default="none", description="Always ``none``.")


class WakeOnLan(Spec):
    """A magic packet wakes the host."""

    kind: Literal["wol"] = Field(default="wol", description="Always ``wol``.")
    mac: Mac = Field(description="MAC address of the network card that listens (`ip link` shows it).")
    interface: Interface | None = Field(
        default=None, description="Local interface to send from; default: the route to the host decides."
    )
    broadcast: Ip | None = Field(
        default=None,
        description="Broadcast address of its network, such as 192.168.1.255; default: 255.255.255.255 on "
        "the interface that leads to the host, and its network's own broadcast address.",
    )
    unicast: Flag = Field(
        default=False,
        description="Whether to send to the host's own address too; routers need a static ARP entry for it.",
    )
    port: Port = Field(default=9, description="UDP port; cards look only at the payload.")
    secureon_file: SecretFile | None = Field(
        default=None, description="File with the SecureOn password (six bytes written like a MAC)."
    )
    relay: Label | None = Field(
        default=None, description="Host in the same network segment that sends the packet on our behalf."
    )


class Ipmi(Spec):
    """A BMC that speaks IPMI over LAN switches the host on."""

    kind: Literal["ipmi"] = Field(default="ipmi", description="Always ``ipmi``.")
    address: Address = Field(description="Address of the BMC, not of the host.")
    port: Port = Field(default=623, description="UDP port of the BMC.")
    user: Text = Field(description="User on the BMC.")
    password_file: SecretFile = Field(description="File with the password.")


class Redfish(Spec):
    """A BMC that speaks Redfish switches the host on."""

    kind: Literal["redfish"] = Field(default="redfish", description="Always ``redfish``.")
    address: Address = Field(description="Address of the BMC, not of the host.")
    port: Port = Field(default=443, description="HTTPS port of the BMC.")
    user: Text = Field(description="User on the BMC.")
    password_file: SecretFile = Field(description="File with the password.")
    system: Text = Field(default="/redfish/v1/Systems/1", description="Path of the system resource.")
    ca_file: Path | None = Field(
        default=None, description="Certificate that signs the BMC's; default: the machine's own trust store."
    )


class SmartPlug(Spec):
    """A plug on the network gives power; the firmware must be set to start when power returns.

    Shelly plugs of both generations are told apart by themselves.
    """

    kind: Literal["plug"] = Field(default="plug", description="Always ``plug``.")
    driver: Literal["shelly", "tasmota"] = Field(description="The language that the plug speaks.")
    address: Address = Field(description="Address of the plug.")
    port: Port = Field(default=80, description="HTTP port of the plug.")
    outlet: int = Field(default=0, strict=True, ge=0, le=63, description="Number of the outlet, from 0.")
    user: Text | None = Field(default=None, description="User on the plug, where it asks for one.")
    password_file: SecretFile | None = Field(default=None, description="File with the password.")
    may_cut: Flag = Field(
        default=False,
        description="Whether labctl may also cut the power of a host that hangs; loses unsaved data.",
    )


class Webhook(Spec):
    """Home Assistant, or whatever else has an address that switches power on when it is asked by POST.

    The address is a secret: whoever knows it may switch.
    """

    kind: Literal["webhook"] = Field(default="webhook", description="Always ``webhook``.")
    on_file: SecretFile = Field(
        description="File with the address that switches on, such as http://HOST:8123/api/webhook/ID."
    )
    off_file: SecretFile | None = Field(default=None, description="File with the address that switches off.")
    ca_file: Path | None = Field(
        default=None,
        description="Certificate that signs the server's; default: the machine's own trust store.",
    )


class WakeCommand(Spec):
    """A command run on this machine wakes the host; exit status 0 means that the order was sent."""

    kind: Literal["command"] = Field(default="command", description="Always ``command``.")
    argv: tuple[Text, ...] = Field(min_length=1, description="Program and arguments; no shell is involved.")
    off_argv: tuple[Text, ...] = Field(default=(), description="What cuts the power; default: nothing can.")


Wake = Annotated[
    NoWake | WakeOnLan | Ipmi | Redfish | SmartPlug | Webhook | WakeCommand,
    Field(discriminator="kind"),
]
Switch = Annotated[
    Ipmi | Redfish | SmartPlug | Webhook | WakeCommand,
    Field(discriminator="kind"),
]


def cuts(switch: Wake | Switch | None) -> bool:
    """Return whether a back-end can cut power, and may as far as its own fields say."""
    match switch:
        case Ipmi() | Redfish():
            return True
        case SmartPlug():
            return switch.may_cut
        case Webhook():
            return switch.off_file is not None
        case WakeCommand():
            return bool(switch.off_argv)
        case _:
            return False


def meters(switch: Wake | Switch | None) -> bool:
    """Return whether a back-end can tell whether power flows."""
    return isinstance(switch, Ipmi | Redfish | SmartPlug)
