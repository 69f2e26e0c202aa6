"""From a call that happened to the line where a person must look.

The interpreter knows the exact span of the call instruction; the same span names one ``Call`` node of the
file's syntax tree, and from there a field path (``gpus``, 3, ``cap_w``) is followed through keywords, lists
and dicts for as long as they are written out. Where that ends (a variable, a comprehension, ``**data``) the
last line reached is the answer: it may be less precise, it is never another file's.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from labctl.inventory.spec import CallSite

Span = tuple[int, int, int, int]


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _step(node: ast.expr, part: str | int) -> tuple[ast.expr, int] | None:
    """Return the expression that one part of a field path leads to, and the line where that part starts."""
    if isinstance(node, ast.Call) and isinstance(part, str):
        for keyword in node.keywords:
            if keyword.arg == part:
                return keyword.value, keyword.lineno
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == part:
                return value, key.lineno
    if isinstance(node, (ast.List, ast.Tuple)) and isinstance(part, int) and part < len(node.elts):
        if any(isinstance(item, ast.Starred) for item in node.elts[: part + 1]):
            return None
        return node.elts[part], node.elts[part].lineno
    return None


class Sources:
    """The syntax trees of the files that a load has run, read once each."""

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        self._texts = dict(texts or {})
        self._trees: dict[str, ast.Module | None] = {}
        self._calls: dict[str, dict[Span, ast.Call]] = {}

    def tree(self, file: str) -> ast.Module | None:
        """Return the syntax tree of a file, or None when it cannot be read any more."""
        if file not in self._trees:
            try:
                text = self._texts.get(file) or Path(file).read_text(encoding="utf-8")
            except (OSError, ValueError):
                text = None
            self._trees[file] = None if text is None else _parse(text)
        return self._trees[file]

    def _call(self, site: CallSite) -> ast.Call | None:
        file = site.code.co_filename
        if file not in self._calls:
            tree = self.tree(file)
            nodes = [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            self._calls[file] = {
                (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0): node
                for node in nodes
            }
        positions = list(site.code.co_positions())[site.instruction // 2]
        start, end, column, end_column = (part if part is not None else -1 for part in positions)
        return self._calls[file].get((start, column, end, end_column))

    def line(self, site: CallSite, path: Sequence[str | int] = ()) -> int:
        """Return the line where that part of the call's arguments stands, or else the call's own."""
        node: ast.expr | None = self._call(site)
        line = node.lineno if node is not None else site.line
        for part in path:
            found = _step(node, part) if node is not None else None
            if found is None:
                # A union puts the name of its member into the path; no source has it.
                continue
            node, line = found
        return line

    def imported(self, file: str) -> set[str]:
        """Return the names that a file's imports bind on module level, as pyinfra finds them."""
        tree = self.tree(file)
        imports = [node for node in tree.body if isinstance(node, _IMPORTS)] if tree is not None else []
        return {name for node in imports for name in _imported_names(node)}

    def assignment(self, file: str, name: str) -> int | None:
        """Return the line of the last statement on module level which binds that name."""
        tree = self.tree(file)
        lines = [node.lineno for node in tree.body if name in _bound(node)] if tree is not None else []
        return lines[-1] if lines else None


_IMPORTS = (ast.Import, ast.ImportFrom)


def _imported_names(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name.split(".")[0] for alias in node.names} - {"*"}


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, _IMPORTS):
        return _imported_names(node)
    targets: Sequence[ast.AST] = ()
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = (node.target,)
    return {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
