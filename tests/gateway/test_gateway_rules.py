"""Routes, slots, sticky conversations and the order of choices: pure rules, by tables and properties."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import pytest
from desk_kit import ANNA, model, table, upstream
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.gateway import routes, waiting
from labctl.domain.gateway.picking import Ease, Option, averaged, line_s, ordered
from labctl.domain.gateway.slots import Slots
from labctl.domain.gateway.sticky import Sticky, marks_of
from labctl.domain.gateway.table import Kind, Served, Waiting
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.desk.running import loaded_by
from labctl.gateway.refusals import code_of, joined, problem
from labctl.gateway.terms import Answer

# --- routes


@pytest.mark.parametrize(
    ("method", "path", "upgrade", "door"),
    [
        ("POST", "/v1/chat/completions", False, "model"),
        ("POST", "/v1/messages/count_tokens", False, "model"),
        ("POST", "/rerank", False, "model"),
        ("POST", "/v1/audio/speech", False, "model"),
        ("POST", "/v1/images/generations", False, "model"),
        ("GET", "/v1/chat/completions", False, None),
        ("POST", "/v1/audio/a/../../admin", False, None),
        ("POST", "/v1/audio//x", False, None),
        ("POST", "/v1/audio/%2e%2e", False, None),
        ("POST", "/v1/models", False, None),
        ("POST", "/v1/chat/completions/", False, None),
        ("GET", "/v1/realtime", True, "realtime"),
        ("GET", "/v1/realtime", False, None),
        ("POST", "/v1/realtime", True, None),
        ("GET", "/hosts/rig/props", False, "host"),
        ("GET", "/hosts", False, None),
    ],
)
def test_doors(method: str, path: str, upgrade: bool, door: str | None) -> None:
    assert routes.door(method, path, upgrade=upgrade) == door


@pytest.mark.parametrize(
    ("method", "path", "passes"),
    [
        ("POST", "/completion", True),
        ("GET", "/completion", False),
        ("POST", "/completion/", False),
        ("POST", "/completionist", False),
        ("GET", "/slots/", True),
        ("GET", "/slots/3", True),
        ("GET", "/slots/3/x", True),
        ("GET", "/slots", False),
        ("GET", "/slots/../props", False),
        ("GET", "/slots/./props", False),
        ("GET", "/slots//props", False),
        ("GET", "/slots/%2e%2e/props", False),
        ("GET", "/slots\\..\\props", False),
        ("", "", False),
    ],
)
def test_what_is_let_through(method: str, path: str, passes: bool) -> None:
    assert routes.matches(("POST /completion", "GET /slots/*"), method, path) is passes


def test_an_id_goes_before_an_alias_and_the_last_resort_is_kept_apart_in_its_order() -> None:
    models = (model("a", aliases=("b", "x")), model("b", last_resort=("cloud2", "cloud1")))
    ups = (upstream("rig"), upstream("cloud1", ""), upstream("cloud2", ""))
    served = tuple(Served("b", one.name, "b") for one in ups)
    found = routes.routes_of(table(models, ups, served))
    assert {name: route.model.id for name, route in found.items()} == {"a": "a", "b": "b", "x": "a"}
    assert [choice.upstream.name for choice in found["b"].choices] == ["rig"]
    assert [choice.upstream.name for choice in found["b"].last] == ["cloud2", "cloud1"]
    assert found["a"].choices == ()


def test_a_name_that_is_not_served_is_held_against_what_the_key_may_see() -> None:
    models = (model("qwen3", aliases=("qwen",)), model("qwen4"), model("qwen5", listed=False))
    found = routes.routes_of(table(models))
    assert set(routes.names_near(found, "qwen6", ANNA)) == {"qwen3", "qwen4", "qwen"}
    assert set(routes.names_near(found, "qwen6", replace(ANNA, models=("qwen4",)))) == {"qwen4"}
    assert routes.names_near(found, "x" * 100_000, ANNA) == []


# --- the order of choices


L, A, W, S, U = Ease.LOADED, Ease.AWAKE, Ease.WAKING, Ease.ASLEEP, Ease.UNSURE
ORDERS: list[tuple[str, list[Option]]] = [
    ("loaded, awake, waking, asleep", [Option(4, L), Option(3, A), Option(2, W), Option(1, S)]),
    ("a free slot before a model that is loaded", [Option(1, A), Option(0, L, free=False, seconds=1)]),
    ("a short line before a wake", [Option(1, A, free=False, seconds=5), Option(0, S, seconds=40)]),
    ("a wake before a long line", [Option(1, S, seconds=40), Option(0, A, free=False, seconds=50)]),
    ("a line before a wake without watts", [Option(1, A, free=False, seconds=9), Option(0, S, fits=False)]),
    ("the sooner of two that sleep", [Option(1, S, seconds=30), Option(0, S, seconds=60)]),
    ("the thriftier of two alike", [Option(1, S, seconds=31, watts=9), Option(0, S, seconds=29, watts=99)]),
    ("whoever sleeps before whoever is late", [Option(1, S, seconds=99), Option(0, W, seconds=1, late=True)]),
    ("whoever sleeps before whoever is lost", [Option(1, S, seconds=99), Option(0, U, seconds=1)]),
    ("a lost one before one without watts", [Option(1, U, seconds=99), Option(0, S, seconds=1, fits=False)]),
    ("whoever answered before whoever did not", [Option(1, S, seconds=99), Option(0, L, avoided=True)]),
    ("the less busy of two", [Option(1, L, running=1), Option(0, L, running=2)]),
    ("the conversation's", [Option(1, L, running=3, last=True), Option(0, L, running=0)]),
    ("not the conversation's, if far busier", [Option(0, L, running=0), Option(1, L, running=4, last=True)]),
    ("the table's order", [Option(0, L), Option(1, L)]),
]  # fmt: skip


@pytest.mark.parametrize(("why", "options"), ORDERS, ids=[why for why, _ in ORDERS])
def test_the_order_of_choices(why: str, options: list[Option]) -> None:
    for given_in in permutations(options):
        assert ordered(given_in) == options, why


OPTIONS = st.builds(
    Option,
    at=st.integers(0, 9),
    ease=st.sampled_from(Ease),
    free=st.booleans(),
    seconds=st.floats(0, 500),
    watts=st.floats(0, 900),
    running=st.integers(0, 9),
    last=st.booleans(),
    fits=st.booleans(),
    avoided=st.booleans(),
    late=st.booleans(),
)


@given(st.lists(OPTIONS, max_size=6, unique_by=lambda option: option.at))
def test_nobody_is_lost_and_who_is_free_and_answers_comes_first(options: list[Option]) -> None:
    result = ordered(options)
    assert sorted(option.at for option in result) == sorted(option.at for option in options)
    free = [option for option in options if option.ease <= A and option.free and not option.avoided]
    assert not free or result[0] in free


def test_a_line_moves_by_its_slots() -> None:
    assert line_s(0, 1, 10.0) == 10.0 and line_s(3, 4, 10.0) == 10.0
    assert averaged(10.0, 20.0) == 12.0


# --- slots


@given(
    st.integers(0, 3),
    st.lists(
        st.tuples(st.sampled_from(["come", "go", "give up"]), st.sampled_from("abc"), st.integers(0, 9))
    ),
)
def test_slots_are_never_more_than_there_are_and_never_empty_while_somebody_waits(
    limit: int, acts: list[tuple[str, str, int]]
) -> None:
    slots: Slots[int] = Slots(limit, 5)
    running, lined = 0, list[tuple[str, int]]()
    for number, (act, key, which) in enumerate(acts):
        if act == "come":
            if slots.free():
                slots.enter()
                running += 1
            elif slots.line_up(key, number):
                lined.append((key, number))
            else:
                assert sum(one[0] == key for one in lined) == 5
        elif act == "go" and running:
            ahead = {one: slots.ahead(*one) for one in lined}
            who = slots.leave()
            if lined:
                one = next(one for one in lined if one[1] == who)
                assert ahead[one] == 0
                lined.remove(one)
            else:
                assert who is None
                running -= 1
        elif act == "give up" and lined:
            slots.give_up(*lined.pop(which % len(lined)))
        slots.give_up(key, -1)  # nobody
        assert slots.running == running and slots.waiting == len(lined)
        assert not limit or running <= limit
        assert not lined or running == limit


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_keys_take_turns_and_each_is_served_in_its_order(keys: list[str]) -> None:
    slots: Slots[int] = Slots(1, 99)
    slots.enter()
    for number, key in enumerate(keys):
        slots.line_up(key, number)
    told = [slots.ahead(key, number) for number, key in enumerate(keys)]
    served = [slots.leave() for _ in keys]
    # What was told of the place in line came true.
    assert [served[place] for place in told] == list(range(len(keys)))
    for key in "abc":
        mine = [number for number in served if number is not None and keys[number] == key]
        assert mine == sorted(mine)
    # Between two turns of a key nobody else has more than one.
    for first in "abc":
        turns = [at for at, number in enumerate(served) if number is not None and keys[number] == first]
        for before, after in pairwise(turns):
            between = Counter(keys[number] for number in served[before + 1 : after] if number is not None)
            assert max(between.values(), default=0) <= 1


# --- conversations


class Conversations:
    """``Sticky`` as it is used."""

    def __init__(self, most: int = 100) -> None:
        self.sticky = Sticky(most)

    def served(self, body: bytes, by: str, model: str = "m", **named: bytes) -> None:
        self.sticky.served(self.marks(body, model, **named), by)

    def last(self, body: bytes, model: str = "m", **named: bytes) -> str:
        return self.sticky.last(self.marks(body, model, **named))

    def marks(self, body: bytes, model: str, **named: bytes) -> Any:
        headers = {name.replace("_", "-").encode(): value for name, value in named.items()}
        return marks_of(model, {b"host": b"x", **headers}, body)


def test_a_conversation_is_known_by_its_beginning_or_by_its_header() -> None:
    known = Conversations()
    first = b'{"messages":[' + bytes(range(256)) * 3
    known.served(first, "rig")
    assert known.last(first + b"and so on" * 100) == "rig"
    assert known.last(first[:300]) == known.last(b"x" + first) == known.last(first, "other") == ""
    known.served(b"short", "rig")
    assert known.last(b"short") == ""
    known.served(first, "box", x_session_id=b"s1")
    assert known.last(b"anything", x_session_id=b"s1") == "box"
    assert known.last(first, x_session_id=b"s2") == known.last(first, x_conversation_id=b"s1") == ""
    assert known.last(first) == "rig"


def test_the_longest_beginning_decides_and_the_oldest_is_forgotten() -> None:
    known = Conversations(most=2)
    base = b"i" * 512
    known.served(base, "rig")
    known.served(base + b"a" * 600, "box")
    assert known.last(base + b"a" * 700) == "box"
    assert known.last(base + b"b" * 700) == "rig"
    known.served(b"z" * 300, "nas")
    assert known.last(base + b"b" * 700) == ""


# --- how a wait is presented


@pytest.mark.parametrize(
    ("asked", "of_model", "way"),
    [
        (b"", None, Waiting.COMMENTS),
        (b"", Waiting.SILENT, Waiting.SILENT),
        (b"loading", Waiting.SILENT, Waiting.LOADING),
        (b"nonsense", Waiting.SILENT, Waiting.SILENT),
    ],
)
def test_the_way_to_wait(asked: bytes, of_model: Waiting | None, way: Waiting) -> None:
    assert waiting.way_of({b"labctl-waiting": asked}, model(waiting=of_model), ANNA) is way


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (b"", 60),
        (b"wait=5", 5),
        (b"respond-async, wait=5", 5),
        (b"wait=0", 0),
        (b"wait=600", 60),
        (b"wait=-5", 60),
        (b"wait=5x", 60),
        (b"await=5", 60),
    ],
)
def test_patience(prefer: bytes, seconds: float) -> None:
    assert waiting.patience_s({b"prefer": prefer}, 60.0) == seconds


def test_every_mode_is_said_in_words() -> None:
    texts = {waiting.of_host("rig", mode, 90.0) for mode in Mode}
    assert len(texts) == len(Mode) - 1  # ready and draining are one
    assert waiting.of_host("rig", Mode.WAKING, 90.0) == "rig is waking, about 90 s left"
    assert waiting.of_host("rig", Mode.WAKING, 0.0) == "rig is waking"
    assert waiting.of_line("rig", 0) == "rig is busy, you are next"
    assert waiting.of_line("rig", 1) == "rig is busy, 1 request before yours"
    assert waiting.of_loading("rig", "qwen", -1.0) == "rig loads qwen"


# --- refusals


def test_a_refusal_is_a_problem_document_and_an_error_of_openai_at_once() -> None:
    answer = problem(503, "wake-failed", "rig did not come up", host="rig", hint="look", retry_after_s=0.2)
    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    assert answer.headers == (("Retry-After", "1"),)
    assert json.loads(answer.body) == {
        "type": "urn:labctl:problem:wake-failed",
        "title": "Wake failed",
        "status": 503,
        "detail": "rig did not come up",
        "host": "rig",
        "hint": "look",
        "error": {
            "message": "rig did not come up (look)",
            "type": "overloaded_error",
            "code": "wake-failed",
            "param": None,
        },
    }
    assert code_of(answer) == "wake-failed" and code_of(Answer(200, b"hello", "text/plain")) == ""


def test_several_refusals_are_one_with_all_reasons_once_each() -> None:
    told = [problem(503, "a", "one", host="rig"), problem(429, "b", "two"), problem(429, "b", "two")]
    one = joined(told)
    assert (one.status, code_of(one)) == (503, "a")
    assert json.loads(one.body)["detail"] == "one; two" and json.loads(one.body)["host"] == "rig"
    assert joined(told[:1]) is told[0]


# --- what is loaded


@pytest.mark.parametrize(
    ("kind", "said", "names"),
    [
        (Kind.LLAMA_SWAP, {"running": []}, set()),
        (Kind.LLAMA_SWAP, {"running": [{"model": "a"}, {"model": "b", "state": "stopping"}]}, {"a"}),
        (Kind.OLLAMA, {"models": [{"name": "a:latest", "model": "a:latest"}]}, {"a", "a:latest"}),
        (Kind.OLLAMA, {"models": [{"name": "a:8b"}]}, {"a:8b"}),
    ],
)  # fmt: skip
def test_what_upstreams_say_that_they_have_loaded(kind: Kind, said: Any, names: set[str]) -> None:
    assert loaded_by(kind, json.dumps(said).encode()) == names


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"running": 3}'])
def test_what_they_say_otherwise_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):
        loaded_by(Kind.LLAMA_SWAP, body)
