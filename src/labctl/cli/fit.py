"""``labctl fit``: what models take of a host's memory, how fast they can be, and whether they fit together.

The answer rests on the rack file and on the headers of the models' files; a header is a few megabytes at
most, read where the model lies. Nothing is loaded, woken or changed.

``--json`` prints one document; fields may be added, and those here keep their names and meaning. Sizes are in
bytes, null where not known::

    {"ok": false,                      everything fits, as far as can be known
     "hosts": [{"host": "rig",
                "fits": false,         null: not known, or nothing is known of its memory
                "models": [{"model": "qwen", "service": "swap", "why_unknown": null,
                            "devices": [{"device": "slot0", "weights_bytes": 1, "cache_bytes": 1,
                                         "compute_bytes": 1, "other_bytes": 1, "total_bytes": 4,
                                         "usable_bytes": 25232932864}],
                            "context": 8192, "users": 1, "ceiling_tok_s": 43.1, "load_s": 12.0,
                            "estimated_bytes": 3, "measured_bytes": null, "error_percent": null,
                            "notes": []}],
                "sets": [{"title": "llama-swap matrix set big", "models": ["a", "b"], "fits": false,
                          "because": "...", "hint": "...", "used_bytes": {"slot0": 29313187840}}],
                "notes": ["..."]}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import wiring
from labctl.cli import completion, printer
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.inventory import LoadedRack, Model
    from labctl.inventory.fitting import HostFit
    from labctl.inventory.served import Loads

_MOST_PATH = 256  # longer words are no folder's name, and some systems refuse to look
_HELP = """\b
Examples:
  labctl fit                                   every host of the rack, and every set of llama-swap
  labctl fit qwen3-32b --host rig              one model on one host
  labctl fit qwen3-32b --ctx 65536 --users 4   with another context, for four users at a time
  labctl fit qwen3-32b --what-if "4x RTX 3090" on cards that you do not have yet
  labctl fit ./model.gguf --what-if "2x RTX 3090 + RTX 5090"
  labctl fit https://example.org/model.gguf --what-if "Strix Halo 128 GiB"
  labctl fit --measure --host rig              ask running engines what they really took
\b
Exit codes:
  0  it fits
  1  it does not fit, or whether it does is not known
  2  bad input
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, as it was typed."""

    words: tuple[str, ...]
    inventory: str | None
    host: str | None
    ctx: int | None
    users: int | None
    what_if: str | None
    measure: bool
    as_json: bool


@click.command(short_help="Show whether models fit, and how fast they can be.", epilog=_HELP)
@click.argument("words", metavar="[MODEL] [INVENTORY]", nargs=-1, shell_complete=completion.complete_models)
@click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
@click.option(
    "--host", metavar="HOST", shell_complete=completion.complete_hosts_alone, help="Only this host."
)
@click.option("--ctx", metavar="N", type=click.IntRange(1, 2**31 - 1), help="Context in tokens of each user.")
@click.option("--users", metavar="N", type=click.IntRange(1, 65536), help="Users at a time.")
@click.option("--what-if", metavar="CARDS", help='On other cards, such as "2x RTX 3090 + RTX 5090".')
@click.option("--measure", is_flag=True, help="Read what running engines took, and correct estimates by it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def fit(**given: object) -> int:
    """Show GiB on each GPU, the ceiling of speed, the time to load, and whether all that meets fits.

    MODEL is a model of the rack, or with --what-if also a GGUF file: a path or an https:// address. Without
    MODEL, all that the rack serves is shown. A model that HOST does not serve is tried there on all its
    cards, beside what is always loaded. INVENTORY is the rack file.
    """
    options = Options(**given)  # type: ignore[arg-type]
    model, inventory = _split(options)
    if options.what_if is not None and (options.host is not None or options.measure):
        raise LabctlError("--what-if goes without --host and --measure", hint="it makes up a host of its own")
    if options.what_if is not None and model is None:
        raise LabctlError("--what-if of which model?", hint='labctl fit MODEL --what-if "4x RTX 3090"')
    stranger = model is not None and _is_file(model)
    if stranger and options.what_if is None:
        raise LabctlError(f"{model} is a file, so on which cards?", hint='add --what-if "RTX 3090"')
    loaded = _no_rack() if stranger and inventory is None else _rack(inventory)
    if options.measure:
        from labctl.cli.fit_measure import measure

        measure(loaded, options.host)
    fits = _verdicts(loaded, model, options)
    from labctl.cli import fit_view

    if options.as_json:
        printer.emit_json(fit_view.document(fits))
    else:
        fit_view.show(fits)
    return ExitCode.OK if all(one.fits is True for one in fits) else ExitCode.HOST_FAILED


def _split(options: Options) -> tuple[str | None, str | None]:
    """Return the model and the rack file.

    Raises:
        LabctlError: there are too many words.
    """
    words = list(options.words)
    inventory = options.inventory
    if words and inventory is None and _is_rack(words[-1]):
        inventory = words.pop()
    if len(words) > 1:
        raise LabctlError(f"one model at a time, not {' and '.join(words)}", hint="see: labctl fit --help")
    return (words[0] if words else None), inventory


def _is_rack(word: str) -> bool:
    """Return whether a word means a rack file; folders may well be called as models are."""
    if word.endswith(".py"):
        return True
    return (
        len(word) < _MOST_PATH
        and Path(word).is_dir()
        and ("/" in word or word == "." or wiring.holds_inventory(Path(word)))
    )


def _is_file(model: str) -> bool:
    return model.startswith(("https://", "http://", "/", "./", "../", "~")) or model.endswith(".gguf")


def _rack(inventory: str | None) -> LoadedRack:
    from labctl.inventory import load_rack

    path = wiring.find_inventory(inventory)
    loaded = load_rack(path)
    completion.remember(path, (*loaded.host_data, *loaded.groups))
    return loaded


def _no_rack() -> LoadedRack:
    from labctl.inventory import LoadedRack, Rack

    return LoadedRack(Rack(name="none", hosts=()), Path("rack.py").absolute(), {}, {})


def _verdicts(loaded: LoadedRack, model: str | None, options: Options) -> list[HostFit]:
    from labctl.fitting import gate, store
    from labctl.inventory import fitting

    asked = fitting.Asked(options.ctx, options.users)
    known = store.load(wiring.state_home())
    hosts, wanted = _hosts(loaded, model, options)
    stranger = wanted is not None and wanted not in loaded.rack.models
    sizes = gate.sizes(loaded, hosts, lambda: wiring.shapes(loaded, keep=not stranger), known)
    found = [fitting.host_fit(loaded.rack, one, sizes, asked) for one in hosts]
    return found if wanted is None else [fitting.of_model(one, wanted.id) for one in found]


def _hosts(loaded: LoadedRack, model: str | None, options: Options) -> tuple[list[Loads], Model | None]:
    """Return which hosts to look at, and for which model (None: all).

    Raises:
        LabctlError: there is no such model or host.
    """
    from labctl.inventory import fitting, whatif
    from labctl.inventory.explain import did_you_mean

    rack = loaded.rack
    if options.host is not None and options.host not in loaded.host_data:
        hint = did_you_mean(options.host, list(loaded.host_data))
        raise LabctlError(f"there is no host called {options.host!r}", hint=hint)
    found = None if model is None else _model(loaded, model)
    if options.what_if is not None and found is not None:
        return [fitting.tried(rack, whatif.host(options.what_if), found)], found
    hosts = list(fitting.checked(rack, None if options.host is None else [options.host]))
    if found is None:
        return [one for one in hosts if one.served or one.refused or options.host is not None], None
    serving = [one for one in hosts if any(served.model.id == found.id for served in one.served)]
    if serving:
        return serving, found
    if options.host is not None:
        return [fitting.tried(rack, hosts[0].host, found, beside=hosts[0])], found
    raise LabctlError(f"no host serves {found.id}", hint=f"labctl fit {found.id} --host HOST tries it on one")


def _model(loaded: LoadedRack, wanted: str) -> Model:
    """Return a model of the rack, or one made of a file's address.

    Raises:
        LabctlError: there is none.
    """
    from labctl.inventory.explain import did_you_mean

    try:
        return loaded.rack.model(wanted)
    except KeyError:
        if _is_file(wanted):
            from labctl.fitting import strangers

            return strangers.model(wanted)
    names = [name for one in loaded.rack.models for name in (one.id, *one.aliases)]
    hint = did_you_mean(wanted, names) if names else "the rack has no models"
    raise LabctlError(f"there is no model called {wanted!r}", hint=hint)
