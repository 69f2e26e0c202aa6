"""Answers are kept for the very objects that they were made from, and for no others."""

from __future__ import annotations

import gc

from labctl.inventory import Host, Model, Rack
from labctl.inventory.remembered import remembered


def counting(most: int) -> tuple[list[str], object]:
    asked: list[str] = []

    @remembered(most)
    def name(host: Host) -> str:
        asked.append(host.name)
        return host.name

    return asked, name


def test_an_answer_is_made_once_for_an_object_and_anew_for_an_equal_one() -> None:
    asked, name = counting(2)
    one, twin = Host(name="a", address="x"), Host(name="a", address="x")
    assert one == twin
    assert [name(one), name(one), name(twin), name(one)] == ["a"] * 4  # type: ignore[operator]
    assert asked == ["a", "a"]


def test_only_the_last_answers_are_kept() -> None:
    asked, name = counting(2)
    hosts = [Host(name=letter, address="x") for letter in "abc"]
    for host in (*hosts, hosts[2], hosts[0]):
        name(host)  # type: ignore[operator]
    assert asked == ["a", "b", "c", "a"]


def test_an_object_that_is_gone_is_never_taken_for_a_new_one() -> None:
    _, name = counting(1000)
    for number in range(500):
        # Without being kept, one of these would be given the memory, and so the id, of an earlier one.
        assert name(Host(name=f"h{number}", address="x")) == f"h{number}"  # type: ignore[operator]
        gc.collect(0)


def test_a_rack_finds_its_models_by_id_and_alias_the_first_of_two() -> None:
    models = [Model(id="a", aliases=["x"], source="/1"), Model(id="b", aliases=["x"], source="/2")]
    rack = Rack(name="r", hosts=[], models=models)
    assert [rack.model(name).id for name in ("a", "x", "b")] == ["a", "a", "b"]
    other = Rack(name="r", hosts=[], models=models[1:])
    assert other.model("x").id == "b"
