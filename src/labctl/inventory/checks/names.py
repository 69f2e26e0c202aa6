"""What must be one of its kind across the rack: hosts, circuits, models, addresses and files of models."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from labctl.inventory.checks.finding import Finding, Where, each_host, twice
from labctl.inventory.rack import Rack
from labctl.inventory.wake import WakeOnLan


def names(rack: Rack) -> Iterator[Finding]:
    """Yield hosts, circuits and models whose name another one has."""
    yield from twice(((*at, "name"), host.name, "another host") for at, host in each_host(rack))
    for field, things in (("circuits", rack.circuits), ("models", rack.models)):
        label = "id" if field == "models" else "name"
        yield from twice(
            ((field, index, label), getattr(thing, label), f"another of {field}")
            for index, thing in enumerate(things)
        )


def addresses(rack: Rack) -> Iterator[Finding]:
    """Yield hosts that cannot be told apart: one address and port, or one network card."""
    yield from twice(
        ((*at, "address"), (host.address, rack.ssh_for(host).port), f"host {host.name}")
        for at, host in each_host(rack)
    )
    yield from twice(
        ((*at, "wake", "mac"), host.wake.mac, f"host {host.name}")
        for at, host in each_host(rack)
        if isinstance(host.wake, WakeOnLan)
    )


def models(rack: Rack) -> Iterator[Finding]:
    """Yield aliases and files of models that another model has."""

    def names() -> Iterator[tuple[Where, Hashable, str]]:
        for index, model in enumerate(rack.models):
            yield ("models", index, "id"), model.id, f"model {model.id}"
        for index, model in enumerate(rack.models):
            for place, alias in enumerate(model.aliases):
                yield ("models", index, "aliases", place), alias, f"model {model.id}"

    yield from (finding for finding in twice(names()) if finding.path[-1] != "id")
    yield from twice(
        (
            (("models", index, "path"), model.root, f"model {model.id}")
            for index, model in enumerate(rack.models)
        ),
        hint="two models cannot lie in one file",
    )
