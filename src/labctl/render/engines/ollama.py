"""Ollama: everything by its environment; it has no flags.

Its options bear the names of its variables without ``OLLAMA_``, so a variable is the option in capitals.
Models of the rack are made known to it from the GGUF files where they lie, by one file of instructions each.
"""

from __future__ import annotations

from datetime import timedelta

from labctl.inventory import Host, Ollama, Rack
from labctl.render import HEADER, places
from labctl.render.engines.cards import visible
from labctl.render.engines.terms import ConfigFile, Launch, options, word

PORT = 11434
CONFIGS = "/etc/labctl/ollama"
_LABCTLS_OWN = ("models", "gpus", "version", "binary")


def ollama(rack: Rack, host: Host, wanted: Ollama, *, port: str, unit: str) -> Launch:
    """Return how Ollama is started."""
    program = places.program(rack, host, wanted)
    env = {
        "OLLAMA_HOST": address(wanted, port),
        "OLLAMA_MODELS": f"/var/lib/labctl-{unit}/models",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
    }
    for name, value in options(wanted, *_LABCTLS_OWN):
        env[f"OLLAMA_{name.upper()}"] = _value(value)
    models = tuple(map(rack.model, wanted.models))
    files = tuple(
        ConfigFile(
            f"{CONFIGS}/{unit}.{model.id.replace('/', '-').replace(':', '-')}",
            f"{HEADER}\nFROM {model.main}\n",
        )
        for model in models
    )
    reads = (program, *(model.main for model in models))
    return Launch((program, "serve"), {**env, **visible(host, wanted)}, reads, files=files)


def address(wanted: Ollama, port: str) -> str:
    """Return address and port as Ollama and its client take them."""
    return f"{f'[{wanted.listen}]' if ':' in wanted.listen else wanted.listen}:{port}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{word(value)}s" if isinstance(value, timedelta) else word(value)
