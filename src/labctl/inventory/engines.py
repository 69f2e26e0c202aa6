"""Builds of engines, each pinned by version and sha256, that labctl installs side by side on hosts.

A build comes from ``url``, or from the rack's ``mirror`` (a folder by ``file://`` on the host, or by
http), in which a file is looked for by the last part of its address. What pins it is its sha256, so it does
not matter by which way it came. Installed builds lie below ``/opt/labctl/ENGINE[/BACKEND]/VERSION``, and
``current`` beside them is the one that services of that host run.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from labctl.inventory.fields import MendableError, RemotePath, Sha256, Source, Text, Version
from labctl.inventory.spec import Spec

Arch = Literal["x86_64", "aarch64"]
KNOWN_BAD = {
    ("litellm", "1.82.7"): "was published with malware that steals secrets (litellm_init.pth)",
    ("litellm", "1.82.8"): "was published with malware that steals secrets (litellm_init.pth)",
}


class Artifact(Spec):
    """A file to fetch, and what pins it."""

    url: Source = Field(description="Its address.")
    sha256: Sha256 = Field(description="SHA-256 of the file.")

    @property
    def name(self) -> str:
        """Return its file name, the last part of its address."""
        return self.url.partition("?")[0].rpartition("/")[2]


class Build(Spec):
    """What every build has."""

    version: Version = Field(description="Its version, as its maker spells it.")
    arch: Arch = Field(default="x86_64", description="Processor it is for, as `uname -m` prints it.")


class LlamaCpp(Build):
    """A release of llama.cpp for one backend; bNNNNN tags carry binaries, vX.Y.Z tags do not."""

    kind: Literal["llama.cpp"] = Field(default="llama.cpp", description="Always ``llama.cpp``.")
    backend: Literal["cpu", "cuda", "vulkan", "rocm"] = Field(description="What it computes with.")
    cuda: Annotated[Text, Field(pattern=r"^\d{2}\.\d$")] | None = Field(
        default=None, description='CUDA release it was built with, such as "12.8"; 13 needs compute 7.5.'
    )
    archive: Artifact = Field(description="Its archive (.tar.gz).")
    runtime: Artifact | None = Field(default=None, description="CUDA's libraries for it (cudart-...).")

    @model_validator(mode="after")
    def _cuda_says_which(self) -> "LlamaCpp":
        if (self.backend == "cuda") != (self.cuda is not None):
            raise MendableError("a CUDA build says its CUDA release, and only it", 'cuda="12.8"')
        return self


class LlamaSwapBuild(Build):
    """A release of llama-swap, 250 or newer."""

    kind: Literal["llama-swap"] = Field(default="llama-swap", description="Always ``llama-swap``.")
    archive: Artifact = Field(description="Its archive (.tar.gz).")


class OllamaBuild(Build):
    """A release of Ollama."""

    kind: Literal["ollama"] = Field(default="ollama", description="Always ``ollama``.")
    archive: Artifact = Field(description="Its archive (.tar.zst or .tgz).")
    rocm: Artifact | None = Field(default=None, description="Its addition for AMD cards.")


class BinaryBuild(Build):
    """A release of a gateway: one program, or an archive that holds it."""

    kind: Literal["bifrost", "olla"] = Field(description="Which gateway.")
    archive: Artifact = Field(description="The program or its archive.")


class PythonEnv(Build):
    """A virtual environment that uv makes from a requirements file with a hash for every package."""

    kind: Literal["vllm", "sglang", "tabbyapi", "litellm", "ray"] = Field(description="What it is for.")
    requirements: Path = Field(
        description="Requirements file with hashes, relative to the rack file's folder (`uv pip compile "
        "--generate-hashes`)."
    )
    uv: Artifact = Field(description="The archive of the uv that makes it.")
    python: RemotePath = Field(default="/usr/bin/python3", description="The host's Python to make it with.")
    index: Source | None = Field(default=None, description="Package index; default: uv's own.")
    wheels: Source | None = Field(
        default=None, description="A folder of wheels instead of an index: file:///... on the host, or http."
    )
    archive: Artifact | None = Field(
        default=None, description="Source archive of what is on no index (TabbyAPI)."
    )

    @model_validator(mode="after")
    def _not_known_bad(self) -> "PythonEnv":
        if reason := KNOWN_BAD.get((self.kind, self.version)):
            raise MendableError(f"{self.kind} {self.version} {reason}", "pin another version")
        return self


EngineBuild = Annotated[
    LlamaCpp | LlamaSwapBuild | OllamaBuild | BinaryBuild | PythonEnv, Field(discriminator="kind")
]
