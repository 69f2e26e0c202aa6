"""Which of the rack's builds a service runs on its host.

The rule: a service that names a ``binary`` runs that and no build. Else it runs the build of its engine, of
the ``version`` that it names, for the host's processor; without ``version`` there must be one version only,
since a guess between two would change what runs when a third is added. llama.cpp is built for one backend at
a time, so there the host's cards decide: CUDA for NVIDIA, ROCm or Vulkan for AMD, the processor without any
card, unless ``backend`` of the host says it. Where an AMD host leaves it to ``auto`` and both builds are
declared, both are chosen, and which of them runs is found out by trying.

A CUDA build must fit the cards: CUDA 13 left Pascal and Volta behind (compute capability 7.5 is the least)
and needs driver 580; CUDA before 12.8 knows no Blackwell (NVIDIA's CUDA release notes). Of several that fit
the newest CUDA is taken. Nothing that does not fit is ever chosen, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.inventory import profiles
from labctl.inventory.accelerators import Gpu
from labctl.inventory.engines import Arch, EngineBuild, LlamaCpp, PythonEnv
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import Program, RayCluster, Vllm, each_engine

# Which kind of build a kind of service runs; what is not here is no engine that labctl installs.
BUILDS = {
    "llama-server": "llama.cpp",
    "rpc-server": "llama.cpp",
    "llama-swap": "llama-swap",
    "vllm": "vllm",
    "sglang": "sglang",
    "tabbyapi": "tabbyapi",
    "ollama": "ollama",
    "bifrost": "bifrost",
    "olla": "olla",
    "litellm": "litellm",
}
# Debian has these; of the others there is none on a host unless somebody brought it.
SYSTEM_PROGRAMS = {"llama-server": "/usr/bin/llama-server", "rpc-server": "/usr/bin/ggml-rpc-server"}
_LEAST_COMPUTE_OF_CUDA_13 = (7, 5)
_LEAST_DRIVER_OF_CUDA_13 = 580
_BLACKWELL = (10, 0)
_FIRST_CUDA_OF_BLACKWELL = (12, 8)


@dataclass(frozen=True, slots=True)
class Choice:
    """The build that a service runs; several where the host chooses between backends by trying."""

    builds: tuple[EngineBuild, ...]

    @property
    def build(self) -> EngineBuild:
        """Return the build, the first of several."""
        return self.builds[0]

    @property
    def tried(self) -> bool:
        """Return whether the host chooses by trying."""
        return len(self.builds) > 1


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why no build can be chosen, by which field of the service, and what would help."""

    reason: str
    hint: str
    field: str = "version"


def choose(rack: Rack, host: Host, wanted: Program) -> Choice | Unfit | None:
    """Return what ``wanted`` runs on ``host``; None where that is a program which labctl did not install."""
    service: str = getattr(wanted, "kind", "")
    kind = BUILDS.get(service)
    if kind is None or getattr(wanted, "binary", None) is not None:
        return None
    declared = [build for build in rack.engines if build.kind == kind]
    version: str | None = getattr(wanted, "version", None)
    if not declared and version is None and service in SYSTEM_PROGRAMS:
        return None
    named = [build for build in declared if version in (None, build.version)]
    if not named:
        return _absent(kind, version, declared)
    arch = arch_of(host)
    here = [build for build in named if build.arch == arch]
    if not here:
        others = sorted({build.arch for build in named})
        return Unfit(f"{host.name} is {arch}, and the builds of {kind} are for {', '.join(others)}", _ADD)
    found = _of_backend(host, wanted, here) if kind == "llama.cpp" else Choice(tuple(here))
    return found if isinstance(found, Unfit) else _only(kind, found)


_ADD = "add the build to `engines` of the rack"


def _absent(kind: str, version: str | None, declared: Sequence[EngineBuild]) -> Unfit:
    if version is None:
        return Unfit(f"there is no build of {kind} in `engines` of the rack", f"{_ADD}, or say `binary`", "")
    known = ", ".join(sorted({build.version for build in declared})) or "none"
    return Unfit(
        f"there is no build of {kind} called {version} in `engines` of the rack", f"there is: {known}"
    )


def _only(kind: str, found: Choice) -> Choice | Unfit:
    """Return the choice if it is of one version, and of one build unless the host tries."""
    versions = sorted({build.version for build in found.builds})
    if len(versions) > 1:
        return Unfit(f"several builds of {kind} would fit: {', '.join(versions)}", "say which by `version`")
    return found if found.tried and kind == "llama.cpp" else Choice(found.builds[:1])


def arch_of(host: Host) -> Arch:
    """Return the processor of a host: what it states, else aarch64 where the card is one chip with it."""
    if host.arch is not None:
        return host.arch
    rows = (profiles.find(gpu.model) for gpu in host.gpus)
    chip = any(row is not None and row.unified and row.vendor == "nvidia" for row in rows)
    return "aarch64" if chip else "x86_64"


def cards_of(host: Host, wanted: Program) -> tuple[Gpu, ...]:
    """Return the cards that a service may use, in the order in which it names them, else the host's."""
    refs: tuple[str, ...] = getattr(wanted, "gpus", ())
    if not refs:
        return host.gpus
    by_name = {name: gpu for gpu in host.gpus for name in gpu.refs}
    return tuple(dict.fromkeys(by_name[name] for name in refs if name in by_name))


def vendor_of(gpu: Gpu) -> str | None:
    """Return whose card it is; None for one that nobody knows."""
    row = profiles.find(gpu.model)
    return row.vendor if row is not None else gpu.vendor


def backends(host: Host, cards: Sequence[Gpu]) -> tuple[str, ...]:
    """Return the backends with which these cards of a host may be used, the best first."""
    if host.backend != "auto":
        return ("cpu",) if host.backend == "none" else (host.backend,)
    vendors = {vendor_of(gpu) for gpu in cards}
    order = []
    order += ["cuda"] if "nvidia" in vendors else []
    order += ["rocm"] if "amd" in vendors else []
    order += ["vulkan"] if vendors or host.unified_memory_gib is not None else []
    return tuple(order) if vendors else (*order, "cpu")


def _of_backend(host: Host, wanted: Program, here: Sequence[EngineBuild]) -> Choice | Unfit:
    cards = cards_of(host, wanted)
    able = backends(host, cards)
    fitting: list[LlamaCpp] = []
    why: list[str] = []
    for build in here:
        if isinstance(build, LlamaCpp) and build.backend in able:
            reason = _misfit(host, cards, build)
            if reason:
                why.append(reason)
            else:
                fitting.append(build)
    if not fitting:
        words = why[0] if why else f"none of the builds of llama.cpp computes with {' or '.join(able)}"
        also = "" if "cpu" in able else '; or say backend="none" of the host, to compute on the processor'
        return Unfit(words, f"add a build for {able[0]} that fits to `engines` of the rack{also}")
    versions = {build.version for build in fitting}
    if len(versions) > 1:
        return Choice(tuple(fitting))
    if len(fitting) > 1:
        fitting.sort(key=lambda build: (able.index(build.backend), [-part for part in _numbers(build.cuda)]))
    first = fitting[0]
    if first.backend == "rocm" and host.backend == "auto":
        return Choice((first, *[build for build in fitting if build.backend == "vulkan"][:1]))
    return Choice((first,))


@cache
def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")) if text else ()


def _misfit(host: Host, cards: Sequence[Gpu], build: LlamaCpp) -> str:
    """Return why a build cannot run on these cards, "" if it can."""
    if build.cuda is None:
        return ""
    cuda = _numbers(build.cuda)
    for gpu in cards:
        row = profiles.find(gpu.model)
        compute = _numbers(row.compute) if row is not None and row.compute else None
        if compute is None:
            continue
        has = f"{gpu.model} of {host.name} has {row.compute if row else ''}"
        if cuda[0] >= 13 and compute < _LEAST_COMPUTE_OF_CUDA_13:
            return f"CUDA {build.cuda} needs compute capability 7.5, and {has}: take a CUDA 12 build"
        if compute >= _BLACKWELL and cuda < _FIRST_CUDA_OF_BLACKWELL:
            return f"CUDA {build.cuda} is too old for compute capability 10, and {has}"
    branch = host.nvidia.branch
    if cuda[0] >= 13 and branch is not None and branch < _LEAST_DRIVER_OF_CUDA_13:
        return f"CUDA {build.cuda} needs driver 580, and `nvidia` of {host.name} asks for branch {branch}"
    return ""


def least_driver(build: EngineBuild) -> int:
    """Return the branch of NVIDIA's driver that a build needs at least, 0 for none."""
    new = isinstance(build, LlamaCpp) and _numbers(build.cuda) >= (13,)
    return _LEAST_DRIVER_OF_CUDA_13 if new else 0


def environment_of(rack: Rack, cluster: RayCluster) -> PythonEnv | None:
    """Return the Python environment in which a cluster's nodes run Ray; None where there is none."""
    head = next((host for host in rack.hosts if host.name == cluster.head), None)
    serving = next(
        (
            one
            for one in (head.services if head else ())
            if isinstance(one, Vllm) and one.cluster == cluster.name
        ),
        None,
    )
    if cluster.env is None and serving is not None and head is not None:
        chosen = choose(rack, head, serving)
        return chosen.build if isinstance(chosen, Choice) and isinstance(chosen.build, PythonEnv) else None
    held = [build for build in rack.engines if isinstance(build, PythonEnv) and build.kind in ("ray", "vllm")]
    fitting = [build for build in held if cluster.env in (None, build.version)]
    return fitting[0] if len({build.version for build in fitting}) == 1 else None


def requirements_of(build: PythonEnv, folder: Path) -> tuple[str, str]:
    """Return the text of an environment's requirements file, and its path; ``folder`` is the rack file's.

    Raises:
        LabctlError: it cannot be read.
    """
    file = folder / build.requirements.expanduser()
    try:
        return file.read_text(encoding="utf-8"), str(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LabctlError(
            f"the requirements of {build.kind} {build.version} in {file} cannot be read: {reason}",
            hint=f"make it with: uv pip compile --generate-hashes -o {file} FILE.in",
        ) from None


def programs(host: Host) -> Iterator[Program]:
    """Yield every program of a host that may be of a build: its services, and engines under llama-swap."""
    for service in host.services:
        yield service
        yield from (engine for below, engine in each_engine(service) if below)


def needed(rack: Rack, host: Host) -> tuple[EngineBuild, ...]:
    """Return the builds that a host must have, each once, in the order in which they are first needed."""
    found: list[EngineBuild] = []
    for wanted in programs(host):
        chosen = choose(rack, host, wanted)
        found += chosen.builds if isinstance(chosen, Choice) else ()
    for cluster in rack.clusters:
        if host.name in (cluster.head, *cluster.workers):
            held = environment_of(rack, cluster)
            found += [] if held is None else [held]
    return tuple(dict.fromkeys(found))
