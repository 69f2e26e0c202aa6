"""Engines: the builds that services of a host run, side by side, each whole or not at all.

Order matters. First every build comes to its place, beside those that run. Then each command line is held
against the flags of the very build that will run it: one that it does not know ends the host here, while
everything still runs as it did. Only then the link ``current`` is switched, and builds that nobody needs go.
Units and configurations that follow are restarted once by whoever owns them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from labctl.inventory import Host, Rack, mirrors
from labctl.inventory.builds import least_driver, needed, requirements_of
from labctl.inventory.engines import Artifact, EngineBuild, PythonEnv
from labctl.ops import apt, files
from labctl.ops import engines as builds
from labctl.render import asked, places, python_env


@deploy("Engines")
def engines() -> None:
    """Have the builds that a host needs, and switch to them."""
    rack: Rack = host.data.rack
    spec: Host = host.data.spec
    wanted = needed(rack, spec)
    # known_hosts lies in the rack file's folder, to which the inventory's paths are relative.
    folder = Path(host.data.ssh_known_hosts_file).parent

    if wanted:
        for path in (builds.DOWNLOADS, builds.HELPS, places.ROOT):
            files.directory(name=f"folder {path}", path=path)
        archives = [one.url for build in wanted for one in places.artifacts(build)]
        tools = {"zstd": (".zst", ".tzst"), "xz-utils": (".xz",)}
        packages = [name for name, ends in tools.items() if any(url.endswith(ends) for url in archives)]
        if packages:
            apt.packages(name="packages that unpack", names=packages)
    for build in wanted:
        if isinstance(build, PythonEnv):
            environment(rack, spec, build, folder)
        else:
            archive(rack, spec, build)
    checked(rack, spec)
    for shelf, build in places.current(rack, spec).items():
        builds.link(
            name=f"current {build.kind}",
            path=f"{shelf}/{places.CURRENT}",
            build=places.folder(build).rpartition("/")[2],
            units=places.units_of(rack, spec, build, by_link=True),
        )
    keep = tuple(sorted(path for build in wanted for path in places.folders(build)))
    builds.old(name="builds that nobody needs", root=places.ROOT, keep=keep)


def download(rack: Rack, artifact: Artifact) -> builds.Download:
    """Return from where a file comes: the rack's mirror, then its own address; and where it is pinned."""
    addresses = mirrors.addresses(rack, artifact.url, name=artifact.name)
    return builds.Download(
        addresses, artifact.sha256, asked.stated(host.data.get("places"), at(rack, artifact))
    )


def at(rack: Rack, artifact: Artifact) -> tuple[str | int, ...]:
    """Return the path of an artifact's sha256 in the rack; of one that several builds share, the first."""
    return next(
        ("engines", index, field, "sha256")
        for index, build in enumerate(rack.engines)
        for field in type(build).model_fields
        if getattr(build, field) == artifact
    )


def archive(rack: Rack, spec: Host, build: EngineBuild) -> None:
    """Install a build that comes as archives."""
    builds.archive(
        name=f"{build.kind} {build.version}",
        place=builds.Place(
            places.folder(build),
            places.main_program(build),
            places.digest(build),
            build.arch,
            places.units_of(rack, spec, build),
            least_driver(build),
        ),
        archives=tuple(download(rack, one) for one in places.artifacts(build)),
    )


def environment(rack: Rack, spec: Host, build: PythonEnv, folder: Path) -> None:
    """Install a virtual environment, and before it the uv that makes it."""
    requirements = python_env.checked(*requirements_of(build, folder))
    uv = places.tool(build.uv, "uv")
    builds.archive(
        name=f"uv for {build.kind} {build.version}",
        place=builds.Place(uv, "uv", build.uv.sha256, build.arch),
        archives=(download(rack, build.uv),),
    )
    source = ""
    if build.archive is not None:
        source = places.tool(build.archive, "source")
        builds.archive(
            name=f"source of {build.kind} {build.version}",
            place=builds.Place(source, "main.py", build.archive.sha256, build.arch),
            archives=(download(rack, build.archive),),
        )
    builds.python_env(
        name=f"{build.kind} {build.version}",
        place=builds.Place(
            places.folder(build),
            places.main_program(build),
            python_env.digest(build, requirements),
            build.arch,
            places.units_of(rack, spec, build),
        ),
        requirements=requirements,
        uv=f"{uv}/uv",
        python=build.python,
        options=python_env.sources(build),
        source=source,
    )


def checked(rack: Rack, spec: Host) -> None:
    """Hold each engine's command line against the flags of the build that will run it."""
    where: Callable[..., tuple[str, int | None]] | None = host.data.get("places")
    for question, uses in asked.questions(rack, spec).items():
        program, words = question
        builds.known_flags(
            name=f"flags of {program}",
            program=program,
            asks=words,
            uses=tuple(builds.Use(use.service, use.argv, use.placed(where)) for use in uses),
        )


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    engines()
