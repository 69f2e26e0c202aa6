"""The matrix: named sets of models that may be loaded together, and which one a request chooses.

``&`` binds tighter than ``|``; ``+name`` is another set. Of all combinations that hold the wanted model, the
one that unloads the cheapest is taken, the first of equals in the order of the file.
"""

from __future__ import annotations

import re
from typing import Any

from .macros import BadConfig

_TOKEN = re.compile(r"\s*(?:(\+?[\w.-]+)|([&|()])|(\S))")
_VAR = re.compile(r"[a-zA-Z0-9.-]{1,32}")
Sets = list[frozenset[str]]


class Matrix:
    """The combinations of every set, in order."""

    def __init__(self, given: dict[str, Any], models: dict[str, Any]) -> None:
        """Read the block.

        Raises:
            BadConfig: it is refused.
        """
        self._vars: dict[str, str] = given.get("vars") or {}
        self._texts: dict[str, str] = given.get("sets") or {}
        self._models = models
        if not self._texts:
            raise BadConfig("matrix: matrix must define at least one set")
        for name, model in self._vars.items():
            if not _VAR.fullmatch(name):
                raise BadConfig(
                    f"matrix: var key \"{name}\" must contain only alphanumeric, '-' or '.' characters "
                    "and be 1-32 characters long"
                )
            if model not in models:
                raise BadConfig(f'matrix: var key "{name}" references unknown model "{model}"')
        self._costs: dict[str, int] = {}
        for name, cost in (given.get("evict_costs") or {}).items():
            if cost <= 0:
                raise BadConfig(f'matrix: evict_cost for "{name}" must be a positive integer, got {cost}')
            if name not in self._vars and name not in models:
                raise BadConfig(f'matrix: evict_costs: unknown var or model "{name}"')
            self._costs[self._vars.get(name, name)] = cost
        self._found: dict[str, Sets] = {}
        self.sets = [one for name in self._texts for one in self._set(name, ())]

    def evicted(self, wanted: str, running: list[str]) -> list[str]:
        """Return which of the running models must go before ``wanted`` may come."""
        if wanted in running:
            return []
        fitting = [one for one in self.sets if wanted in one]
        leaving = [[model for model in running if model not in one] for one in fitting]
        costs = [sum(self._costs.get(model, 1) for model in models) for models in leaving]
        return leaving[costs.index(min(costs))] if costs else list(running)

    def _set(self, name: str, above: tuple[str, ...]) -> Sets:
        if name in above:
            raise BadConfig(f'matrix: circular reference detected involving set "{name}"')
        if name not in self._found:
            self._name = name
            self._tokens = [next(filter(None, groups)) for groups in _TOKEN.findall(self._texts[name])]
            if not self._tokens:
                raise BadConfig(f'matrix: set "{name}": empty DSL expression')
            found = self._either((*above, name))
            if self._tokens:
                raise BadConfig(
                    f'matrix: set "{name}": parse: unexpected token "{self._tokens[0]}" after expression'
                )
            self._found[name] = found
        return self._found[name]

    def _either(self, above: tuple[str, ...]) -> Sets:
        found = self._together(above)
        while self._tokens[:1] == ["|"]:
            self._tokens.pop(0)
            found = found + self._together(above)
        return found

    def _together(self, above: tuple[str, ...]) -> Sets:
        found = self._atom(above)
        while self._tokens[:1] == ["&"]:
            self._tokens.pop(0)
            more = self._atom(above)
            found = [one | other for one in found for other in more]
        return found

    def _atom(self, above: tuple[str, ...]) -> Sets:
        token = self._tokens.pop(0) if self._tokens else ""
        if token == "(":
            found = self._either(above)
            if self._tokens[:1] != [")"]:
                raise BadConfig(f'matrix: set "{self._name}": parse: missing closing parenthesis')
            self._tokens.pop(0)
            return found
        if token.startswith("+"):
            if token[1:] not in self._texts:
                raise BadConfig(f'matrix: set "{self._name}" references undefined set "{token[1:]}"')
            name, tokens = self._name, self._tokens
            found = self._set(token[1:], above)
            self._name, self._tokens = name, tokens
            return found
        if not re.fullmatch(r"[\w.-]+", token):
            raise BadConfig(f'matrix: set "{self._name}": parse: unexpected token "{token}"')
        model = self._vars.get(token, token)
        if model not in self._models:
            raise BadConfig(f'matrix: set "{self._name}": unknown var or model "{token}"')
        return [frozenset({model})]
