"""What a host's agent is told of its host: ``/etc/labctl/agent.json``.

The host decides by itself whether it is in use, whether an order to sleep may be obeyed, and whether it works
after a wake. So all that it needs for that lies there, readable by root and the agent's user: which signals
count, which engines there are and where they answer, how it sleeps, what must be true before it serves,
and which certificates to watch. No secret is in it: keys are named by
their files, which the same two may read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labctl import render
from labctl.inventory import Host, LlamaServer, Ollama, Rack, Secret, Service
from labctl.inventory.idle import Signals
from labctl.inventory.services import Engine, Keyed
from labctl.render import agent_gate
from labctl.render.access import AGENT_USER
from labctl.render.engines.ollama import PORT
from labctl.render.expected import certificates
from labctl.render.units import unit_name

PATH = "/etc/labctl/agent.json"
KEYS = "/etc/labctl/agent-keys"
HOLDS = "/etc/labctl/holds"
RUN = "/run/labctl"
TMPFILES = "/etc/tmpfiles.d/labctl.conf"
RULES = "/etc/udev/rules.d/90-labctl-agent.rules"
FORMAT = 1
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key that the agent shows to an engine: the file on the host, and where its value is read."""

    path: str
    secret: Secret


def config(rack: Rack, host: Host) -> str:
    """Return the text of the file."""
    sections: dict[str, Callable[[Rack, Host], Any]] = {"sleep": agent_gate.sleep, "gate": agent_gate.gate}
    document = {
        "managed": render.HEADER,
        "format": FORMAT,
        "host": host.name,
        "ssh_ports": [rack.ssh_for(host).port],
        "signals": signals(host.idle.signals),
        "engines": [engine(service, at) for at, service in enumerate(host.services)],
        "health": {"certificates": list(certificates(rack, host))},
        **{name: section(rack, host) for name, section in sections.items()},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def signals(wanted: Signals) -> dict[str, Any]:
    """Return which signals count, as the agent reads it: times in seconds."""
    found = wanted.model_dump(mode="json", exclude={"timers_within"})
    return {**found, "timers_within_s": wanted.timers_within.total_seconds()}


def engine(service: Service, order: int) -> dict[str, Any]:
    """Return a service as the agent knows it; ``order`` says which starts first, the lowest."""
    key = key_of(service)
    # An idle timer of its own takes questions for use in older versions of llama-server.
    timed = isinstance(service, LlamaServer) and service.sleep_idle_seconds is not None
    return {
        "service": service.name,
        "kind": service.kind,
        "unit": unit_name(service),
        "url": _url(service),
        "key_file": None if key is None else key.path,
        "order": order,
        "ask": not timed,
        "model": service.model if isinstance(service, Engine) else "",
    }


def keys(host: Host) -> tuple[Key, ...]:
    """Return the keys that the agent of a host needs."""
    return tuple(key for service in host.services if (key := key_of(service)) is not None)


def key_of(service: Service) -> Key | None:
    """Return the key of a service, None where it asks for none."""
    if not isinstance(service, Keyed) or service.api_key is None:
        return None
    return Key(f"{KEYS}/{service.name}", service.api_key)


def folders(host: Host) -> tuple[str, ...]:
    """Return the folders that are to be there, everybody's to read and root's to write."""
    return (RUN, f"{RUN}/holds", HOLDS, host.idle.signals.checks_dir)


def tmpfiles() -> str:
    """Return the text by which every boot makes the agent's folders below /run."""
    lines = (f"d {RUN} 0755 root root -", f"d {RUN}/holds 0755 root root -")
    return f"{render.HEADER}\n" + "".join(f"{line}\n" for line in lines)


def udev_rules() -> str:
    """Return the rules by which the agent's user may read the processor's energy, from the next boot on."""
    return render.text("agent.rules.j2", user=AGENT_USER)


def _url(service: Service) -> str:
    port = service.port
    if port is None and isinstance(service, Engine | Ollama):
        port = PORT
    if port is None:
        return ""
    address = _ANYWHERE.get(service.listen, service.listen)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
