"""Magic packets, sent from here or by another host of the rack.

From here they leave within a millisecond, since nothing is asked before: out of the interface that the
inventory names, or that the route to the host takes; to its network's own broadcast address and to
255.255.255.255, on the port of the inventory and, where that is the usual 9, on 7 as well. A host whose name
cannot be resolved at once, or that is behind a router, is called in all networks of this machine: a packet
more hurts nobody. Cards look only at the payload.

With a ``relay`` that host sends them (the agent's verb ``relay``, over SSH), because broadcasts stop at
routers. If it cannot, they are sent from here all the same, and ``note`` hears that: it may be of no use.

What came of a packet cannot be known, nor can power be seen or cut this way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import wakeonlan

from labctl.adapters.power import secret
from labctl.agent import magic
from labctl.domain.failures import HostError
from labctl.inventory.wake import WakeOnLan
from labctl.ports import Said
from labctl.ports.power import Power, PowerError

RESOLVE_S = 0.02
"""How long a name may take before the packets leave without it."""
RELAY_S = 8.0

Relay = Callable[[bytes, float], Said]
"""Runs the agent's verb ``relay`` on the relay's host: its input, and a deadline in seconds."""


def _silent(_: str) -> None:
    """Tell nobody."""


class WolSwitch:
    """The port ``Switch`` for a card that listens."""

    kind = "wol"
    can_cut = False
    has_meter = False

    def __init__(
        self,
        wol: WakeOnLan,
        address: str,
        folder: Path,
        *,
        relay: Relay | None = None,
        relay_s: float = RELAY_S,
        note: Callable[[str], None] = _silent,
    ) -> None:
        """Send nothing yet.

        Args:
            wol: how the inventory wants it.
            address: the host's own.
            folder: the rack file's.
            relay: how to ask the host that sends for us.
            relay_s: seconds that it may take.
            note: gets what a person should know though it is no error.
        """
        self._wol = wol
        self._address = address
        self._folder = folder
        self._relay = relay
        self._relay_s = relay_s
        self._note = note
        self._known = [address] if _is_ip(address) else []

    def wake(self) -> None:
        """Send one round of packets."""
        secureon = self._secureon()
        if self._wol.relay is None or self._relay is None:
            self._send(secureon)
            return
        reason = self._relayed(secureon, self._relay)
        if reason is None:
            return
        name = self._wol.relay
        try:
            self._send(secureon)
        except PowerError as error:
            raise PowerError(
                error.code, f"{name} sent no packet ({reason}), and from here: {error}", error.hint
            ) from None
        self._note(
            f"{name} sent no packet ({reason}); it was sent from here, which wakes only hosts in our network"
        )

    def power(self) -> Power:
        """Return that it cannot tell."""
        return "unclear"

    def cut(self) -> None:
        """Say that packets cut nothing."""
        raise PowerError(
            "unsupported", "a magic packet cannot cut power", "give the host's BMC or plug as `power`"
        )

    def _secureon(self) -> str | None:
        if self._wol.secureon_file is None:
            return None
        path = self._folder / self._wol.secureon_file.expanduser()
        six = secret.read(path, what="SecureOn password").lower().replace("-", ":")
        if not magic.SIX.fullmatch(six):
            raise PowerError(
                "no-secret", f"what {path} holds is no SecureOn password", "it is written like a MAC address"
            )
        return six

    def _relayed(self, secureon: str | None, relay: Relay) -> str | None:
        """Let the other host send; return why it did not."""
        wol = self._wol
        order = {"mac": wol.mac, "broadcast": wol.broadcast, "port": wol.port, "secureon": secureon}
        try:
            said = relay(json.dumps(order).encode() + b"\n", self._relay_s)
        except HostError as error:
            return error.failure.reason
        try:
            answer = json.loads(said.stdout)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            return f"its agent ends with {said.status}"
        if isinstance(answer.get("sent"), int) and answer["sent"] > 0:
            return None
        return str(answer.get("failed", "it sent none"))[:200]

    def _send(self, secureon: str | None) -> None:
        wol = self._wol
        payload = wakeonlan.create_magic_packet(wol.mac if secureon is None else f"{wol.mac}/{secureon}")
        self._resolve()
        sent, reason = 0, "this machine is in no network"
        for way in ways(wol, self._networks(), self._known, _source(self._known)):
            try:
                sent += magic.send(payload, way.targets, out_of=way.out_of)
            except OSError as error:
                reason = error.strerror or str(error)
        if not sent:
            raise PowerError(
                "no-route",
                f"no packet could be sent: {reason}",
                "is the cable plugged in? `interface` and `broadcast` in the inventory say where to send",
                transient=True,
            )

    def _networks(self) -> list[magic.Network]:
        try:
            networks = magic.networks()
        except OSError as error:
            raise PowerError(
                "no-route", f"this machine's networks are unknown: {error.strerror}", "look at: ip -4 addr"
            ) from None
        wanted = self._wol.interface
        if wanted is not None and wanted not in {network.interface for network in networks}:
            raise PowerError(
                "no-route",
                f"the interface {wanted} of this machine has no network to send into",
                "`ip -4 addr` shows which have; is it up?",
                transient=True,
            )
        return networks

    def _resolve(self) -> None:
        """Learn the host's address, if that is quick; what was learnt stays."""
        if _is_ip(self._address):
            return

        def look() -> None:
            with contextlib.suppress(OSError):
                found = socket.getaddrinfo(self._address, None, socket.AF_INET, socket.SOCK_DGRAM)
                self._known = [str(entry[4][0]) for entry in found]

        thread = threading.Thread(target=look, name="resolve", daemon=True)
        thread.start()
        thread.join(RESOLVE_S)


class Way(NamedTuple):
    """Some targets, and the network to leave by (None: the routes know)."""

    out_of: magic.Network | None
    targets: list[magic.Target]


def ways(
    wol: WakeOnLan, networks: Sequence[magic.Network], known: Sequence[str], nearest: str | None
) -> list[Way]:
    """Return where packets for a host go.

    Args:
        wol: what the inventory says.
        networks: those of this machine.
        known: the host's addresses.
        nearest: the address of ours from which the host is reached.
    """
    ports = magic.PORTS if wol.port == magic.PORTS[0] else (wol.port,)
    here = [network for network in networks if wol.interface in (None, network.interface)]
    if wol.broadcast is not None and wol.broadcast != magic.EVERYWHERE:
        if ":" in wol.broadcast:
            raise PowerError("unsupported", "IPv6 knows no broadcast", "give an IPv4 address as `broadcast`")
        target = ipaddress.IPv4Address(wol.broadcast)
        out_of = next((network for network in here if target in network.whole), None)
        if out_of is None and wol.interface is not None:
            out_of = here[0]
        found = [Way(out_of, [(wol.broadcast, port) for port in ports])]
    else:
        if wol.interface is None:
            here = [
                network for network in here if network.address == nearest and _near(network, known)
            ] or here
        found = [Way(network, magic.everybody(network, ports)) for network in here]
    if wol.unicast:
        targets = [(address, port) for address in known for port in ports if ":" not in address]
        found.append(Way(None, targets))
    return [way for way in found if way.targets]


def _near(network: magic.Network, known: Sequence[str]) -> bool:
    return any(":" not in address and ipaddress.IPv4Address(address) in network.whole for address in known)


def _source(known: Sequence[str]) -> str | None:
    """Return the address of ours from which a host is reached; nothing is sent for that."""
    for address in known:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.connect((address, magic.PORTS[0]))
            return str(door.getsockname()[0])
    return None


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
