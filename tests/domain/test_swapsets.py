"""Which models llama-swap may load together, judged by doing what it does, load after load."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.swapsets import ALONE, MOST_SETS, UNGROUPED, Group, SetError, group_sets, matrix_sets

MODELS = ("a", "b", "c", "d", "e", "f")


def words(found: dict[str, tuple[frozenset[str], ...]]) -> dict[str, list[str]]:
    """Return the combinations as words of one letter for each model."""
    return {name: ["".join(sorted(one)) for one in combinations] for name, combinations in found.items()}


@pytest.mark.parametrize(
    ("text", "combinations"),
    [
        ("a", ["a"]),
        ("a & b", ["ab"]),
        ("a|b", ["a", "b"]),
        ("a & b | c", ["ab", "c"]),
        ("a & (b | c)", ["ab", "ac"]),
        ("(a | b) & (c | d)", ["ac", "ad", "bc", "bd"]),
        ("a & a", ["a"]),
        ("a | a & b", ["ab"]),
        ("((a))", ["a"]),
        ("+other & a", ["abc"]),
        ("a & +other | d", ["abc", "d"]),
        ("x & y", ["ab"]),
    ],
)
def test_an_expression_allows_these_combinations(text: str, combinations: list[str]) -> None:
    sets = {"one": text, "other": "b & c"}
    assert words(matrix_sets(sets, {"x": "a", "y": "b"}, MODELS))["one"] == combinations


def test_a_var_goes_before_a_model_of_the_same_name() -> None:
    assert words(matrix_sets({"one": "a & c"}, {"a": "b"}, ["a", "b", "c"]))["one"] == ["bc"]


def test_a_model_in_no_set_is_loaded_alone() -> None:
    assert words(matrix_sets({"one": "a & b"}, {}, ["a", "b", "c", "d"])) == {
        "one": ["ab"],
        ALONE: ["c", "d"],
    }


@pytest.mark.parametrize(
    ("sets", "name", "reason"),
    [
        ({"one": ""}, "one", "is empty"),
        ({"one": "a &"}, "one", "ends where a model or a parenthesis is missing"),
        ({"one": "(a | b"}, "one", "ends where a model or a parenthesis is missing"),
        ({"one": "a b"}, "one", "unexpected 'b' at position 3"),
        ({"one": "a )"}, "one", "unexpected ')' at position 3"),
        ({"one": "a && b"}, "one", "unexpected '&' at position 4"),
        ({"one": "a, b"}, "one", "unexpected character ',' at position 2"),
        ({"one": "a & + b"}, "one", "no set is named after the + at position 5"),
        ({"one": "a & z"}, "one", "there is no model or var 'z' in this llama-swap"),
        ({"one": "a & +two"}, "one", "there is no set 'two' for +two"),
        ({"one": "+two", "two": "+one"}, "one", "refers to itself by way of +"),
        ({"fine": "a", "one": "b | +one"}, "one", "refers to itself by way of +"),
        ({"one": "(" * 51 + "a" + ")" * 51}, "one", "has more than 50 parentheses in each other"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_set(sets: dict[str, str], name: str, reason: str) -> None:
    with pytest.raises(SetError) as caught:
        matrix_sets(sets, {}, MODELS)
    assert (caught.value.name, caught.value.reason) == (name, reason)
    assert caught.value.hint


def test_too_many_combinations_are_refused_at_once() -> None:
    models = [f"m{n}" for n in range(40)]
    text = " & ".join(f"({' | '.join(models[n : n + 4])})" for n in range(0, 40, 4))
    with pytest.raises(SetError, match=f"more than {MOST_SETS} combinations of models"):
        matrix_sets({"one": text}, {}, models)
    groups = [Group(f"g{n}", tuple(models[n : n + 4]), exclusive=False) for n in range(0, 40, 4)]
    with pytest.raises(SetError, match="allow 1048576 combinations of models"):
        group_sets(groups, models)


Expression = tuple[str, list[frozenset[str]]]


def either(parts: list[Expression]) -> Expression:
    """Return both as text and as every combination, the way it is defined."""
    return f"({' | '.join(text for text, _ in parts)})", [one for _, found in parts for one in found]


def together(parts: list[Expression]) -> Expression:
    """Return the same for &."""
    found = [frozenset[str]().union(*chosen) for chosen in product(*(found for _, found in parts))]
    return f"({' & '.join(text for text, _ in parts)})", found


_LEAF = st.sampled_from(MODELS).map(lambda name: (name, [frozenset({name})]))
_EXPRESSION = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([either(parts), together(parts)])
    ),
    max_leaves=9,
)


@given(_EXPRESSION)
def test_a_matrix_has_every_largest_combination_and_no_other(expression: Expression) -> None:
    text, every = expression
    found = matrix_sets({"one": text}, {}, MODELS)["one"]
    assert set(found) == {one for one in every if not any(one < other for other in every)}


_GROUPS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=3).flatmap(
    lambda flags: st.lists(st.integers(0, len(flags)), min_size=1, max_size=5).map(
        lambda places: (
            tuple(
                Group(
                    f"g{n}", tuple(m for m, place in zip(MODELS, places, strict=False) if place == n), *words
                )
                for n, words in enumerate(flags)
            ),
            MODELS[: len(places)],
        )
    )
)


def stopped(target: str, running: frozenset[str], groups: list[Group]) -> frozenset[str]:
    """Return what llama-swap's group router stops before it loads a model (``EvictionFor``)."""
    of = {member: group for group in groups for member in group.members}
    return frozenset(
        other
        for other in running - {target}
        if (of[other] is of[target] and of[target].swap)
        or (of[other] is not of[target] and of[target].exclusive and not of[other].persistent)
    )


def reachable(groups: list[Group], models: tuple[str, ...]) -> set[frozenset[str]]:
    """Return every set of loaded models that any order of requests leads to."""
    seen, todo = {frozenset[str]()}, [frozenset[str]()]
    while todo:
        running = todo.pop()
        for target in models:
            if target not in running:
                after = (running - stopped(target, running, groups)) | {target}
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return seen


@settings(max_examples=300)
@given(_GROUPS)
def test_groups_have_every_largest_set_that_requests_can_lead_to(
    given_: tuple[tuple[Group, ...], tuple[str, ...]],
) -> None:
    groups, models = given_
    grouped = {member for group in groups for member in group.members}
    rest = Group(UNGROUPED, tuple(model for model in models if model not in grouped))
    every = reachable([*groups, rest], models)
    found = {one for combinations in group_sets(groups, models).values() for one in combinations}
    assert found == {one for one in every if not any(one < other for other in every)}


def test_groups_that_meet_are_named() -> None:
    groups = [
        Group("big", ("a", "b")),
        Group("always", ("c", "d"), swap=False, exclusive=False, persistent=True),
    ]
    found = words(group_sets(groups, MODELS[:5]))
    assert found == {"big + always": ["acd", "bcd"], f"{UNGROUPED} + always": ["cde"]}


def test_a_member_that_is_not_there_or_in_two_groups_is_refused() -> None:
    with pytest.raises(SetError, match="there is no model 'z' in this llama-swap"):
        group_sets([Group("one", ("z",))], MODELS)
    with pytest.raises(SetError, match="a is in group one already"):
        group_sets([Group("one", ("a",)), Group("two", ("a",))], MODELS)
