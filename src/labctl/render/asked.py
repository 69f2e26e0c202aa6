"""What each build on a host is asked for its flags, and whose arguments are held against the answer.

Asked is the program in the folder of its build, not behind the link ``current``: before a switch that still
leads to the build of yesterday. Where a host chooses between two builds by trying, both must know the flags.
Ollama and any ``Command`` have no flags that labctl could know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labctl.inventory import Host, LlamaServer, Rack, Sglang, TabbyApi, Vllm
from labctl.inventory.explain import field_text
from labctl.inventory.services import Engine, Program, each_engine
from labctl.render import places
from labctl.render.launch import launch

Where = Callable[[tuple[str | int, ...]], tuple[str, int | None]]
Place = Callable[[str], tuple[str, int | None, str]]
Question = tuple[str, tuple[str, ...]]
_ANY_PORT = "1"


def stated(where: Where | None, path: tuple[str | int, ...]) -> str:
    """Return file, line and field of the inventory for people; "" where nobody knows, as under pyinfra."""
    if where is None:
        return ""
    file, line = where(path)
    return f"{file}{f':{line}' if line else ''}: {field_text(path)}"


@dataclass(frozen=True, slots=True)
class Use:
    """The arguments of one engine, and the path to it in the rack."""

    service: str
    argv: tuple[str, ...]
    path: tuple[str | int, ...]
    engine: Engine

    def placed(self, where: Where | None) -> Place:
        """Return a function from a flag to file, line and field of the inventory that says it."""

        def place(flag: str) -> tuple[str, int | None, str]:
            path = (*self.path, *self._field(flag))
            file, line = where(path) if where is not None else ("", None)
            return file, line, field_text(path[2:])

        return place

    def _field(self, flag: str) -> tuple[str | int, ...]:
        for index, argument in enumerate(self.engine.extra_args):
            if argument.partition("=")[0] == flag:
                return ("extra_args", index)
        name = flag.lstrip("-").replace("-", "_")
        names = (name, name.removeprefix("no_"))
        return next(((found,) for found in names if found in type(self.engine).model_fields), ())


def questions(rack: Rack, host: Host) -> dict[Question, list[Use]]:
    """Return what is asked on a host, program and words, with all who go by the answer."""
    found: dict[Question, list[Use]] = {}
    at = next(index for index, one in enumerate(rack.hosts) if one.name == host.name)
    for index, service in enumerate(host.services):
        for below, engine in each_engine(service):
            if not isinstance(engine, LlamaServer | Vllm | Sglang | TabbyApi):
                continue
            argv = launch(rack, host, engine, port=_ANY_PORT).argv
            path = ("hosts", at, "services", index, *below)
            who = service.name if service is engine else f"{service.name} ({engine.name})"
            for program in _programs(rack, host, engine):
                words, skipped = _words(engine, program)
                found.setdefault((program, words), []).append(Use(who, argv[skipped:], path, engine))
    return found


def _programs(rack: Rack, host: Host, engine: Program) -> list[str]:
    chosen = places.choice(rack, host, engine)
    if chosen is None:
        return [places.program(rack, host, engine)]
    kind: str = getattr(engine, "kind", "")
    return [f"{places.folder(build)}/{places.PROGRAMS[kind]}" for build in chosen.builds]


def _words(engine: Engine, program: str) -> tuple[tuple[str, ...], int]:
    """Return how a program is asked, and how many words of its command line come before its flags."""
    match engine:
        case Vllm():
            return ("serve", "--help=all"), 2
        case Sglang():
            return ("-m", "sglang.launch_server", "--help"), 3
        case TabbyApi():
            return (f"{program.rpartition('/')[0].rpartition('/')[0]}/src/main.py", "--help"), 2
        case _:
            return ("--help",), 1
