"""Which cards of which hosts a person means by ``HOST``, ``GROUP`` and ``HOST/GPU``.

Nothing named means every host that has cards. A name that fits nothing is an error, never silently nothing. A
card is called by its slot, UUID or PCI address, and only by those that the inventory states: an index changes
with every boot that finds another card first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from labctl.domain import limits
from labctl.domain.capping import same, same_address
from labctl.domain.problem import LabctlError, Problem
from labctl.inventory import Gpu, Host, LoadedRack, Rack, profiles

_VENDORS = ("nvidia", "amd")


@dataclass(frozen=True, slots=True)
class Target:
    """Cards of one host; ``named``: the person named these cards, and not just their host."""

    host: Host
    gpus: tuple[Gpu, ...]
    named: bool = False


def name_of(gpu: Gpu) -> str:
    """Return what people call a card: its slot, else its PCI address, else its UUID."""
    return gpu.slot or gpu.pci or gpu.uuid or ""


def reference(gpu: Gpu) -> str:
    """Return by what a card is found on its host: its UUID, else PCI address, else slot."""
    return gpu.uuid or gpu.pci or gpu.slot or ""


def card_names(rack: Rack) -> tuple[str, ...]:
    """Return every card of the rack that can be named alone, as ``HOST/GPU``."""
    return tuple(
        f"{host.name}/{name_of(gpu)}"
        for host in rack.hosts
        for gpu in _cards(host)
        if profiles.is_told_apart(host, gpu)
    )


def choose(loaded: LoadedRack, words: Sequence[str]) -> tuple[Target, ...]:
    """Return the cards that the words mean, host by host in the rack's order.

    Raises:
        LabctlError: a word fits no host, or no card of its host; all such words are told.
    """
    whole: set[str] = set()
    single: dict[str, list[Gpu]] = {}
    problems: list[Problem] = []
    for word in words:
        place, slash, card = word.partition("/")
        if not place.strip():
            problems.append(Problem(f"{word!r} names no host", hint="leave it out to mean every card"))
            continue
        try:
            hosts = limits.select(tuple(loaded.host_data), loaded.groups, [place])
        except LabctlError as error:
            problems += (_nowhere(loaded.rack, place, one) for one in error.problems)
            continue
        cards = [host for host in map(loaded.rack.host, hosts) if _cards(host)]
        if not cards:
            problems.append(Problem(f"{place}: no card that labctl can cap is in the inventory"))
        for host in cards:
            if not slash:
                whole.add(host.name)
            elif (gpu := _card(host, card)) and profiles.is_told_apart(host, gpu):
                single.setdefault(host.name, []).append(gpu)
            elif gpu is not None:
                problems.append(_untold(host, gpu))
            else:
                problems.append(_unknown(host, card))
    if problems:
        raise LabctlError(problems)
    return tuple(_targets(loaded.rack.hosts, whole, single, every=not words))


def _targets(
    hosts: Iterable[Host], whole: set[str], single: dict[str, list[Gpu]], *, every: bool
) -> Iterable[Target]:
    for host in hosts:
        if every or host.name in whole:
            if cards := _cards(host):
                yield Target(host, cards)
        elif host.name in single:
            chosen = single[host.name]
            yield Target(host, tuple(gpu for gpu in host.gpus if gpu in chosen), named=True)


def _cards(host: Host) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in host.gpus if profiles.of(gpu).vendor in _VENDORS)


def _card(host: Host, called: str) -> Gpu | None:
    for gpu in _cards(host):
        if called == gpu.slot or same(called, gpu.uuid) or same_address(called, gpu.pci):
            return gpu
    return None


def _nowhere(rack: Rack, place: str, found: Problem) -> Problem:
    """Return the problem of a word that fits no host, in this command's words; it may be a card by itself."""
    where = [host.name for host in rack.hosts if _card(host, place)]
    hint = f"write the host in front of it: {where[0]}/{place}" if where else found.hint
    return replace(found, hint=hint)


def _untold(host: Host, gpu: Gpu) -> Problem:
    reason = f"nothing tells {gpu.slot} from the other {gpu.model}, so it could be any of them"
    hint = f"give it `pci` or `uuid` in the inventory; labctl powercap {host.name} shows them"
    return Problem(reason, hint=hint, host=host.name, field=gpu.slot or "")


def _unknown(host: Host, called: str) -> Problem:
    known = ", ".join(f"{name_of(gpu)} ({gpu.model})" for gpu in _cards(host))
    return Problem(f"it has no card {called!r}", hint=f"its cards: {known}", host=host.name)
