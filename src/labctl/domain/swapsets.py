"""Which models llama-swap may have loaded at the same time, by its matrix or its groups.

As llama-swap v250 reads them (its internal/matrix and internal/router). A matrix has named sets. ``a & b``
means together, ``a | b`` either, ``&`` binds tighter, ``(...)`` holds together and ``+other`` stands for the
set of that name. A name is a key of ``vars`` first, then a model. A set allows its models to be loaded
together, it does not start them; so only the largest combinations matter, and every other one is part of one
of them. A model that is in no set is loaded alone.

Groups: loading a model stops the other members of its own group (``swap``), and the models of all other
groups that are not ``persistent`` (``exclusive``). A group that is not exclusive stops nobody else's, so its
models come beside those of an exclusive group that were there first. Hence of the groups that are exclusive
and not persistent one at a time has models loaded, and all others may have theirs at the same time. Models
that are in no group form a group of their own, which swaps and is exclusive.

What cannot be read is refused. So is what has too many combinations to look at each of them, since what
nobody looked at is not known to fit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

ALONE = ""
UNGROUPED = "(default)"
MOST_SETS = 1000
_MOST_JOINED = 50_000  # before those that are part of others are left out
DEEPEST = 50
_TOKEN = re.compile(r"\s*(?:(?P<ref>\+[\w.-]*)|(?P<name>[\w.-]+)|(?P<sign>[&|()])|(?P<bad>\S))")

Combination = frozenset[str]


class SetError(ValueError):
    """A set that cannot be read or looked at: ``name`` says which, ``reason`` why, ``hint`` what to do."""

    def __init__(self, name: str, reason: str, hint: str = "") -> None:
        self.name, self.reason, self.hint = name, reason, hint
        super().__init__(f"set {name!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Group:
    """A group of llama-swap; the words are its own."""

    name: str
    members: tuple[str, ...]
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class _Node:
    """A part of an expression: a model, a reference, or several parts joined by ``&`` or ``|``."""

    kind: str
    name: str = ""
    parts: tuple[_Node, ...] = ()


def matrix_sets(
    sets: Mapping[str, str], vars: Mapping[str, str], models: Collection[str]
) -> dict[str, tuple[Combination, ...]]:
    """Return for each set the largest combinations of models that it allows, in a stable order.

    Models that are in no set are combinations of one under the name ``ALONE``.

    Raises:
        SetError: a set cannot be read, names what is not there, refers to itself, or allows more than
            ``MOST_SETS`` combinations.
    """
    trees = {name: _Reader(name, text).whole() for name, text in sets.items()}
    for name, tree in trees.items():
        _check_names(name, tree, (trees, vars, models))
    found: dict[str, tuple[Combination, ...]] = {}
    for name in _in_order(trees):
        found[name] = _ordered(_expand(name, trees[name], found, vars))
    in_sets = {model for combinations in found.values() for one in combinations for model in one}
    result = {name: found[name] for name in sets}
    if lone := [frozenset({model}) for model in models if model not in in_sets]:
        result[ALONE] = _ordered(lone)
    return result


def group_sets(groups: Sequence[Group], models: Collection[str]) -> dict[str, tuple[Combination, ...]]:
    """Return the largest combinations of models that groups allow, by the names of the groups that meet.

    Names are joined by `` + ``; ``UNGROUPED`` stands for the models that are in no group.

    Raises:
        SetError: a member is not there or in two groups, or there are more than ``MOST_SETS`` combinations.
    """
    owner: dict[str, str] = {}
    for group in groups:
        for member in group.members:
            if member not in models:
                raise SetError(group.name, f"there is no model {member!r} in this llama-swap")
            if member in owner:
                raise SetError(group.name, f"{member} is in group {owner[member]} already")
            owner[member] = group.name
    rest = tuple(model for model in models if model not in owner)
    every = [group for group in (*groups, Group(UNGROUPED, rest)) if group.members]
    takes_turns = [group for group in every if group.exclusive and not group.persistent]
    others = [group for group in every if group not in takes_turns]
    meetings = [[one, *others] for one in takes_turns] or [others] * bool(others)
    return {" + ".join(group.name for group in meeting): _members(meeting) for meeting in meetings}


def _members(groups: Sequence[Group]) -> tuple[Combination, ...]:
    """Return every way in which groups can be loaded beside each other, each with as much as it may."""
    choices = [
        [frozenset({member}) for member in group.members] if group.swap else [frozenset(group.members)]
        for group in groups
    ]
    if (count := prod(len(choice) for choice in choices)) > MOST_SETS:
        raise SetError(
            " + ".join(group.name for group in groups),
            f"allow {count} combinations of models, more than the {MOST_SETS} that are looked at",
            "let more groups be exclusive, or state the combinations by a matrix",
        )
    loaded = [Combination()]
    for choice in choices:
        loaded = [before | one for before in loaded for one in choice]
    return _ordered(loaded)


def _ordered(combinations: Iterable[Combination]) -> tuple[Combination, ...]:
    return tuple(sorted(set(combinations), key=lambda one: (-len(one), sorted(one))))


class _Reader:
    """Reads one expression: ``either`` of ``together`` of names, references and parentheses."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._tokens = list(self._split(text))
        self._at = 0
        self._depth = 0

    def _split(self, text: str) -> Iterator[tuple[str, int]]:
        for match in _TOKEN.finditer(text):
            place = match.start(match.lastgroup or 0) + 1
            if match["bad"]:
                raise SetError(
                    self._name, f"unexpected character {match['bad']!r} at position {place}", _CURE
                )
            if match["ref"] == "+":
                raise SetError(self._name, f"no set is named after the + at position {place}", _CURE)
            yield match[match.lastgroup or 0].strip(), place

    def whole(self) -> _Node:
        """Return the whole expression."""
        if not self._tokens:
            raise SetError(self._name, "is empty", _CURE)
        tree = self._either()
        if self._peek():
            raise self._unexpected()
        return tree

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _unexpected(self) -> SetError:
        if self._at >= len(self._tokens):
            return SetError(self._name, "ends where a model or a parenthesis is missing", _CURE)
        word, place = self._tokens[self._at]
        return SetError(self._name, f"unexpected {word!r} at position {place}", _CURE)

    def _either(self) -> _Node:
        parts = [self._together()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._together())
        return parts[0] if len(parts) == 1 else _Node("|", parts=tuple(parts))

    def _together(self) -> _Node:
        parts = [self._atom()]
        while self._peek() == "&":
            self._at += 1
            parts.append(self._atom())
        return parts[0] if len(parts) == 1 else _Node("&", parts=tuple(parts))

    def _atom(self) -> _Node:
        word = self._peek()
        if word in ("", "&", "|", ")"):
            raise self._unexpected()
        self._at += 1
        if word == "(":
            self._depth += 1
            if self._depth > DEEPEST:
                raise SetError(self._name, f"has more than {DEEPEST} parentheses in each other", _CURE)
            inner = self._either()
            if self._peek() != ")":
                raise self._unexpected()
            self._at += 1
            self._depth -= 1
            return inner
        return _Node("ref", word[1:]) if word.startswith("+") else _Node("model", word)


_CURE = 'write "a & b" for together, "a | b" for either, "(...)" and "+other" for another set'


def _leaves(tree: _Node) -> Iterator[_Node]:
    if not tree.parts:
        yield tree
    for part in tree.parts:
        yield from _leaves(part)


def _check_names(
    name: str, tree: _Node, known: tuple[Collection[str], Mapping[str, str], Collection[str]]
) -> None:
    sets, vars, models = known
    for leaf in _leaves(tree):
        if leaf.kind == "ref" and leaf.name not in sets:
            raise SetError(name, f"there is no set {leaf.name!r} for +{leaf.name}", _list("sets", sets))
        if leaf.kind == "model" and vars.get(leaf.name, leaf.name) not in models:
            raise SetError(
                name,
                f"there is no model or var {leaf.name!r} in this llama-swap",
                _list("models", {*models, *vars}),
            )


def _list(what: str, names: Iterable[str]) -> str:
    return f"{what}: {', '.join(sorted(names))}"


def _in_order(trees: Mapping[str, _Node]) -> list[str]:
    """Return the names so that each comes after those that it refers to.

    Raises:
        SetError: sets refer to each other in a circle.
    """
    needs = {
        name: {leaf.name for leaf in _leaves(tree) if leaf.kind == "ref"} for name, tree in trees.items()
    }
    order: list[str] = []
    while len(order) < len(trees):
        ready = [name for name in trees if name not in order and needs[name] <= set(order)]
        if not ready:
            stuck = next(name for name in trees if name not in order)
            raise SetError(stuck, "refers to itself by way of +", "break the circle")
        order += ready
    return order


def _expand(
    name: str, tree: _Node, found: Mapping[str, tuple[Combination, ...]], vars: Mapping[str, str]
) -> list[Combination]:
    """Return the largest combinations of an expression, of which none is part of another."""
    if tree.kind == "model":
        return [frozenset({vars.get(tree.name, tree.name)})]
    if tree.kind == "ref":
        return list(found[tree.name])
    parts = [_expand(name, part, found, vars) for part in tree.parts]
    if tree.kind == "|":
        return _largest(name, (one for part in parts for one in part))
    joined = parts[0]
    for part in parts[1:]:
        if len(joined) * len(part) > _MOST_JOINED:
            raise _too_many(name)
        joined = _largest(name, (left | right for left in joined for right in part))
    return joined


def _largest(name: str, combinations: Iterable[Combination]) -> list[Combination]:
    """Return those that are part of no other one."""
    kept: dict[Combination, None] = {}
    unseen = dict.fromkeys(combinations)
    if len(unseen) > MOST_SETS:
        raise _too_many(name)
    for one in sorted(unseen, key=len, reverse=True):
        if not any(one < other for other in kept):
            kept[one] = None
    return list(kept)


def _too_many(name: str) -> SetError:
    return SetError(
        name,
        f"allows more than {MOST_SETS} combinations of models, too many to show that each of them fits",
        "join fewer alternatives by &",
    )
