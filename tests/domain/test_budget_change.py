"""The cheapest change, judged by trying everything and by counting the changed rack anew."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest
from budget_racks import excess, random_rack

from labctl.domain.budget import Card, Circuit, Host, Rack, Supply, budget_of, report
from labctl.domain.budget_change import CapTo, Change, cheapest_change
from labctl.domain.budget_states import Phase


def with_caps(rack: Rack, caps: tuple[CapTo, ...]) -> Rack:
    """Return the rack as a person would write it after the change."""
    wanted = {card: cap.watts for cap in caps for card in cap.cards}
    return replace(
        rack,
        hosts=tuple(
            replace(
                host,
                cards=tuple(
                    replace(card, watts=wanted.get((host.name, card.name), card.watts)) for card in host.cards
                ),
            )
            for host in rack.hosts
        ),
    )


def test_the_change_fits_and_no_change_of_a_watt_less_does() -> None:
    dice, changed = Random(11), 0
    for _ in range(400):
        rack = random_rack(dice)
        change = cheapest_change(rack)
        after = with_caps(rack, change.caps)
        lost = {shortage.meter.title for shortage in change.shortages}
        left = {line.meter.title for line in report(after).over}
        assert left <= lost, change.text
        if not lost:
            ramping = {host.name: Phase.RAMPING for host in after.hosts}
            caps = {(host.name, card.name): card.watts for host in after.hosts for card in host.cards}
            assert excess(after, ramping, caps) == ""
        for place, cap in enumerate(change.caps):
            changed += 1
            lowest = {card.lowest_w for host in rack.hosts for card in host.cards if card.kind == cap.kind}
            assert {cap.watts >= (low or 0) for low in lowest} == {True}
            milder = (*change.caps[:place], replace(cap, watts=cap.watts + 1), *change.caps[place + 1 :])
            assert {line.meter.title for line in report(with_caps(rack, milder)).over} - lost, change.text
    assert changed > 100


def _by_trying_everything(rack: Rack) -> int | None:
    """Return the fewest watts that have to be taken, trying every pair of caps."""
    (host,) = rack.hosts
    ranges = {card.kind: range(card.lowest_w or card.watts, card.watts + 1) for card in host.cards}
    best = None
    for caps in product(*ranges.values()):
        wanted = dict(zip(ranges, caps, strict=True))
        cards = tuple(replace(card, watts=wanted[card.kind]) for card in host.cards)
        taken = sum(old.watts - new.watts for old, new in zip(host.cards, cards, strict=True))
        if (best is None or taken < best) and report(replace(rack, hosts=(replace(host, cards=cards),))).fits:
            best = taken
    return best


@pytest.mark.parametrize("seed", range(12))
def test_nothing_cheaper_is_found_by_trying_everything(seed: int) -> None:
    dice = Random(seed)
    cards = tuple(
        Card(f"{kind}{n}", kind, watts, watts - dice.randint(5, 25), dice.choice((1.2, 1.5, 1.9)))
        for kind, watts, count in (("a", 300, dice.randint(1, 5)), ("b", 200, dice.randint(1, 5)))
        for n in range(count)
    )
    cards = tuple(replace(card, spike=1.2 if card.kind == "a" else 1.7) for card in cards)
    cards = tuple(
        replace(card, lowest_w=next(c.lowest_w for c in cards if c.kind == card.kind)) for card in cards
    )
    total = sum(card.watts for card in cards)
    supplies = (
        Supply("p", int(total * 0.97), 0.9, dice.uniform(1.2, 1.5), "office", tuple(c.name for c in cards)),
        Supply("q", 300, 0.8, 1.3, "office", ("board",)),
    )
    rack = Rack((Host("box", 100, cards, supplies),), (Circuit("office", 230, total * 1.5 / 230),))
    change, best = cheapest_change(rack), _by_trying_everything(rack)
    if best is None:
        assert change.shortages
    else:
        assert not change.shortages
        assert change.taken_w == best


def test_a_hundred_hosts_in_trouble_are_helped_in_a_sentence_that_can_be_read() -> None:
    hosts = tuple(
        Host(
            f"n{i}",
            200,
            tuple(Card(f"slot{n}", "RTX 3090", 350, 100, 1.7) for n in range(8)),
            (Supply("psu", 2000, 0.9, 1.3, f"c{i % 5}"),),
        )
        for i in range(100)
    )
    circuits = (*(Circuit(f"c{i}", 230, 630, 0.8, "top") for i in range(5)), Circuit("top", 400, 500))
    text = cheapest_change(Rack(hosts, circuits)).text
    assert text == "cap 800 GPUs at 117 W (RTX 3090 in n0, n1, n2, n3, n4, n5 and 94 more)"


def test_each_meter_is_told_its_own_part_of_the_change() -> None:
    hosts = tuple(
        Host(name, 100, (Card("slot0", kind, 300, 100),), (Supply("psu", 350, 1.0),))
        for name, kind in (("a", "RTX 3090"), ("b", "RTX 4090"))
    )
    rack = Rack(hosts)
    table, change = budget_of(rack), cheapest_change(rack)
    assert [change.at(meter, table).text for meter in table.meters] == [
        "cap 1 GPU at 250 W (RTX 3090 in a)",
        "cap 1 GPU at 250 W (RTX 4090 in b)",
    ]
    assert Change().text == ""
