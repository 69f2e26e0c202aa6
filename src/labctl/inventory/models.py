"""Models: what the rack serves, from where the files come, and where they lie on hosts.

A model is one file or several, each pinned by its sha256. ``layout()`` is the one answer to the question of
what lies where: fetching, verifying, serving, estimating and collecting garbage all go by it.

- One file: give ``source`` and ``sha256``; ``path`` is that file.
- Several files (split GGUF, safetensors, a projector beside the weights): give ``files``; ``path`` is the
  folder, and ``source`` is the address of the folder that holds them.
- A file that lies on hosts already: ``source="/srv/models/x.gguf"``. labctl reads it and never writes it.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from labctl.inventory.fields import (
    BaseAddress,
    Bytes,
    FileName,
    Flag,
    HubRepo,
    HubRevision,
    MendableError,
    ModelId,
    RemotePath,
    Sha256,
    Text,
    source_or_path,
)
from labctl.inventory.secrets import Secret
from labctl.inventory.spec import Spec

MODELS_DIR = "/srv/models"
ModelKind = Literal["chat", "embedding", "rerank", "vision"]
ModelFormat = Literal["gguf", "safetensors", "exl3"]


class HuggingFace(Spec):
    """A repository of a Hugging Face hub at one revision."""

    repo: HubRepo = Field(description="Owner and name, such as Qwen/Qwen3-8B-GGUF.")
    revision: HubRevision = Field(description="Commit, tag or branch; a commit never moves.")
    endpoint: BaseAddress = Field(
        default="https://huggingface.co/",
        description="Address of the hub, or of a mirror that speaks like it.",
    )

    def address(self, name: str) -> str:
        """Return the address of one file of the repository."""
        return f"{self.endpoint.rstrip('/')}/{self.repo}/resolve/{self.revision}/{name}"


class ModelFile(Spec):
    """One file of a model of several files."""

    name: FileName = Field(description="Path within the model's folder, such as model-00001-of-00002.gguf.")
    sha256: Sha256 = Field(description="SHA-256 of the file.")
    size: Bytes | None = Field(
        default=None, description="Its size in bytes; checked against the disk before the first byte comes."
    )


ModelSource = Annotated[Text, AfterValidator(source_or_path)]


@dataclass(frozen=True, slots=True)
class Placed:
    """A file of a model: its name, its path on hosts, what pins it, and its address.

    ``url`` is "" for a file that lies on hosts already, which is never fetched; ``sha256`` may be None only
    then, or for a ``file:`` address. ``size`` is in bytes, None where the inventory does not say it.
    """

    name: str
    path: str
    sha256: str | None
    size: int | None
    url: str


class Model(Spec):
    """A model, and where its files come from."""

    id: ModelId = Field(description="Name by which clients ask for it.")
    source: ModelSource | None = Field(
        default=None,
        description="Where it comes from: an https:// address, file:///path on the host, or the absolute "
        "path of what lies on hosts already. With `files`, the folder that holds them.",
    )
    hub: HuggingFace | None = Field(default=None, description="Where it comes from, instead of `source`.")
    sha256: Sha256 | None = Field(
        default=None, description="SHA-256 of the file; needed for anything that comes over the network."
    )
    file: FileName | None = Field(default=None, description="Name of the one file in the repository `hub`.")
    size: Bytes | None = Field(
        default=None,
        description="Size of the one file in bytes; from it follow checks of disks and timeouts.",
    )
    files: tuple[ModelFile, ...] = Field(default=(), description="Its files, where it has several.")
    path: RemotePath | None = Field(
        default=None,
        description="Where it lies on the host: the file, or the folder of `files`; default: "
        f"{MODELS_DIR}/ID/FILE.",
    )
    token: Secret | None = Field(
        default=None, description="Token of a gated repository; sent to the host of `source` and nobody else."
    )
    quantisation: Text | None = Field(default=None, description='How it is quantised, such as "Q4_K_M".')
    aliases: tuple[ModelId, ...] = Field(
        default=(), description="Other names by which clients may ask for it."
    )
    kind: ModelKind = Field(default="chat", description="What it is for.")
    mmproj: FileName | None = Field(
        default=None, description="Which of `files` is the projector of a vision model."
    )
    draft: ModelId | None = Field(
        default=None, description="Id of the smaller model that drafts tokens for it (speculative decoding)."
    )
    mtp: Flag = Field(default=False, description="Whether its own layers for several tokens at once draft.")

    @model_validator(mode="after")
    def _files_or_file(self) -> "Model":
        if self.files and any(one is not None for one in (self.sha256, self.file, self.size)):
            raise MendableError(
                "give either `files`, or `sha256` of the one file", "each file has its own sha256"
            )
        if (self.source is None) == (self.hub is None):
            raise MendableError(
                "give either `source` or `hub`", 'hub=HuggingFace(repo="...", revision="...")'
            )
        if self.hub is not None:
            if not self.files and self.file is None:
                raise MendableError("give `file` or `files`: which of the repository's", 'file="x.gguf"')
        elif self.file is not None:
            raise MendableError("`file` goes with `hub`", "put the file's name into `source`")
        if self.mmproj is not None and self.mmproj not in [one.name for one in self.files]:
            raise MendableError("`mmproj` must be the name of one of `files`", "add a ModelFile(...) for it")
        if (self.kind == "vision") != (self.mmproj is not None) and self.format == "gguf":
            raise MendableError(
                "a vision model needs `mmproj`, and only a vision model has one",
                'kind="vision", mmproj="..."',
            )
        if self.draft is not None and self.draft in (self.id, *self.aliases):
            raise MendableError("a model cannot draft for itself", "name the smaller model, or say mtp=True")
        return self

    @model_validator(mode="after")
    def _pinned(self) -> "Model":
        local = self.source is not None and self.source.startswith(("file:", "/"))
        if self.sha256 is None and not self.files and not local:
            raise ValueError("give `sha256`, since anything could come over the network")
        in_place = self.source is not None and self.source.startswith("/")
        if in_place and self.path not in (None, self.source):
            raise MendableError("lies at `source` already, so `path` cannot be elsewhere", "remove `path`")
        return self

    @property
    def in_place(self) -> bool:
        """Return whether the model lies on hosts already and is never fetched."""
        return self.source in (self.root, f"file://{self.root}")

    @property
    def format(self) -> ModelFormat:
        """Return in which format the weights are, by the name of the first file."""
        names = [one.name for one in self.files] or [self._only]
        if any(name.endswith(".gguf") for name in names):
            return "gguf"
        if not any("." in PurePosixPath(name).name for name in names):
            return "safetensors"  # a folder that lies on hosts already
        exl = self.quantisation is not None and "exl" in self.quantisation.lower()
        return "exl3" if exl else "safetensors" if any(n.endswith(".safetensors") for n in names) else "gguf"

    @property
    def root(self) -> str:
        """Return the path on hosts: of the one file, or of the folder that holds the files."""
        if self.path is not None:
            return self.path
        if self.source is not None and self.source.startswith("/"):
            return self.source
        folder = f"{MODELS_DIR}/{self.id.replace(':', '-')}"
        return folder if self.files else f"{folder}/{PurePosixPath(self._only).name}"

    @property
    def main(self) -> str:
        """Return what an engine is given: the first weight file of a GGUF, else the file or folder."""
        if self.files and self.format == "gguf":
            first = next(one for one in self.files if one.name != self.mmproj and one.name.endswith(".gguf"))
            return f"{self.root}/{first.name}"
        return self.root

    @property
    def mmproj_path(self) -> str | None:
        """Return where the projector lies on hosts, if there is one."""
        return None if self.mmproj is None else f"{self.root}/{self.mmproj}"

    def layout(self) -> tuple[Placed, ...]:
        """Return every file of the model and where it lies."""
        if not self.files:
            return (Placed(self._only, self.root, self.sha256, self.size, self._address(self._only)),)
        root, start = self.root, self._address("")
        return tuple(
            Placed(
                one.name, f"{root}/{one.name}", one.sha256, one.size, f"{start}{one.name}" if start else ""
            )
            for one in self.files
        )

    @property
    def _only(self) -> str:
        where = self.file if self.hub is not None else self.source
        return PurePosixPath((where or "").partition("?")[0]).name

    def _address(self, name: str) -> str:
        if self.in_place:
            return ""
        if self.hub is not None:
            return self.hub.address(name if self.files else self.file or name)
        source = self.source or ""
        return f"{source.rstrip('/')}/{name}" if self.files else source
