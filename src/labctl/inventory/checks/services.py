"""Services: do they refer to what is there, and can each have its port?"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from labctl.inventory.checks.finding import Finding, Where, each_host, missing, twice
from labctl.inventory.rack import Rack
from labctl.inventory.services import Engine, Ollama, each_engine

# A service NAME has the unit labctl-NAME.service and the folder /var/lib/labctl-NAME.
_OWN = {
    "agent": "/var/lib/labctl-agent belongs to the agent",
    "caps": "labctl-caps.service keeps the caps of the cards",
}


def services(rack: Rack) -> Iterator[Finding]:
    """Yield services of one name, and models and cards that they name and nobody has."""
    models = rack.models_by_name()
    for at, host in each_host(rack):
        yield from twice(
            ((*at, "services", index, "name"), service.name, "another service of this host")
            for index, service in enumerate(host.services)
        )
        cards = [name for gpu in host.gpus for name in gpu.refs]
        for index, service in enumerate(host.services):
            here = (*at, "services", index)
            if service.name in _OWN:
                reason = f"is a name of labctl's own: {_OWN[service.name]}"
                yield Finding((*here, "name"), reason, "choose another name")
            if isinstance(service, Ollama):
                yield from _absent(here, "models", "model", service.models, models)
            if isinstance(service, Engine) and service.port is None:
                yield Finding((*here, "port"), "is missing", "only an engine under LlamaSwap(...) has none")
            for below, engine in each_engine(service):
                if engine.model is not None and engine.model not in models:
                    yield missing((*here, *below, "model"), "model", engine.model, models)
                if below and engine.port is not None:
                    path = (*here, *below, "port")
                    yield Finding(path, "is given by llama-swap", "remove `port`, or say `start_port` there")
                if isinstance(engine, Engine):
                    where = (*here, *below)
                    yield from _absent(where, "gpus", "card of this host", engine.gpus, cards)


def _absent(
    at: Where, field: str, what: str, wanted: Iterable[str], known: Collection[str]
) -> Iterator[Finding]:
    for place, name in enumerate(wanted):
        if name not in known:
            yield missing((*at, field, place), what, name, known)


def _overlaps(one: str, other: str) -> bool:
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first == second or first.is_unspecified or second.is_unspecified


def ports(rack: Rack) -> Iterator[Finding]:
    """Yield ports that are taken, or that the firewall keeps closed to those whom they are meant for."""
    for at, host in each_host(rack):
        ssh = rack.ssh_for(host).port
        taken: list[tuple[str, int, str]] = [("0.0.0.0", ssh, "sshd")]
        for index, service in enumerate(host.services):
            if service.port is None:
                continue
            path = (*at, "services", index, "port")
            owner = next(
                (who for ip, port, who in taken if port == service.port and _overlaps(ip, service.listen)),
                None,
            )
            if owner:
                yield Finding(path, f"port {service.port} is taken already by {owner}", "choose another port")
            taken.append((service.listen, service.port, f"service {service.name}"))
            outside = not ipaddress.ip_address(service.listen).is_loopback
            if outside and service.port not in host.open_ports:
                yield Finding(
                    path,
                    f"listens on {service.listen}, but the firewall keeps port {service.port} closed",
                    f'add {service.port} to `open_ports` of the host, or listen on "127.0.0.1"',
                )
