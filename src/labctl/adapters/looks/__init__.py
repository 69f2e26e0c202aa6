"""Look at a host from outside, in four ways, without logging in and without waking it.

======= =============================== ================================== ==================================
look    ON                              DARK                               UNCLEAR
======= =============================== ================================== ==================================
ssh     its port connects or refuses    nothing answers, "no route"        we have no network; a firewall of
                                                                           ours; its name is unknown
ping    it echoes                       no echo                            we may not ask
arp     it confirmed its MAC since we   it does not say its MAC            it is behind a router; its MAC is
        began to look                                                      only remembered from before; it
                                                                           says its MAC and nothing else
power   a meter sees it work            no power, or a meter sees no more  a BMC or plug without a meter says
                                        than a machine that is off draws   "on"; there is no such back-end
======= =============================== ================================== ==================================

How signs are to be weighed. One DARK alone is worth little: an sshd can hang, a firewall can swallow, and all
three looks over the network fail together when a switch between does. So DARK counts from two signs on, in
two looks one after the other, and after the host itself said that it was going; the meter is the only one
that says something by itself. Any ON counts against that, so none is said lightly. Many cards answer ARP
while their host sleeps (protocol offload), and Linux remembers a MAC for a minute: a MAC that is only
remembered is UNCLEAR, and so is one that is said by a host whose ssh and ping are silent, for a kernel that
runs answers one of them unless its firewall swallows both. A card that even answers ping is rare; such a host
cannot be seen to sleep before its offload is switched off. ssh never lies in that direction: no card
completes a TCP handshake. When our own cable is out, nothing that we fail to hear means anything: then all
looks over the network are UNCLEAR.

A look sends a TCP connection attempt, echo requests and what ARP these cause. They wake a host only if its
card is armed for more than magic packets (``ethtool``: ``Wake-on: u`` or ``a``); labctl arms ``g`` alone.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.adapters.looks import neighbours
from labctl.adapters.looks.echo import Echo
from labctl.agent import magic
from labctl.domain.sleep.terms import Sign
from labctl.ports.power import Switch

_ECHOES = 3
_ALIVE = frozenset({0, errno.EISCONN, errno.ECONNREFUSED, errno.ECONNRESET})
_GONE = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT})
_ADDRESSES_6 = Path("/proc/thread-self/net/if_inet6")


@dataclass(frozen=True, slots=True)
class Target:
    """A host to look at: its address, the port of its sshd, and what sees its power."""

    address: str
    ssh_port: int = 22
    power: Switch | None = None


class Views:
    """The port ``Looks``; any thread may call it, and a host costs one thread where its power is asked."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        """Look at nothing yet; targets by the host's name."""
        self._targets = targets
        self._known: dict[str, str] = {}
        self._asking: dict[str, threading.Thread] = {}

    def signs(self, host: str, *, deadline_s: float) -> Mapping[str, Sign]:
        """Return what each look says; whatever goes wrong is UNCLEAR."""
        until = time.monotonic() + deadline_s
        target = self._targets[host]
        found = dict.fromkeys(("ssh", "ping", "arp", "power"), Sign.UNCLEAR)
        power = _Power(target.power)
        asking = self._in_background(f"power {host}", power.ask) if target.power is not None else None
        with contextlib.suppress(Exception):  # a look that breaks has seen nothing
            address = self._address(target.address, until)
            if address is not None and _we_are_connected(address):
                found |= _Look(address, target.ssh_port, until).signs()
        if asking is not None:
            asking.join(max(until - time.monotonic(), 0))
            found["power"] = power.sign
        return found

    def _address(self, name: str, until: float) -> str | None:
        """Return the host's IP address; one that was found once is kept for when nobody knows it."""
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(name))

        def look() -> None:
            with contextlib.suppress(OSError):
                self._known[name] = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])

        thread = self._in_background(f"name {name}", look)
        if thread is not None:
            thread.join(max((until - time.monotonic()) / 2, 0))
        return self._known.get(name)

    def _in_background(self, what: str, work: object) -> threading.Thread | None:
        """Start what may hang; None while it still hangs from the last time."""
        if (before := self._asking.get(what)) is not None and before.is_alive():
            return None
        assert callable(work)
        thread = threading.Thread(target=work, name=what, daemon=True)
        self._asking[what] = thread
        thread.start()
        return thread


class _Power:
    """What a back-end says of a host's power."""

    def __init__(self, switch: Switch | None) -> None:
        self._switch = switch
        self.sign = Sign.UNCLEAR

    def ask(self) -> None:
        if self._switch is None:
            return
        with contextlib.suppress(Exception):  # also what a back-end does wrong is no sign of life or death
            said = self._switch.power()
            # A sleeping host has power too; only a meter tells it from one that works.
            if said == "off":
                self.sign = Sign.DARK
            elif said == "on" and self._switch.has_meter:
                self.sign = Sign.ON


class _Look:
    """The looks over the network at one address, all at once."""

    def __init__(self, address: str, port: int, until: float) -> None:
        self._address = address
        self._port = port
        self._began = time.monotonic()
        self._until = until
        self._found: dict[str, Sign] = {}
        self._hears_neighbours = _own_network(address) is not None

    def signs(self) -> Mapping[str, Sign]:
        """Return what they say when all have, or when the time is over."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        with (
            selectors.DefaultSelector() as selector,
            socket.socket(family, socket.SOCK_STREAM) as door,
            contextlib.closing(Echo(self._address)) as echo,
        ):
            self._knock(door)
            self._call(echo)
            if "ssh" not in self._found:
                selector.register(door, selectors.EVENT_WRITE, "ssh")
            if "ping" not in self._found:
                assert echo.socket is not None
                selector.register(echo.socket, selectors.EVENT_READ, "ping")
            self._wait(selector, door, echo)
        for name in ("ssh", "ping"):
            self._found.setdefault(name, Sign.DARK)  # asked, and silent to the end
        self._ask_neighbours()
        if self._found["ssh"] is self._found["ping"] is Sign.DARK and self._found["arp"] is Sign.ON:
            self._found["arp"] = Sign.UNCLEAR  # a card can do that alone
        return self._found

    def _wait(self, selector: selectors.BaseSelector, door: socket.socket, echo: Echo) -> None:
        step = max((self._until - self._began) / _ECHOES, 0.001)
        again = self._began + step
        while {"ssh", "ping"} - self._found.keys():
            now = time.monotonic()
            if now >= self._until:
                return
            if now >= again:
                again += step
                if "ping" not in self._found:
                    self._call(echo)
                continue
            for key, _ in selector.select(max(min(again, self._until) - now, 0)):
                sign = self._knocked(door) if key.data == "ssh" else self._echoed(echo)
                if sign is not None:
                    self._found[key.data] = sign
                    selector.unregister(key.fileobj)

    def _knock(self, door: socket.socket) -> None:
        door.setblocking(False)
        code = door.connect_ex((self._address, self._port))
        if code != errno.EINPROGRESS:
            self._found["ssh"] = _meaning(code)

    def _knocked(self, door: socket.socket) -> Sign:
        return _meaning(door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _call(self, echo: Echo) -> None:
        try:
            echo.send()
        except OSError as error:
            # Who is told "no route" by its own kernel has asked the neighbours already, in vain.
            self._found["ping"] = Sign.DARK if error.errno in _GONE else Sign.UNCLEAR

    def _echoed(self, echo: Echo) -> Sign | None:
        try:
            return Sign.ON if echo.heard() else None
        except OSError as error:
            return Sign.DARK if error.errno in _GONE else Sign.UNCLEAR

    def _ask_neighbours(self) -> None:
        self._found["arp"] = Sign.UNCLEAR
        if not self._hears_neighbours:
            return
        with contextlib.suppress(OSError):
            looked_s = time.monotonic() - self._began
            self._found["arp"] = neighbours.sign(neighbours.neighbour(self._address), looked_s)


def _meaning(code: int) -> Sign:
    """Return what the end of a connection attempt says of the other side."""
    if code in _ALIVE:
        return Sign.ON
    # Everything else is about us: no network, not allowed, no more sockets.
    return Sign.DARK if code in _GONE else Sign.UNCLEAR


def _own_address(address: str) -> str | None:
    """Return the address of ours from which another is reached; nothing is sent for that."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as door:
        try:
            door.connect((address, 9))
        except OSError:
            return None
        return str(door.getsockname()[0])


def _interface(own: str) -> tuple[str, ipaddress.IPv4Network | ipaddress.IPv6Network] | None:
    """Return the interface that has an address of ours, and its network."""
    if ":" not in own:
        for network in magic.networks():
            if network.address == own:
                return network.interface, network.whole
        return None
    wanted = ipaddress.IPv6Address(own.partition("%")[0])
    for line in _ADDRESSES_6.read_text().splitlines():
        digits, _, prefix, _, _, name = line.split()
        if ipaddress.IPv6Address(int(digits, 16)) == wanted:
            return name, ipaddress.IPv6Network((wanted, int(prefix, 16)), strict=False)
    return None


def _own_network(address: str) -> str | None:
    """Return the interface by which an address is a neighbour of ours, or None where a router is between."""
    own = _own_address(address)
    place = None if own is None else _interface(own)
    return place[0] if place is not None and ipaddress.ip_address(address) in place[1] else None


def _we_are_connected(address: str) -> bool:
    """Return False where we know that our own way to an address is out: no route, or no carrier."""
    own = _own_address(address)
    if own is None:
        return False
    place = _interface(own)
    if place is None:
        return True  # loopback, a tunnel: not known to be out
    try:
        return magic.is_connected(place[0])
    except OSError:  # it has just gone
        return False
