"""A host with fake cards below a folder of its own, for the tests of caps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_gpus import FakeNvml, MakeNvml
from labctl.agent import caps, capstate, capsteps, captimer
from labctl.domain import cap_json
from labctl.domain.capping import Declared
from labctl.lab.fake import boards

NOW = 1_800_000_000


class Box:
    """A host with fake cards below a folder of its own."""

    def __init__(self, root: Path, gpus: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.gpus, self._monkeypatch = root, gpus, monkeypatch
        self.timers: list[int | None] = []
        monkeypatch.setattr(captimer, "arm", lambda until, root: self.timers.append(until))
        self.at(NOW)
        self.boot("first")

    def at(self, now: int) -> None:
        """Set the host's clock."""
        self._monkeypatch.setattr(caps, "_now", lambda: now)
        self._monkeypatch.setattr(capsteps, "_now", lambda: now)

    def boot(self, boot_id: str) -> None:
        """Start the host anew, as far as it is told apart from before."""
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{boot_id}\n")

    def declare(self, *declared: Declared) -> None:
        path = self.root / capstate.DECLARED
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cap_json.declared_document(declared)))

    def order(self, **order: Any) -> dict[str, Any]:
        return caps.order({"format": 1, **order}, self.root)

    def apply(self) -> dict[str, Any]:
        return caps.apply(self.root)

    def show(self) -> dict[str, Any]:
        return caps.show(self.root)

    def step(self, because: str = "gpu2 wakes", **caps_w: int) -> dict[str, Any]:
        return capsteps.step({"caps_w": caps_w, "because": because}, self.root)

    def watts(self) -> list[float]:
        return [self.gpus.cap_w(index) for index in range(len(self.gpus.cards))]

    def file(self, name: str) -> Path:
        return self.root / "var/lib/labctl/caps" / name


MakeBox = Callable[..., Box]


def make_box(nvml: MakeNvml, folder: Path, monkeypatch: pytest.MonkeyPatch) -> MakeBox:
    """Return a maker of a host with these NVIDIA cards, which its PCI bus shows too."""

    def make(*models: str, driver: str | None = "580.95.05") -> Box:
        made = Box(folder / "box", nvml(*models, driver=driver), monkeypatch)
        for card in made.gpus.cards:
            device = made.root / "sys/bus/pci/devices" / card.pci
            device.mkdir(parents=True)
            (device / "vendor").write_text("0x10de\n")
            (device / "class").write_text("0x030000\n")
        return made

    return make


def capped(card: boards.Card, cap_w: int = 200, reason: str = "circuit", **more: Any) -> Declared:
    return Declared(**{"model": "RTX 3090", "uuid": card.uuid, "cap_w": cap_w, "reason": reason, **more})


def statuses(answer: dict[str, Any]) -> list[str]:
    return [card["status"] for card in answer["cards"]]


def codes(answer: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in answer["findings"]}
