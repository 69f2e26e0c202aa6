"""Run one process of the gateway: what its unit starts, as ``python -I -OO -m labctl.cli.gateway_run``.

It reads the table and the files beside it, and nothing else: no rack file, no command line library, so that
it starts quickly and stays small. What it says goes to standard error, the line of each request to standard
output.
"""

from __future__ import annotations

import importlib
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from labctl import wiring
from labctl.domain.gateway.table import Table
from labctl.domain.problem import ExitCode, LabctlError
from labctl.gateway.reading import read_table
from labctl.ports.store import Store

_USAGE = "usage: python -I -OO -m labctl.cli.gateway_run TABLE [--name=INSTANCE] | --check TABLE | --compile"


def main(argv: Sequence[str]) -> ExitCode:
    """Run the gateway of a table until a signal ends it.

    ``--check`` only reads the table. ``--compile`` only imports everything that a gateway ever needs, so that
    whoever may write the caches of compiled modules does.
    """
    words = [word for word in argv if not word.startswith("--")]
    flags = [word for word in argv if word.startswith("--")]
    try:
        if flags == ["--compile"] and not words:
            _import_everything()
        elif flags == ["--check"] and len(words) == 1:
            read_table(Path(words[0]))
        elif len(words) == 1 and all(flag.startswith("--name=") for flag in flags):
            serve(Path(words[0]), flags[-1].partition("=")[2] if flags else "here")
        else:
            _say(_USAGE)
            return ExitCode.BAD_INPUT
    except LabctlError as error:
        _say(str(error))
        return error.code
    return ExitCode.OK


def serve(path: Path, name: str) -> None:
    """Serve the table at ``path`` until a signal ends it.

    Raises:
        LabctlError: it cannot begin.
    """
    _put_off("importlib.metadata")
    from labctl.gateway import process
    from labctl.gateway.access.listening import refuse_open_door

    table = read_table(path)
    process.make_room(table.limits.clients)
    sockets = wiring.passed_sockets() or [process.own_socket(table.listen, table.port)]
    refuse_open_door(table, sockets)
    process.run(_main(table, path.parent, sockets, name))


async def _main(table: Table, folder: Path, sockets: list[socket.socket], name: str) -> None:
    from labctl.adapters.clock import wall_s
    from labctl.gateway.assembly import Around, assemble
    from labctl.gateway.process import Process, status_of

    # Not the name alone: an instance of that name that ran before may still be known to the store.
    instance = f"gateway {socket.gethostname()} {name} {secrets.token_hex(4)}"
    gateway = assemble(table, folder, Around(instance, wall_s, _store_of(table, folder)))
    told = Process(
        gateway, wiring.notify(patience_s=0, alone=_Spoken()), _say, watchdog_s=wiring.watchdog_s()
    )
    await told.run(sockets, status_of(table))


class _Spoken:
    """Tells a person at a terminal what systemd would hear."""

    def ready(self, status: str) -> None:
        _say(f"serves {status}")

    def alive(self, status: str) -> None:
        """Say nothing: a person sees that it runs."""

    def stopping(self) -> None:
        _say("takes nothing new, and serves what it has to its end; stop it again to cut that short")


def _store_of(table: Table, folder: Path) -> Callable[[], Store]:
    """Return what opens the store; it may not be there yet.

    Raises:
        LabctlError: the address of its database cannot be read.
    """
    place: str | Path = Path(table.store)
    if table.store_url_file:
        file = folder / table.store_url_file
        try:
            place = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError):
            # Not with its words: it is a secret.
            raise LabctlError(f"{file}: the address of the store cannot be read") from None
        if "://" not in place:
            form = "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
            raise LabctlError(f"{file}: holds no address of a database", hint=f"its form is {form}")
    return lambda: wiring.store(place)


def _say(line: str) -> None:
    # Standard error is the journal, or a terminal; what cannot be said is no reason to serve nobody.
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _put_off(name: str) -> None:
    """Have a module loaded when something of it is used.

    SQLAlchemy imports ``importlib.metadata`` for the sake of plugins; with what it needs that takes 2 MB.
    """
    if name in sys.modules:
        return
    stub = sys.modules[name] = ModuleType(name)

    def load(attribute: str) -> object:
        if sys.modules.get(name) is stub:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stub.__getattr__ = load  # type: ignore[method-assign]


def _import_everything() -> None:
    import pkgutil

    import labctl.adapters.store
    import labctl.gateway

    for package in (labctl.gateway, labctl.adapters.store):
        for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations." not in one.name:
                importlib.import_module(one.name)
    for name in (
        "encodings.idna",
        "labctl.adapters.notify",
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.dialects.postgresql.psycopg",
        "psycopg",
        "uvloop",
    ):
        with suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
