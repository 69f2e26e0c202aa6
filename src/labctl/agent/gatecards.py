"""The gate's look at the cards: the driver's parts fit, every expected card answers, and computing works.

A card is known by its UUID, or by its PCI address where the rack file has no UUID; of cards with neither
there must be as many as expected. One in runtime suspend is woken to say who it is and whether it works: the
only look that does that. That the driver lists a card is not enough after a sleep, when the library
may fail to compute at all. So the engine's own program lists the devices that it can compute on, as the user
and with the variables of its unit, or PyTorch adds numbers up on each. The rack file may name a better test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import computing, kernel, report
from .calls import call
from .cards import survey
from .sections import HANG, Finding

Verdicts = tuple[list[str], list[str]]

_REPORT_S = 25.0
_COMMAND_S = 120.0
_DEVICE = re.compile(r"^\s+(?:CUDA|ROCm|HIP|Vulkan|SYCL|MUSA|CANN)\d+:", re.MULTILINE)
_TORCH = (
    "import torch\n"
    "count = torch.cuda.device_count()\n"
    "for at in range(count):\n"
    "    assert torch.ones(1024, device=f'cuda:{at}').sum().item() == 1024.0\n"
    "print('computed on', count)\n"
)
_COMPUTED = re.compile(r"^computed on (\d+)$", re.MULTILINE)


def driver(wanted: Mapping[str, Any], root: Path) -> Verdicts:
    """Return whether the NVIDIA driver's parts are there and of one version."""
    if not any(card["vendor"] == "nvidia" for card in wanted.get("gpus", ())):
        return [], []
    found = kernel.kernel(root)
    loaded, library, on_disk = found["nvidia_module"], found["nvidia_library"], found["nvidia_on_disk"]
    if loaded is None:
        return ["the NVIDIA driver is not loaded"], []
    if library is not None and library != loaded:
        return [f"the NVIDIA driver {loaded} is loaded and its library is {library}"], []
    if on_disk is not None and on_disk != loaded:
        return [], [f"the next boot loads the NVIDIA driver {on_disk} instead of {loaded}"]
    return [], []


def cards(wanted: Mapping[str, Any], root: Path) -> Verdicts:
    """Return whether every card of the rack file is here and well."""
    expected = wanted.get("gpus", ())
    if not expected:
        return [], []
    found = report.collect(_REPORT_S, root)
    broken = [
        f"{vendor}: {found['errors'][vendor]['what']}"
        for vendor in ("nvidia", "amd")
        if vendor in found["errors"] and any(card["vendor"] == vendor for card in expected)
    ]
    here = {vendor: (found.get(vendor) or {"gpus": []})["gpus"] for vendor in ("nvidia", "amd")}
    if any(one["asleep"] for one in here["nvidia"]):
        here["nvidia"] = _woken(here["nvidia"], root)
    unnamed: dict[str, int] = {}
    for card in expected:
        if card.get("uuid") or card.get("pci"):
            broken += _card(card, here[card["vendor"]])
        else:
            unnamed[card["vendor"]] = unnamed.get(card["vendor"], 0) + 1
    for vendor, count in unnamed.items():
        named = sum(1 for card in expected if card["vendor"] == vendor) - count
        well = sum(1 for one in here[vendor] if not one["code"]) - named
        if well < count:
            broken.append(f"there are {max(well, 0)} of {count} {vendor} cards that the rack file expects")
    return broken, []


def _woken(here: Sequence[Mapping[str, Any]], root: Path) -> list[Mapping[str, Any]]:
    """Return the cards with what those that slept say of themselves; AMD's do without being woken."""
    found = survey(root, wake=True)
    said: dict[str | None, dict[str, Any]] = {
        one.pci: {"code": one.code, "errors": {"card": one.what}} for one in found.silent
    }
    said |= {seen.card.pci: {"uuid": seen.card.uuid} for seen in found.seen}
    lost = {"code": HANG, "errors": {"card": "it does not wake from its runtime suspend"}}
    return [{**one, **said.get(one["pci"], lost)} if one["asleep"] else one for one in here]


def _card(card: Mapping[str, Any], here: Sequence[Mapping[str, Any]]) -> list[str]:
    name = card.get("uuid") or card["pci"]
    by_uuid = [one for one in here if _same(one.get("uuid") or one.get("unique_id"), card.get("uuid"))]
    by_place = [one for one in here if _same(one.get("pci"), card.get("pci"))]
    # A card that is lost says no UUID; then its place tells which it is.
    found = by_uuid or [one for one in by_place if not one.get("uuid") or not card.get("uuid")]
    if not found:
        return [f"card {name} is not here"]
    if found[0]["code"]:
        why = next(iter(found[0]["errors"].values()), found[0]["code"])
        return [f"card {name} does not work: {why}"]
    return []


def _same(one: Any, other: Any) -> bool:
    return bool(one) and bool(other) and str(one).lower() == str(other).lower()


# --- computing ---


def smoke(wanted: Mapping[str, Any], root: Path) -> Verdicts:
    """Return whether computing works, by the rack file's own test or by the engines' programs."""
    own = wanted.get("command", ())
    if own:
        done = call(*own, within_s=_COMMAND_S)
        return ([], []) if done.ok else ([f"the test of the cards failed: {own[0]}: {done.why}"], [])
    broken, notes = [], []
    for test in wanted.get("smoke", ()):
        verdict = _listed(test) if test["how"] == "list" else _summed(test, root)
        broken += verdict[0]
        notes += verdict[1]
    return broken, notes


def _run(test: Mapping[str, Any], *more: str) -> Any:
    return call(*test["argv"], *more, within_s=_COMMAND_S, env=test["env"], user=test["user"])


def _listed(test: Mapping[str, Any]) -> Verdicts:
    done = _run(test, "--list-devices")
    if not done.ok:
        return [f"{test['service']}: its program cannot list devices: {done.why}"], []
    return _enough(test, len(_DEVICE.findall(done.out)))


def _summed(test: Mapping[str, Any], root: Path) -> Verdicts:
    try:
        holders = computing.use(root).who
    except Finding as finding:
        return [f"whether a card is in use is not known: {finding}"], []
    if holders:
        # There may be no room beside an engine that runs already; that one has to answer a request.
        return [], [f"{test['service']}: computing was not tried beside {holders[0][1]}, which runs already"]
    done = _run(test, "-c", _TORCH)
    found = _COMPUTED.search(done.out)
    if not done.ok or found is None:
        return [f"{test['service']}: computing fails: {done.why}"], []
    return _enough(test, int(found[1]))


def _enough(test: Mapping[str, Any], count: int) -> Verdicts:
    if count >= test["cards"]:
        return [], []
    return [f"{test['service']}: its program finds {count} of {test['cards']} cards to compute on"], []
