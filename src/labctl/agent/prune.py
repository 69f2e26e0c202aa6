"""Cut the NVML binding down to what the agent uses, since a host compiles it anew at every start.

The binding is one module of eight thousand lines, and reading it costs a fifth of a second of CPU time. What
the agent uses is found in the agent's own sources: whatever they take from ``pynvml``. To that come the names
that those definitions use, in turn, and the codes of errors, which the binding collects by their names. Kept
statements are copied letter for letter and in their order, with the licence before them, so the result
depends on nothing but the two sources.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

_BINDING = "pynvml"
_BY_PREFIX = "NVML_ERROR_"


class Lacking(ValueError):
    """The binding has not all that the agent uses."""


def used(sources: Iterable[bytes]) -> frozenset[str]:
    """Return the names that these sources take from the binding, as ``pynvml.NAME`` or ``x.pynvml.NAME``."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and _is_binding(node.value):
                found.add(node.attr)
    return frozenset(found)


def _is_binding(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == _BINDING) or (
        isinstance(node, ast.Attribute) and node.attr == _BINDING
    )


def pruned(binding: bytes, wanted: Iterable[str]) -> bytes:
    """Return the binding with nothing in it but these names and what they need.

    Raises:
        Lacking: the binding does not have one of them.
    """
    statements = ast.parse(binding).body
    defined = [frozenset(_defines(statement)) for statement in statements]
    known = frozenset().union(*defined)
    roots = set(wanted)
    if lacking := sorted(roots - known):
        raise Lacking(f"the NVML binding does not have {', '.join(lacking)}")
    needed = roots | {name for name in known if name.startswith(_BY_PREFIX)}
    kept: set[int] = set()
    while more := [
        at
        for at, statement in enumerate(statements)
        if at not in kept and (defined[at] & needed or _acts(statement))
    ]:
        kept.update(more)
        for at in more:
            needed.update(_uses(statements[at]))
    return _copied(binding, [statements[at] for at in sorted(kept)])


def _acts(statement: ast.stmt) -> bool:
    """Return whether a statement does something when the module is read, or brings unknown names."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"


def _defines(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of the module gives a value or changes."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    elif isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
    elif not isinstance(statement, ast.Expr):
        # A condition or a loop around definitions: none is known, so whatever it holds counts.
        yield from (name for child in ast.iter_child_nodes(statement) for name in _nested(child))


def _nested(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.stmt):
        yield from _defines(node)


def _uses(statement: ast.stmt) -> Iterator[str]:
    return (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))


def _copied(binding: bytes, statements: list[ast.stmt]) -> bytes:
    lines = binding.decode().splitlines()
    licence = 0
    while licence < len(lines) and lines[licence].startswith("#"):
        licence += 1
    wanted = set(range(licence))
    for statement in statements:
        decorators = [node.lineno for node in getattr(statement, "decorator_list", ())]
        wanted.update(range(min([statement.lineno, *decorators]) - 1, statement.end_lineno or 0))
    return ("\n".join(lines[at] for at in sorted(wanted)) + "\n").encode()
