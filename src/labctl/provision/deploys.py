"""Find the deploy files of a run.

``DEPLOYS`` is a file, or a directory that holds a ``site.py``; without it the deploys that came with labctl
are meant. ``--only base,agent`` picks ``base.py`` and ``agent.py`` beside it, in the order in which
``site.py`` calls them, whatever the order of the words. The order is read from the syntax tree: nothing is
run here. A file that is not Python is refused before any host is contacted.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from labctl.domain.problem import LabctlError, Problem


def resolve(given: Path, only: Sequence[str]) -> tuple[Path, ...]:
    """Return the absolute paths of the files to run, in order.

    Raises:
        LabctlError: there is no such file, a name of ``only`` fits none, or a file is not Python.
    """
    path = given.absolute()
    site = path / "site.py" if path.is_dir() else path
    if not site.is_file() and not path.is_dir():
        raise LabctlError(f"there is no deploy file {given}", hint="leave it out to use labctl's own deploys")
    names = [part.strip() for item in only for part in item.split(",") if part.strip()]
    if only and not names:
        raise LabctlError("--only names no deploy", hint="leave --only out to run all of them")
    whole = (site,) if site.is_file() else _available(path)
    chosen = _picked(site, names) if names else whole
    if not chosen:
        raise LabctlError(
            f"{given} holds no deploy file", hint="a deploy is a .py file with pyinfra operations"
        )
    for file in chosen:
        _tree(file)
    return chosen


def call_order(source: ast.Module) -> tuple[str, ...]:
    """Return the modules whose functions a site file calls, in the order of the calls."""
    origin: dict[str, str] = {}
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = alias.name if node.module == "deploys" else node.module.rpartition(".")[2]
                origin[alias.asname or alias.name] = whole
    order: dict[str, None] = {}
    for statement in source.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                root = node.func
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(root, ast.Name) and root.id in origin:
                    order.setdefault(origin[root.id])
    return tuple(order)


def _picked(site: Path, names: Sequence[str]) -> tuple[Path, ...]:
    folder = site.parent
    available = {file.stem: file for file in _available(folder) if file != site or site.name != "site.py"}
    unknown = [name for name in names if name not in available]
    if unknown:
        raise LabctlError(_unknown(name, list(available), folder) for name in unknown)
    order = call_order(_tree(site)) if site.is_file() else ()
    rank = {name: position for position, name in enumerate(order)}
    return tuple(
        available[name] for name in sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))
    )


def _unknown(name: str, available: list[str], folder: Path) -> Problem:
    close = get_close_matches(name, available, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(available)}"
    return Problem(f"--only: there is no deploy {name!r} in {folder}", hint=hint)


def _available(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in folder.glob("*.py") if not file.name.startswith("_")))


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise LabctlError([Problem(f"not Python: {error.msg}", file=str(file), line=error.lineno)]) from error
    except (ValueError, RecursionError, OSError) as error:
        raise LabctlError([Problem(f"cannot be read: {error}", file=str(file))]) from error
