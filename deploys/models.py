"""The files of the models that services of a host read, each checked before it takes its place.

Each is pinned by its sha256. A host fetches by itself what is missing there, from the rack's mirror or the
model's own address. Where `labctl models pull` has brought a file already, nothing is fetched and nothing is
hashed again.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Model, Rack, mirrors, wanted
from labctl.inventory.models import Placed
from labctl.inventory.secrets import value_of
from labctl.ops import download, files
from labctl.ops.facts import Look, Paths
from labctl.render import asked


@deploy("Models")
def models() -> None:
    """Have every file of every model that services of a host read."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    model_files(rack, spec)


def model_files(rack: Rack, spec: Host) -> None:
    """Fetch the models, each into its folder; a folder that is there already stays as it is."""
    placed = [(model, file) for model in wanted.fetched(rack, spec) for file in model.layout()]
    folders = sorted({str(Path(file.path).parent) for _, file in placed})
    there = host.get_fact(Paths, looks=[Look(folder, follow=True) for folder in folders]) if folders else []
    for folder, info in zip(folders, there, strict=True):
        if info.kind == "absent":
            files.directory(name=f"folder {folder}", path=folder)
    for model, file in placed:
        download.file(
            name=f"model {model.id} {file.name}" if model.files else f"model {model.id}",
            url=mirrors.of_model(rack, model, file),
            dest=file.path,
            sha256=file.sha256,
            size=file.size,
            pinned=asked.stated(host.data.get("places"), ("models", rack.models.index(model), "sha256")),
            token=token(model, file),
        )


def token(model: Model, file: Placed) -> str:
    """Return the token of a gated repository; nothing where the model has none, or none is needed for it."""
    if model.token is None or file.url.startswith("file:"):
        return ""
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent
    return value_of(model.token, folder, os.environ)


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    models()
