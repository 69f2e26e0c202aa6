"""What a person means by models and hosts, as files: where each lies, who wants it, what pins it.

A file is told by its path, which is the same on every host. `pull` without words means every file on every
host that needs it; a model and a host together mean that model there, whether something serves it or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from labctl.domain import limits
from labctl.domain.problem import LabctlError
from labctl.inventory import Host, LoadedRack, Model, Rack, mirrors, wanted
from labctl.inventory.clusters import network_of
from labctl.inventory.models import MODELS_DIR, Placed


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model: what pins it, where it comes from, and the hosts that want it."""

    model: Model
    placed: Placed
    urls: tuple[str, ...]
    hosts: tuple[str, ...]

    @property
    def path(self) -> str:
        """Return where it lies on every host."""
        return self.placed.path

    @property
    def called(self) -> str:
        """Return what to call it to a person: MODEL, or MODEL/FILE where a model has several."""
        return f"{self.model.id}/{self.placed.name}" if self.model.files else self.model.id


def files(rack: Rack) -> tuple[File, ...]:
    """Return every file of every model of the rack, with the hosts that need it."""
    needs = {host.name: {model.id for model in wanted.models(rack, host)} for host in rack.hosts}
    found: dict[str, File] = {}
    for model in rack.models:
        hosts = tuple(name for name, ids in needs.items() if model.id in ids)
        for placed in model.layout():
            found.setdefault(placed.path, File(model, placed, mirrors.of_model(rack, model, placed), hosts))
    return tuple(found.values())


def chosen_hosts(loaded: LoadedRack, words: Sequence[str]) -> tuple[str, ...]:
    """Return the hosts that the words mean, in the rack's order; all of them without any.

    Raises:
        LabctlError: a word fits no host.
    """
    return limits.select(tuple(host.name for host in loaded.rack.hosts), loaded.groups, words)


def chosen_models(rack: Rack, words: Sequence[str]) -> tuple[Model, ...]:
    """Return the models with those ids or aliases; all of them without any.

    Raises:
        LabctlError: there is no such model; a name that is close is told.
    """
    if not words:
        return rack.models
    found: dict[str, Model] = {}
    for word in words:
        try:
            model = rack.model(word)
        except KeyError:
            names = [name for one in rack.models for name in (one.id, *one.aliases)]
            close = get_close_matches(word, names, n=1)
            hint = f"did you mean {close[0]}?" if close else "labctl models ls shows them"
            raise LabctlError(f"the rack has no model {word!r}", hint=hint) from None
        found[model.id] = model
    return tuple(found.values())


def to_pull(loaded: LoadedRack, models: Sequence[str], hosts: Sequence[str]) -> tuple[File, ...]:
    """Return the files to bring, each with the hosts that shall have it.

    Raises:
        LabctlError: a word fits nothing, a model is not pinned, or there is nothing to bring at all.
    """
    rack = loaded.rack
    ids = {model.id for model in chosen_models(rack, models) if not model.in_place}
    there = chosen_hosts(loaded, hosts)
    found = []
    for file in files(rack):
        if file.model.id not in ids:
            continue
        targets = there if models and hosts else tuple(name for name in file.hosts if name in there)
        if targets:
            wanted.require_pinned(file.model)
            found.append(File(file.model, file.placed, file.urls, targets))
    if not found:
        raise LabctlError(
            "there is nothing to bring: no service of these hosts serves such a model",
            hint="labctl models ls shows who wants what; a model and --host together bring it anyway",
        )
    return tuple(found)


def folders(rack: Rack) -> tuple[tuple[str, bool], ...]:
    """Return the folders that are the models' own, each with whether what is below it counts, too.

    The folder of a single file that the inventory puts somewhere may be anything, so only itself counts.
    """
    found = {MODELS_DIR: True}
    for model in rack.models:
        if model.in_place or f"{model.root}/".startswith(f"{MODELS_DIR}/"):
            continue
        folder = model.root if model.files else model.root.rpartition("/")[0] or "/"
        found[folder] = found.get(folder, False) or bool(model.files)
    return tuple(found.items())


def common_network(one: Host, other: Host) -> bool:
    """Return whether two hosts have private addresses in the same network."""
    if one.private is None or other.private is None:
        return False
    return network_of(one.private) == network_of(other.private)
