"""The rack's wires: a bridge in the sandbox, and one cable from it to each host.

Each host has a network namespace with one end of a veth pair as its ``eth0``; the other end hangs on the
bridge. The namespace is made anew for every boot, as a real reboot forgets firewall rules and added
addresses, and a cut cable stays cut meanwhile. Pulling a cable sets the bridge's end down: packets vanish
both ways and nobody is told. The same is done while a host sleeps or is off, when its cable is dark.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.commands import attempt, run
from labctl.lab.spec import LabHost, LabSpec

BRIDGE = "br0"


@dataclass(frozen=True, slots=True)
class Slowness:
    """How slow a cable is: milliseconds added to each round trip, kilobits a second in each direction."""

    delay_ms: int = 0
    rate_kbit: int = 0


@dataclass(slots=True)
class Cable:
    """The cable of one host; ``index`` numbers it, since interface names are too short for host names."""

    host: LabHost
    index: int
    prefix: int
    gateway: str
    is_cut: bool = False
    is_dark: bool = False
    slowness: Slowness = field(default_factory=Slowness)

    @property
    def port(self) -> str:
        """Return the name of the bridge's end."""
        return f"v{self.index}"

    @property
    def namespace(self) -> Path:
        """Return the path of the host's network namespace."""
        return Path("/run/netns", self.host.name)

    def renew(self) -> None:
        """Make the host's network namespace and cable anew, for a host that is being switched on."""
        self.remove()
        self.is_dark = False
        name = self.host.name
        run("ip", "netns", "add", name)
        _batch(
            f"link add {self.port} type veth peer name eth0 address {self.host.mac} netns {name}",
            f"link set {self.port} master {BRIDGE} {'down' if self.is_cut else 'up'}",
        )
        _batch(
            "link set lo up",
            f"addr add {self.host.address}/{self.prefix} brd + dev eth0",
            "link set eth0 up",
            f"route add default via {self.gateway}",
            namespace=name,
        )
        self._apply_slowness()

    def remove(self) -> None:
        """Remove cable and namespace where they exist."""
        if self.namespace.exists():
            attempt("ip", "link", "delete", self.port)
            attempt("ip", "netns", "delete", self.host.name)

    def cut(self, *, is_cut: bool) -> None:
        """Pull the cable, or plug it in again."""
        self.is_cut = is_cut
        if self.namespace.exists():
            run("ip", "link", "set", self.port, "down" if is_cut or self.is_dark else "up")

    def darken(self, *, is_dark: bool) -> None:
        """Let no packet of the host through, since it sleeps or is off, or let them through again.

        The kernel of the machine answers pings and ARP for a host whose processes all stand still.
        """
        self.is_dark = is_dark
        if self.namespace.exists():
            attempt("ip", "link", "set", self.port, "down" if self.is_cut or is_dark else "up")

    def slow(self, slowness: Slowness) -> None:
        """Make the cable slow in both directions; ``Slowness()`` makes it fast again.

        Raises:
            LabctlError: a delay is asked for and this kernel can't delay packets.
        """
        before, self.slowness = self.slowness, slowness
        try:
            self._apply_slowness()
        except LabctlError:
            self.slowness = before
            raise

    def _ends(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """Return both ends: how tc is called there, and the interface."""
        return (("tc",), self.port), (("tc", "-n", self.host.name), "eth0")

    def _apply_slowness(self) -> None:
        for where, device in self._ends():
            attempt(*where, "qdisc", "delete", "dev", device, "root")
            if self.slowness == Slowness():
                continue
            done = attempt(*where, "qdisc", "add", "dev", device, "root", *_discipline(self.slowness))
            if done.returncode:
                kind = "sch_netem" if self.slowness.delay_ms else "sch_tbf"
                raise LabctlError(
                    f"this kernel can't make a link that slow: it lacks {kind}",
                    hint="give a rate without a delay" if self.slowness.delay_ms else f"modprobe {kind}",
                    host=self.host.name,
                )


class TapCable(Cable):
    """The cable of a virtual machine: a tap on the bridge, which stays over boots."""

    def renew(self) -> None:
        """Make the cable, unless it is there."""
        if attempt("ip", "link", "show", self.port).returncode:
            _batch(f"tuntap add dev {self.port} mode tap", f"link set {self.port} master {BRIDGE}")
        self.cut(is_cut=self.is_cut)

    def remove(self) -> None:
        """Remove it."""
        attempt("ip", "link", "delete", self.port)

    def cut(self, *, is_cut: bool) -> None:
        """Pull the cable, or plug it in again."""
        self.is_cut = is_cut
        run("ip", "link", "set", self.port, "down" if is_cut else "up")

    def darken(self, *, is_dark: bool) -> None:
        """Do nothing: nobody answers for a machine with a kernel of its own."""

    def _ends(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        return ((("tc",), self.port),)


def lay_bridge(spec: LabSpec) -> None:
    """Create the bridge with the gateway's address, in a namespace that forwards nothing."""
    _batch(
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0",
        f"link set {BRIDGE} up",
        f"addr add {spec.gateway}/{spec.network.prefixlen} brd + dev {BRIDGE}",
    )
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


def cables(spec: LabSpec) -> dict[str, Cable]:
    """Return a cable for each host; nothing is created."""
    gateway, prefix = str(spec.gateway), spec.network.prefixlen
    kinds = {"nspawn": Cable, "qemu": TapCable}
    return {
        host.name: kinds[host.machine](host, index, prefix, gateway) for index, host in enumerate(spec.hosts)
    }


def lay_uplink(spec: LabSpec, sandbox: int) -> None:
    """Connect the machine's own namespace with the bridge in the sandbox, whose first process is given."""
    name = spec.uplink_interface
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", str(sandbox))
    run("nsenter", "--target", str(sandbox), "--net", "ip", "link", "set", "uplink", "master", BRIDGE, "up")
    _batch(f"addr add {spec.uplink}/{spec.network.prefixlen} brd + dev {name}", f"link set {name} up")


def _discipline(slowness: Slowness) -> tuple[str, ...]:
    rate = ("rate", f"{slowness.rate_kbit}kbit") if slowness.rate_kbit else ()
    if slowness.delay_ms:
        return ("netem", "delay", f"{slowness.delay_ms / 2:g}ms", *rate)
    return ("tbf", *rate, "burst", "16kb", "latency", "400ms")


def _batch(*lines: str, namespace: str = "") -> None:
    where = ("-n", namespace) if namespace else ()
    run("ip", *where, "-batch", "-", stdin="\n".join(lines) + "\n")
