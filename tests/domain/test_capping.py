"""Which cap a card gets and who may change it: tables, properties, and documents that lie."""

from __future__ import annotations

import json
import typing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain import cap_json
from labctl.domain.capping import (
    REASONS,
    Card,
    Change,
    Declared,
    Order,
    Override,
    Refusal,
    address,
    by_time,
    effective,
    judge,
    match,
    reached,
    replaced,
    select,
    with_order,
)
from labctl.domain.gpus import CapReason

A, B, C = (f"GPU-11111111-2222-3333-4444-00000000000{n}" for n in range(3))
MODEL = (r"NVIDIA GeForce RTX 3090",)
CARD = Card("nvidia", A, "0000:3b:00.0", "NVIDIA GeForce RTX 3090", 350.0, 100.0, 400.0, 350.0)
AMD = Card("amd", "a1b2c3", "0000:03:00.0", "Radeon RX 7900 XTX", 300.0, 200.0, 345.0, 300.0)
APU = Card("amd", None, "0000:c3:00.0", "AMD Radeon Graphics")


def declared(**given: typing.Any) -> Declared:
    return Declared(**{"model": "RTX 3090", "patterns": MODEL, **given})


def card(uuid: str | None, pci: str, name: str = "NVIDIA GeForce RTX 3090") -> Card:
    return replace(CARD, uuid=uuid, pci=pci, name=name)


def test_the_reasons_are_those_of_the_inventory() -> None:
    assert typing.get_args(CapReason) == REASONS


# --- which card is which ---


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("3b:00.0", "0000:3b:00.0"),
        ("10000:e1:00.0", "10000:e1:00.0"),
        ("0000:3b:00.8", None),
        ("slot3", None),
        ("0000:3b:00.0\n", None),
        ("", None),
        (None, None),
    ],
)
def test_a_pci_address_has_one_spelling(text: str | None, normal: str | None) -> None:
    assert address(text) == normal


def test_uuid_comes_before_address_and_address_before_model() -> None:
    first, second, third = card(A, "0000:01:00.0"), card(B, "0000:02:00.0"), card(C, "0000:03:00.0")
    by_model = declared(slot="any")
    by_pci = declared(pci="0000:01:00.0")
    by_uuid = declared(uuid=A.upper().replace("GPU", "gpu"))
    matched = match([by_model, by_pci, by_uuid], [third, second, first])
    # The card at 01 is taken by its UUID, so who asks for that address goes without.
    assert matched.pairs == ((by_model, second), (by_uuid, first))
    assert (matched.missing, matched.extra) == ((by_pci,), (third,))


def test_cards_that_need_not_be_told_apart_are_dealt_out_in_order_of_their_address() -> None:
    one, two = declared(slot="slot0"), declared(slot="slot1")
    cards = [card(A, "0000:af:00.0"), card(B, "0000:3b:00.0")]
    assert match([one, two], cards).pairs == ((one, cards[1]), (two, cards[0]))


def test_a_removed_card_is_missing_and_takes_no_other_cards_place() -> None:
    kept, gone = declared(uuid=A), declared(uuid=B)
    matched = match([gone, kept], [card(A, "0000:01:00.0"), card(C, "0000:02:00.0")])
    assert (matched.missing, [c.uuid for c in matched.extra]) == ((gone,), [C])


def test_a_card_replaced_in_its_slot_gets_the_cap_when_it_is_of_the_model() -> None:
    wanted = declared(uuid=A, pci="0000:01:00.0")
    ((_, found),) = match([wanted], [card(B, "0000:01:00.0")]).pairs
    assert found.uuid == B and replaced(wanted, found)
    assert match([wanted], [card(B, "0000:01:00.0", "NVIDIA A100")]).pairs == ()


def test_a_card_that_does_not_tell_its_uuid_is_known_by_its_address() -> None:
    wanted = declared(uuid=A, pci="0000:01:00.0")
    ((_, found),) = match([wanted], [card(None, "00000000:01:00.0", "something")]).pairs
    assert not replaced(wanted, found)


_NAMES = st.sampled_from([None, A, B, C])
_PLACES = st.sampled_from([None, "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"])
_CARDS = st.lists(st.builds(card, _NAMES, _PLACES), max_size=4)
_DECLARED = st.lists(st.builds(lambda u, p: declared(uuid=u, pci=p), _NAMES, _PLACES), max_size=4)


@given(_DECLARED, _CARDS)
def test_each_card_and_each_declaration_ends_in_exactly_one_place(
    wanted: list[Declared], cards: list[Card]
) -> None:
    matched = match(wanted, cards)
    by_repr = sorted(map(repr, [*(found for _, found in matched.pairs), *matched.extra]))
    assert by_repr == sorted(map(repr, cards))
    assert sorted(map(repr, [*(one for one, _ in matched.pairs), *matched.missing])) == sorted(
        map(repr, wanted)
    )


def test_cards_are_called_by_uuid_address_or_slot() -> None:
    cards = [card(A, "0000:01:00.0"), card(B, "0000:02:00.0"), card(C, "0000:03:00.0")]
    matched = match([declared(slot="slot7", uuid=C)], cards)
    chosen, unknown = select(["slot7", A.lower(), "02:00.0", A, "slot9"], cards, matched)
    assert ([c.uuid for c in chosen], unknown) == ([A, B, C], ("slot9",))
    assert select(None, cards, matched) == (tuple(cards), ())


# --- what an order may do ---


@pytest.mark.parametrize(
    ("order", "what", "cap", "verdict"),
    [
        (Order(watts=200), CARD, None, Change(200)),
        (Order(watts=100), CARD, None, Change(100)),
        (Order(watts=400), CARD, None, Change(400)),
        (Order(watts=99), CARD, None, "99 W is below what this card takes: 100 to 400 W"),
        (Order(watts=401), CARD, None, "401 W is above what this card takes: 100 to 400 W"),
        (Order(watts=200), APU, None, "this card has no power cap"),
        (Order(watts=250), AMD, None, Change(250)),
        (Order(clocks_mhz=(300, 1500)), CARD, None, Change(None, (300, 1500))),
        (Order(clocks_mhz="reset"), CARD, None, Change(None, "reset")),
        (Order(clocks_mhz=(300, 1500)), AMD, None, "labctl locks clocks on NVIDIA cards only"),
        (Order(watts=251), CARD, (250, "circuit"), "251 W is above the 250 W that protect its circuit"),
        (Order(watts=251), CARD, (250, "psu"), "251 W is above the 250 W that protect its psu"),
        (Order(watts=250), CARD, (250, "psu"), Change(250)),
        (Order(watts=300), CARD, (250, "noise"), Change(300)),
        (Order(watts=300, override="the other box is off"), CARD, (250, "circuit"), Change(300)),
        (Order(watts=401, override="I know"), CARD, (250, "circuit"), "401 W is above what this card takes"),
    ],
)
def test_an_order_is_done_or_refused_in_words(
    order: Order, what: Card, cap: tuple[int, str] | None, verdict: Change | str
) -> None:
    wanted = declared(cap_w=cap[0], reason=cap[1]) if cap else None
    found = judge(order, what, wanted)
    if isinstance(verdict, str):
        assert isinstance(found, Refusal) and found.why.startswith(verdict)
    else:
        assert found == verdict


def test_who_cannot_go_so_low_is_told_of_clock_locks_and_of_its_range() -> None:
    blackwell = replace(CARD, limit_w=575.0, min_w=400.0, max_w=600.0)
    refusal = judge(Order(watts=300), blackwell, None)
    assert isinstance(refusal, Refusal)
    assert "400 to 600 W" in refusal.why and "--lock-clocks MIN,MAX" in refusal.hint
    no_cap = judge(Order(watts=300), APU, None)
    assert isinstance(no_cap, Refusal) and (no_cap.status, no_cap.hint) == ("no-cap", "")


def test_a_limit_is_reached_as_far_as_drivers_round() -> None:
    assert reached(199.5, 200) and reached(200.0, 200)
    assert not reached(199.0, 200) and not reached(None, 200)


# --- what holds when nobody orders anything ---


def override(**given: typing.Any) -> Override:
    return Override(**{"uuid": A, "pci": "0000:3b:00.0", "at": 100, "seen": 100, **given})


def test_an_override_beats_the_inventory_and_a_timed_one_beats_a_lasting_one() -> None:
    cap = declared(cap_w=250, reason="noise", clocks_mhz=(300, 1800))
    lasting, timed = override(watts=220), override(watts=180, until=500, reason="heat")
    for order in ([lasting, timed], [timed, lasting]):
        wish, ignored = effective(CARD, cap, order)
        assert (wish.watts, wish.clocks_mhz, wish.source, wish.reason) == (
            180,
            (300, 1800),
            "override",
            "heat",
        )
        assert ignored == ()
    assert effective(CARD, cap, [])[0].watts == 250
    assert effective(CARD, None, [])[0].source == ""
    assert effective(CARD, None, [override(uuid=B, watts=100)])[0].watts is None


def test_an_override_above_a_protecting_cap_needs_words_also_when_the_cap_came_later() -> None:
    cap = declared(cap_w=250, reason="circuit")
    bold = override(watts=300)
    wish, ignored = effective(CARD, cap, [bold])
    assert (wish.watts, ignored) == (250, (bold,))
    with_words = override(watts=300, words="fed by the other circuit today")
    assert effective(CARD, cap, [with_words])[0].watts == 300


def test_a_timed_override_ends_and_shows_the_lasting_one_again() -> None:
    stack = with_order(with_order((), override(watts=220)), override(watts=180, until=500))
    assert effective(CARD, None, by_time(stack, 499).live)[0].watts == 180
    assert effective(CARD, None, by_time(stack, 500).live)[0].watts == 220
    assert with_order(stack, override(watts=300)) == (override(watts=300),)
    assert with_order(stack, override(uuid=B, pci="0000:01:00.0", watts=1))[:2] == stack


def test_a_new_override_of_the_clocks_leaves_the_watts_alone() -> None:
    both = override(watts=220, clocks_mhz=(300, 1500))
    first, second = with_order((both,), override(clocks_mhz="reset"))
    assert (first.watts, first.clocks_mhz, second.clocks_mhz) == (220, None, "reset")


def test_a_clock_in_the_past_suspends_a_timed_override_and_stretches_none() -> None:
    timed, lasting = override(watts=300, until=5000, at=1000, seen=2000), override(watts=220, at=1000)
    assert by_time([timed, lasting], 2000).live == (timed, lasting)
    assert by_time([timed, lasting], 1999) == ((lasting,), (), (timed,))
    assert by_time([timed, lasting], 0) == ((lasting,), (), (timed,))
    assert by_time([timed, lasting], 5000) == ((lasting,), (timed,), ())


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 10_000))
def test_an_override_never_holds_after_its_time(now: int, at: int, until: int) -> None:
    found = by_time([override(watts=300, at=at, seen=at, until=until)], now)
    assert sum(map(len, found)) == 1
    assert bool(found.live) == (at <= now < until)


# --- documents ---

GOOD = {"format": 1, "watts": 200}


def test_documents_survive_the_way_there_and_back() -> None:
    order = Order(
        watts=200,
        clocks_mhz=(300, 1500),
        cards=(A, "slot3"),
        reason="heat",
        until=1_800_000_000,
        override="because",
        dry_run=True,
        by="someone@laptop",
    )
    cards = (declared(slot="slot0", cap_w=200, reason="psu", clocks_mhz=(300, 1500)), declared(uuid=A))
    kept = (override(watts=200, until=500, words="so"), override(clocks_mhz="reset"))
    through = json.loads(json.dumps(cap_json.order_document(order)))
    assert cap_json.order(through) == order
    assert cap_json.declared(json.loads(json.dumps(cap_json.declared_document(cards)))) == cards
    assert cap_json.overrides(json.loads(json.dumps(cap_json.overrides_document(kept)))) == kept
    assert cap_json.order(GOOD) == Order(watts=200)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ("caps", "not a JSON object"),
        ({}, "not of format 1"),
        ({"format": 2, "watts": 200}, "not of format 1"),
        ({"format": True, "watts": 200}, "not of format 1"),
        ({"format": 1}, "asks for nothing"),
        ({**GOOD, "watts": "200"}, "watts must be a whole number"),
        ({**GOOD, "watts": 200.5}, "watts must be a whole number"),
        ({**GOOD, "watts": 200.0}, "watts must be a whole number"),
        ({**GOOD, "watts": True}, "watts must be a whole number"),
        ({**GOOD, "watts": 0}, "watts must be a whole number"),
        ({**GOOD, "watts": -1}, "watts must be a whole number"),
        ({**GOOD, "watts": 10**9}, "watts must be a whole number"),
        ({**GOOD, "watts": float("nan")}, "watts must be a whole number"),
        ({**GOOD, "watts": float("inf")}, "watts must be a whole number"),
        ({**GOOD, "watts": [200]}, "watts must be a whole number"),
        ({**GOOD, "wats": 200}, "unknown field 'wats'"),
        ({**GOOD, "x" * 5000: 1}, "unknown field 'xxxx"),
        ({**GOOD, "cards": []}, "cards is empty"),
        ({**GOOD, "cards": A}, "cards must be a list"),
        ({**GOOD, "cards": [1]}, "cards[0] must be one line"),
        ({**GOOD, "cards": ["a\nb"]}, "cards[0] must be one line"),
        ({**GOOD, "cards": ["a"] * 257}, "cards must be a list"),
        ({**GOOD, "clocks_mhz": [1500]}, "clocks_mhz must be"),
        ({**GOOD, "clocks_mhz": [1500, 300]}, "lowest clock, then"),
        ({**GOOD, "clocks_mhz": [0, 300]}, "clocks_mhz must be"),
        ({**GOOD, "clocks_mhz": "none"}, "clocks_mhz must be"),
        ({**GOOD, "reason": "fun"}, "reason must be one of"),
        ({**GOOD, "reason": ["heat"]}, "reason must be one of"),
        ({**GOOD, "until": "18:00"}, "until must be"),
        ({**GOOD, "until": 1e400}, "until must be"),
        ({**GOOD, "until": 10**12}, "until must be"),
        ({**GOOD, "persist": 1}, "persist must be true or false"),
        ({**GOOD, "persist": True, "until": 1_800_000_000}, "until or persist"),
        ({**GOOD, "reset": True}, "reset stands alone"),
        ({**GOOD, "override": "  "}, "override must be one line"),
        ({**GOOD, "override": "\x1b[2J"}, "override must be one line"),
        ({**GOOD, "by": 7}, "by must be one line"),
    ],
)
def test_an_order_that_is_none_is_refused_with_the_place(document: object, says: str) -> None:
    with pytest.raises(cap_json.Malformed) as caught:
        cap_json.order(document)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"format": 1}, "has no cards"),
        ({"format": 1, "cards": {}}, "cards must be a list"),
        ({"format": 1, "cards": [{"patterns": []}]}, "cards[0] has no model"),
        ({"format": 1, "cards": [{"model": "x", "patterns": ["("]}]}, "patterns[0] is not a regular"),
        ({"format": 1, "cards": [{"model": "x", "patterns": [], "pci": "x"}]}, "cards[0].pci must be"),
        ({"format": 1, "cards": [{"model": "x", "patterns": [], "cap_w": "200"}]}, "cards[0].cap_w must be"),
    ],
)
def test_a_file_of_declared_cards_that_is_none_is_refused(document: object, says: str) -> None:
    with pytest.raises(cap_json.Malformed) as caught:
        cap_json.declared(document)
    assert says in str(caught.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_KEYS = st.sampled_from(sorted(cap_json.order_document(Order())))


@given(st.dictionaries(_KEYS, _JSON, max_size=6))
def test_any_json_is_an_order_or_refused_in_words(document: dict[str, typing.Any]) -> None:
    document["format"] = 1
    try:
        found = cap_json.order(document)
    except cap_json.Malformed as refusal:
        assert str(refusal)
    else:
        assert cap_json.order(cap_json.order_document(found)) == found


def test_a_card_that_its_driver_does_not_name_is_known_by_its_pci_ids() -> None:
    wanted = Declared(slot="igpu", model="Radeon 8060S", patterns=("Radeon 8060S", "1002:1586"))
    there = Card("amd", pci="0000:03:00.0", device="1002:1586")
    other = Card("amd", pci="0000:04:00.0", device="1002:744c")
    assert match((wanted,), (other, there)).pairs == ((wanted, there),)
