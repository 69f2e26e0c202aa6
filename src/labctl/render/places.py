"""Where installed builds lie on a host, and which program of them a service runs.

Builds of one kind (and backend) share a shelf, such as ``/opt/labctl/llama.cpp/cuda``. Each lies there below
its version, and the link ``current`` beside them leads to the one for services that name no version. Such a
service runs ``current/PROGRAM``; one that names its version, or whose build is not the current one, runs
``VERSION/PROGRAM``, and no later install moves it. Two CUDA releases of one version are two builds, so the
release is part of their folder's name.

A host that chooses between backends by trying (AMD) has one more link, ``/opt/labctl/llama.cpp/auto``, to the
shelf of the backend that was proved.
"""

from __future__ import annotations

import hashlib

from labctl.domain.problem import LabctlError
from labctl.inventory import Host, Rack
from labctl.inventory.builds import SYSTEM_PROGRAMS, Choice, Unfit, choose, programs
from labctl.inventory.engines import Artifact, EngineBuild, LlamaCpp, OllamaBuild, PythonEnv
from labctl.inventory.remembered import remembered
from labctl.inventory.services import Program, each_engine

ROOT = "/opt/labctl"
CURRENT = "current"
AUTO = f"{ROOT}/llama.cpp/auto"
# What a kind of service runs, below the folder of its build.
PROGRAMS = {
    "llama-server": "llama-server",
    "rpc-server": "ggml-rpc-server",  # called rpc-server before 2026
    "llama-swap": "llama-swap",
    "vllm": "bin/vllm",
    "sglang": "bin/python",
    "tabbyapi": "bin/python",
    "ollama": "bin/ollama",
    "bifrost": "bifrost",
    "olla": "olla",
    "litellm": "bin/litellm",
}


def shelf(build: EngineBuild) -> str:
    """Return the folder that holds all versions of this kind of build."""
    return f"{ROOT}/{build.kind}/{build.backend}" if isinstance(build, LlamaCpp) else f"{ROOT}/{build.kind}"


def folder(build: EngineBuild) -> str:
    """Return the folder of the build itself."""
    release = f"-cuda{build.cuda}" if isinstance(build, LlamaCpp) and build.cuda else ""
    return f"{shelf(build)}/{build.version}{release}"


def digest(build: EngineBuild) -> str:
    """Return what pins the content of a build, as far as the inventory itself says it.

    Of a Python environment that is the archive of uv; its requirements are a file, read when it is installed.
    """
    main, *more = (one.sha256 for one in artifacts(build))
    return hashlib.sha256("\n".join((main, *more)).encode()).hexdigest() if more else main


def artifacts(build: EngineBuild) -> tuple[Artifact, ...]:
    """Return the files of a build, the main one first."""
    if isinstance(build, PythonEnv):
        return (build.uv,) if build.archive is None else (build.uv, build.archive)
    more = None
    if isinstance(build, LlamaCpp):
        more = build.runtime
    elif isinstance(build, OllamaBuild):
        more = build.rocm
    return (build.archive,) if more is None else (build.archive, more)


def choice(rack: Rack, host: Host, wanted: Program) -> Choice | None:
    """Return the build that a service runs; None for a program that labctl did not install.

    Raises:
        LabctlError: no build fits. A loaded rack holds no such service.
    """
    found = choose(rack, host, wanted)
    if isinstance(found, Unfit):
        raise LabctlError(f"service {wanted.name}: {found.reason}", hint=found.hint, host=host.name)
    return found


@remembered(4)
def current(rack: Rack, host: Host) -> dict[str, EngineBuild]:
    """Return the build to which ``current`` leads, by shelf.

    It is the one of the first service that names no version; where all name theirs, the last one's.
    """
    unnamed: dict[str, EngineBuild] = {}
    named: dict[str, EngineBuild] = {}
    for wanted in programs(host):
        found = choose(rack, host, wanted)
        for build in found.builds if isinstance(found, Choice) else ():
            if getattr(wanted, "version", None) is None:
                unnamed.setdefault(shelf(build), build)
            else:
                named[shelf(build)] = build
    return named | unnamed


def _is_current(rack: Rack, host: Host, build: EngineBuild) -> bool:
    """Return whether ``current`` leads to a build that is chosen for a service without a version."""
    for wanted in programs(host):
        if getattr(wanted, "version", None) is None:
            found = choose(rack, host, wanted)
            for other in found.builds if isinstance(found, Choice) else ():
                if shelf(other) == shelf(build):
                    return other == build
    return False


def base(rack: Rack, host: Host, wanted: Program) -> str | None:
    """Return the folder from which a service runs; None for a program that labctl did not install."""
    found = choice(rack, host, wanted)
    if found is None:
        return None
    build = found.build
    here = AUTO if found.tried else shelf(build)
    if getattr(wanted, "version", None) is not None or not _is_current(rack, host, build):
        return f"{here}/{folder(build).rpartition('/')[2]}"
    return f"{here}/{CURRENT}"


def program(rack: Rack, host: Host, wanted: Program) -> str:
    """Return the absolute path of what a service runs."""
    kind: str = getattr(wanted, "kind", "")
    binary: str | None = getattr(wanted, "binary", None)
    found = base(rack, host, wanted)
    if binary is not None or found is None:
        return binary or SYSTEM_PROGRAMS.get(kind, f"/usr/bin/{PROGRAMS[kind]}")
    return f"{found}/{PROGRAMS[kind]}"


def main_program(build: EngineBuild) -> str:
    """Return the program that a build must bring, below its folder."""
    if build.kind == "llama.cpp":
        return PROGRAMS["llama-server"]
    return PROGRAMS.get(build.kind, f"bin/{build.kind}")


def tool(artifact: Artifact, kind: str) -> str:
    """Return where something lies of which builds are made: uv, or a source."""
    return f"{ROOT}/{kind}/{artifact.sha256[:16]}"


def folders(build: EngineBuild) -> tuple[str, ...]:
    """Return every folder that a build needs on its host: its own, and what it is made of."""
    if not isinstance(build, PythonEnv):
        return (folder(build),)
    source = () if build.archive is None else (tool(build.archive, "source"),)
    return (folder(build), tool(build.uv, "uv"), *source)


def units_of(rack: Rack, host: Host, build: EngineBuild, *, by_link: bool = False) -> tuple[str, ...]:
    """Return the units that run a build, with ``by_link`` those that run it as the current one.

    Engines under llama-swap are restarted by its configuration, which names their builds; a Python
    environment may change below the same name, so there llama-swap itself is owed the restart.
    """
    found = []
    for service in host.services:
        swapped = isinstance(build, PythonEnv)
        for wanted in (service, *(engine for below, engine in each_engine(service) if below and swapped)):
            chosen = choice(rack, host, wanted)
            if chosen is None or build not in chosen.builds:
                continue
            if not by_link or (base(rack, host, wanted) or "").endswith(f"/{CURRENT}"):
                found.append(f"labctl-{service.name}.service")
    return tuple(dict.fromkeys(found))


def tried_units(rack: Rack, host: Host) -> tuple[str, ...]:
    """Return the units whose engine runs from the backend that was proved."""
    found = []
    for service in host.services:
        for wanted in (service, *(engine for below, engine in each_engine(service) if below)):
            chosen = choice(rack, host, wanted)
            if chosen is not None and chosen.tried:
                found.append(f"labctl-{service.name}.service")
    return tuple(dict.fromkeys(found))


def marks(rack: Rack, host: Host, wanted: Program) -> tuple[str, ...]:
    """Return a line for each build of a service, so that a unit's text changes when its build does."""
    found = choice(rack, host, wanted)
    builds = found.builds if found is not None else ()
    return tuple(f"build {build.kind} {build.version} {digest(build)}" for build in builds)
