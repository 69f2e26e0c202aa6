"""Running a person's Python file as pyinfra would, without letting it harm the run around it.

As in pyinfra the file sees only ``__file__`` beside the builtins, and modules are found in the working
directory too; labctl adds the rack file's folder and the folder above, so that recipes are found from
anywhere. What it imports from there is forgotten afterwards, so that the next load reads changed recipes.
Standard output carries labctl's results (JSON, or a worker's events), so a file that prints or asks is
wrong, and the place is kept. Only Ctrl-C passes through; every other way of ending, ``exit()`` included,
comes back as a value.
"""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from labctl.inventory.spec import CallSite, calls_from


class AsksForInputError(Exception):
    """The file reads standard input."""


@dataclass(slots=True)
class Ran:
    """What a file left behind: its variables, how it ended early (if so), and where it printed."""

    namespace: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    printed: list[CallSite] = field(default_factory=list)


class _Silent(io.TextIOBase):
    """A standard output that keeps the places of the calls that write to it, and no text."""

    def __init__(self, printed: list[CallSite]) -> None:
        self._printed = printed

    def writable(self) -> bool:
        """Return True, so that callers get as far as ``write``."""
        return True

    def write(self, text: str) -> int:
        """Keep the place of the call; ignore the text."""
        if len(self._printed) < 100:
            self._printed += calls_from(sys._getframe(1), most=1)
        return len(text)


class _NoInput(io.TextIOBase):
    """A standard input that nobody answers on."""

    def readable(self) -> bool:
        """Return True, so that callers get as far as reading."""
        return True

    def read(self, size: int | None = -1, /) -> NoReturn:
        """Refuse.

        Raises:
            AsksForInputError: always.
        """
        raise AsksForInputError

    def readline(self, size: int | None = -1, /) -> NoReturn:
        """Refuse.

        Raises:
            AsksForInputError: always.
        """
        raise AsksForInputError


def working_folder() -> Path | None:
    """Return the working directory; None when it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def search_path(file: Path) -> list[str]:
    """Return where a rack file's own modules are looked for, after Python's places."""
    places = (working_folder(), file.parent.parent, file.parent)
    return list(dict.fromkeys(str(place) for place in places if place is not None))


def _below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def is_own(name: str, roots: Sequence[str]) -> bool:
    """Return whether a source file is the person's own, and not Python's, a library's or labctl's."""
    if not name.endswith(".py"):
        return False
    path = str(Path(name).absolute())
    foreign = (sys.prefix, sys.base_prefix, str(Path(io.__file__).parent), str(Path(__file__).parents[1]))
    # A virtual environment often lies inside the project, and a project may lie below Python's prefix.
    return any(
        _below(path, root)
        and "/site-packages/" not in path
        and not any(_below(place, root) and _below(path, place) for place in foreign)
        for root in roots
    )


def _origins(module: object) -> list[str]:
    """Return the file of a module, or the files that a package without one might have."""
    file = getattr(module, "__file__", None)
    folders = getattr(module, "__path__", ()) if file is None else ()
    return [file] if isinstance(file, str) else [f"{folder}/__init__.py" for folder in folders]


@contextmanager
def _surroundings(file: Path, printed: list[CallSite]) -> Iterator[None]:
    places = search_path(file)
    modules, path = set(sys.modules), list(sys.path)
    stdin, bytecode = sys.stdin, sys.dont_write_bytecode
    sys.path += [place for place in places if place not in sys.path]
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(_Silent(printed)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        sys.stdin = _NoInput()
        try:
            yield
        finally:
            sys.stdin, sys.dont_write_bytecode, sys.path[:] = stdin, bytecode, path
            for name in set(sys.modules) - modules:
                if any(is_own(origin, places) for origin in _origins(sys.modules[name])):
                    del sys.modules[name]


def run(text: str, file: Path) -> Ran:
    """Compile and run the text of ``file``; whatever it raises comes back in the result.

    Raises:
        KeyboardInterrupt: somebody pressed Ctrl-C.
    """
    ran = Ran()
    namespace: dict[str, Any] = {"__file__": str(file)}
    with _surroundings(file, ran.printed):
        try:
            exec(compile(text, str(file), "exec"), namespace)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            ran.error = error
    # `globals()[5] = ...` is possible, and means nothing.
    ran.namespace = {name: value for name, value in namespace.items() if isinstance(name, str)}
    return ran
