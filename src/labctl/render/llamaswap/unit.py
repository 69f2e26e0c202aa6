"""The unit that runs a llama-swap, and in it all of its engines.

Engines are its children: they share its user, its view of the cards and its credentials. ``-watch-config``
is not used: it reloads whenever the file changes, which stops every model, and tells nobody when it fails.
labctl reloads by ``systemctl reload``, a SIGHUP, and looks whether the new configuration came to be. The text
of the unit does not depend on the list of models, so that a change there is a reload and no restart.
"""

from __future__ import annotations

from labctl.inventory import Host, LlamaSwap, Rack
from labctl.render import places, units
from labctl.render.cluster import shared
from labctl.render.llamaswap.config import config


def llama_swap(rack: Rack, host: Host, wanted: LlamaSwap) -> units.Unit:
    """Return the unit of a llama-swap of ``host``.

    Raises:
        LabctlError: no build fits, or an engine asks for a card whose UUID is not known.
    """
    made = config(rack, host, wanted)
    program = places.program(rack, host, wanted)
    address = f"[{wanted.listen}]" if ":" in wanted.listen else wanted.listen
    argv = (program, "-config", made.path, "-listen", f"{address}:{wanted.port}")
    reads = {_root(path) for start in made.launches for path in start.reads if path.startswith("/")}
    sandbox = units.Sandbox(
        paths=(program, *sorted(reads)),
        gpu=units.has_gpu(host),
        jit=True,
        lock_memory=True,
        secrets=made.secrets,
        files=made.files,
        before=tuple(dict.fromkeys(step for start in made.launches for step in start.before)),
        marks=places.marks(rack, host, wanted),
        reloads=True,
        settings=shared(wanted),
    )
    return units.unit(wanted, f"llama-swap {wanted.name}", argv, sandbox)


def _root(path: str) -> str:
    """Return the first two parts of a path: the file system that must be there, whichever model is read."""
    return "/".join(path.split("/")[:3])
