"""Peers of a llama-swap: are they there, can they be reached, is each name one, and is the wait long enough?

A peer lists exactly the names that the other host's llama-swap serves, so none of them can be a model that is
not there. What can be wrong is that a name is on two of them: llama-swap then answers for neither, except by
``PEER/NAME``, unless a selector of that name says which is meant. A model of its own goes before a peer's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from labctl.inventory.checks.finding import ANY_PART, Finding, Where, missing
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import LlamaSwap
from labctl.inventory.swapping import Peer, Served, first_answer_s, seconds, served, swaps
from labctl.inventory.swapping import peers as peers_of


def askable(rack: Rack, mine: Sequence[Served], others: Sequence[Peer]) -> Collection[str]:
    """Return every name that a client may ask a llama-swap for, those with their peer in front included."""
    names = {name for one in mine for name in one.names}
    for peer in others:
        for name in (name for one in served(rack, peer.swap) for name in one.names):
            names |= {name, f"{peer.id}/{name}"}
    return names


def peers(at: Where, rack: Rack, host: Host, swap: LlamaSwap) -> Iterator[Finding]:
    """Yield what is wrong with the peers of the llama-swap at ``at``."""
    path = (*at, "peers")
    found = peers_of(rack, host, swap)
    if swap.peers == "rack":
        if not found:
            yield Finding(
                path, "no other host of this rack has a llama-swap with models", "remove it", ANY_PART
            )
    else:
        yield from _named(path, rack, host, swap.peers)
    for peer in found:
        if not peer.address:
            yield Finding(
                _place(path, swap, peer),
                f"{peer.swap.name} of {peer.host.name} listens on {peer.swap.listen}, out of reach",
                f'give it listen="0.0.0.0", an api_key, and open_ports=[{peer.swap.port}] to its host',
            )
    yield from _clashes(path, rack, swap, found)
    stated = seconds(swap.peer_timeout)
    for peer in found:
        needed = first_answer_s(rack, peer)
        if stated is not None and stated < needed:
            yield Finding(
                (*at, "peer_timeout"),
                f"gives {peer.id} up after {stated} s, but it may take {needed} s to wake and load",
                f'at least "{needed}s", or leave it out',
            )


def _named(at: Where, rack: Rack, host: Host, names: Sequence[str]) -> Iterator[Finding]:
    known = {other.name: other for other in rack.hosts}
    for place, name in enumerate(names):
        here = (*at, place)
        if name not in known:
            yield missing(here, "host", name, known)
        elif known[name] is host:
            yield Finding(here, "cannot be its own peer", "remove it")
        elif not any(one.models for _, one in swaps(known[name])):
            yield Finding(here, f"{name} has no llama-swap with models", "add one there, or remove it here")
        elif name in names[:place]:
            yield Finding(here, f"{name} is in the list already", "remove it")


def _place(at: Where, swap: LlamaSwap, peer: Peer) -> Where:
    return at if swap.peers == "rack" else (*at, swap.peers.index(peer.host.name))


def _clashes(at: Where, rack: Rack, swap: LlamaSwap, found: Sequence[Peer]) -> Iterator[Finding]:
    own = {name for one in served(rack, swap) for name in one.names}
    selectors = swap.settings.get("selectors")
    chosen = {str(name) for name in selectors} if isinstance(selectors, Mapping) else set()
    first: dict[str, Peer] = {}
    whole: dict[str, Peer] = {}
    for peer in found:
        for name in dict.fromkeys(name for one in served(rack, peer.swap) for name in one.names):
            if name in first and name not in own | chosen:
                yield Finding(
                    _place(at, swap, peer),
                    f"{name} is on {first[name].id} and on {peer.id}, so llama-swap would answer for neither",
                    f'say which is meant: settings={{"selectors": {{"{name}": {{"strategy": "pin", '
                    f'"targets": ["{first[name].id}/{name}", "{peer.id}/{name}"]}}}}}}',
                )
            first.setdefault(name, peer)
            full = f"{peer.id}/{name}"
            if full in own or full in chosen or full in whole:
                yield Finding(_place(at, swap, peer), f"{full} means two things", "rename one of them")
            whole[full] = peer
