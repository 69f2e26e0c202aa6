"""A rack with cards, hosts that play the agent's part, and labctl powercap run against them in process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labctl import wiring
from labctl.cli.main import main
from labctl.domain.failures import Failure, HostError
from labctl.ports import Said

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIIiI3TA0PgHfAVdEoPOZPTLZFzMDVGXGUPmFaAAu2uf8"
UUIDS = [f"GPU-1111111{n}-2222-3333-4444-555555555555" for n in range(4)]
OFF = Failure("timeout", "10.0.0.9:22 did not answer within 10 s", "is it switched on?", unreachable=True)

RACK = f'''\
from labctl.inventory import Gpu, Host, Rack

rack = Rack(name="desk", hosts=[
    Host(name="rig", address="10.0.0.1", roles=["gpu"], cap_w=245, cap_reason="circuit", gpus=[
        Gpu(model="RTX 3090", slot="slot0", uuid="{UUIDS[0]}"),
        Gpu(model="RTX 3090", slot="slot1", uuid="{UUIDS[1]}", pci="0000:3b:00.0"),
    ]),
    Host(name="big", address="10.0.0.2", roles=["gpu"], gpus=[Gpu(model="RTX 5090", slot="slot0")]),
    Host(name="mix", address="10.0.0.3", gpus=[
        Gpu(model="RX 7900 XTX", slot="slot0", pci="0000:03:00.0"),
        Gpu(model="Radeon 8060S", slot="igpu"),
    ]),
    Host(name="spark", address="10.0.0.4", gpus=[Gpu(model="GB10", slot="soc")]),
    Host(name="nas", address="10.0.0.5", roles=["storage"]),
])
globals().update(rack.groups())
'''

NO_CARDS = """\
from labctl.inventory import Host, Rack

rack = Rack(name="desk", hosts=[Host(name="nas", address="10.0.0.5", roles=["storage"])])
globals().update(rack.groups())
"""


@dataclass(frozen=True)
class Asked:
    """One call that reached a host."""

    host: str
    argv: tuple[str, ...]
    root: bool
    stdin: bytes

    @property
    def order(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdin)
        return found


Play = Callable[[Asked], Said]


def card(slot: str, status: str, before: float | None = 350, after: float | None = 200, **more: Any) -> Any:
    """Return a card as the agent tells of it, by default one of the rig."""
    return {
        "slot": slot, "vendor": "nvidia", "uuid": UUIDS[int(slot[-1])], "pci": None,
        "name": "NVIDIA GeForce RTX 3090", "status": status,
        "before_w": before, "after_w": after, "min_w": 100, "max_w": 350, "default_w": 350,
        "declared_w": None, "declared_reason": None, "why": "", "hint": "",
        "clocks_before": None, "clocks_after": None, **more,
    }  # fmt: skip


def radeon(status: str, **more: Any) -> Any:
    """Return the card of mix that has a cap."""
    return card(
        "slot0", status, vendor="amd", uuid=None, pci="0000:03:00.0", name="AMD Radeon RX 7900 XTX", **more
    )


def geforce(status: str, **more: Any) -> Any:
    """Return the card of big."""
    return card("slot0", status, uuid=UUIDS[3], name="NVIDIA GeForce RTX 5090", **more)


def says(*cards: Any, findings: Sequence[Any] = (), status: int = 0) -> Play:
    document = {"format": 1, "cards": list(cards), "findings": list(findings), "until": None}
    return lambda asked: Said(status, json.dumps(document).encode(), "")


def fails(failure: Failure) -> Play:
    def play(asked: Asked) -> Said:
        raise HostError(failure)

    return play


@dataclass
class Hosts:
    """The port ``Remote``, played; a host without a play is switched off."""

    plays: dict[str, Play] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def run(
        self,
        host: str,
        data: Mapping[str, Any],
        argv: Sequence[str],
        *,
        root: bool,
        stdin: bytes,
        deadline_s: float,
    ) -> Said:
        call = Asked(host, tuple(argv), root, stdin)
        self.asked.append(call)
        return self.plays.get(host, fails(OFF))(call)

    def stop(self) -> None:
        self.plays = {}

    def orders(self) -> dict[str, dict[str, Any]]:
        """Return the order that each host got."""
        return {call.host: call.order for call in self.asked if call.stdin}


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything that was said, with single spaces."""
        return " ".join((self.out + self.err).split())


@dataclass
class Bench:
    """A folder with the rack, the hosts, and the command."""

    folder: Path
    hosts: Hosts
    call: Callable[[Sequence[str]], Done]

    def powercap(self, *args: str) -> Done:
        return self.call(("powercap", *args))


def bench_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rack: str = RACK
) -> Bench:
    """Return a bench with that rack file, whose hosts are all enrolled."""
    inventory = folder / "inventory"
    inventory.mkdir()
    (inventory / "rack.py").write_text(rack)
    (inventory / "known_hosts").write_text("".join(f"10.0.0.{n} ssh-ed25519 {KEY}\n" for n in range(1, 6)))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LABCTL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("LABCTL_STATE", str(folder / "state"))
    hosts = Hosts()
    monkeypatch.setattr(wiring, "remote", lambda: hosts)

    def call(args: Sequence[str]) -> Done:
        code = main(args)
        said = capsys.readouterr()
        assert "bug in labctl" not in said.err, said.err
        return Done(code, said.out, said.err)

    return Bench(folder, hosts, call)
