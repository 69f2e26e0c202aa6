"""What a host's report says against what the inventory counts on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from labctl.domain.budget_live import Expected, Seen, look
from labctl.domain.capping import Declared

UUIDS = [f"GPU-1111111{n}-2222-3333-4444-555555555555" for n in range(8)]
PATTERN = "(NVIDIA )?(GeForce )?RTX ?3090"


def expected(
    count: int, *, uuids: bool = False, cap: int | None = 200, vendor: str = "nvidia"
) -> list[Expected]:
    return [
        Expected(
            vendor,
            Declared(
                "RTX 3090",
                slot=f"slot{n}",
                uuid=UUIDS[n] if uuids else None,
                patterns=(PATTERN, "1002:744c"),
                cap_w=cap,
                reason="circuit" if cap else None,
            ),
            cap or 350,
        )
        for n in range(count)
    ]


def gpu(n: int, **more: Any) -> dict[str, Any]:
    return {
        "uuid": UUIDS[n],
        "pci": f"0000:0{n}:00.0",
        "name": "NVIDIA GeForce RTX 3090",
        "power_w": 100.5,
        "cap_w": 200,
        "cap_default_w": 350,
        "asleep": False,
        "code": None,
        **more,
    }


def report(*gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nvidia": {"gpus": list(gpus)}, "amd": {"gpus": []}, "errors": {}, "findings": [], **more}


def said(seen: Seen) -> list[tuple[str, str]]:
    return [(one.code, one.what) for one in seen.wrong]


def test_cards_as_declared_leave_nothing_to_say() -> None:
    seen = look("rig", expected(2), report(gpu(0), gpu(1)))
    assert (seen.wrong, seen.present, seen.declared, seen.draw_w) == ((), 2, 2, 201)
    assert [card.state for card in seen.cards] == ["ok", "ok"]


def test_a_missing_card_that_is_known_by_its_uuid_is_named() -> None:
    seen = look("rig", expected(8, uuids=True), report(*(gpu(n) for n in range(8) if n != 3)))
    assert said(seen) == [("missing", "1 of 8 RTX 3090 is missing (slot3)")]
    assert (seen.present, seen.cards[3].state) == (7, "missing")


def test_a_missing_card_that_nothing_tells_apart_is_counted_and_not_guessed() -> None:
    seen = look("rig", expected(3), report(gpu(0)))
    assert said(seen) == [("missing", "2 of 3 RTX 3090 are missing")]
    assert "uuid= or pci=" in seen.wrong[0].hint


def test_another_cap_than_declared_is_told_with_the_way_back() -> None:
    seen = look("rig", expected(1), report(gpu(0, cap_w=250)))
    assert said(seen) == [("cap-differs", "slot0 is capped at 250 W, declared are 200 W (circuit)")]
    assert "labctl powercap --reset rig/slot0" in seen.wrong[0].hint


def test_a_cap_set_by_hand_where_none_is_declared_is_told() -> None:
    seen = look("rig", expected(1, cap=None), report(gpu(0, cap_w=250)))
    assert said(seen) == [
        ("cap-differs", "slot0 is capped at 250 W by hand, and the inventory declares no cap")
    ]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (
            {"until": 1767290400, "reason": "noise"},
            ' by ann@laptop until 2026-01-01 18:00 UTC because "noise"',
        ),
        ({"words": "rig has its own fuse"}, ' by ann@laptop because "rig has its own fuse"'),
        ({"by": "", "until": "soon"}, " by somebody"),
        ({"watts": 300}, ""),  # another order than the cap that it has
        ({"uuid": UUIDS[1]}, ""),  # another card
        ({"uuid": None, "pci": "0000:00:00.0"}, " by ann@laptop"),
        ({"by": "ann@laptop pid 4711"}, " by ann@laptop"),
        ({"until": 10**400}, " by ann@laptop"),
    ],
)
def test_who_set_a_cap_by_hand_is_told(order: dict[str, Any], words: str) -> None:
    given = {"uuid": UUIDS[0], "pci": None, "watts": 250, "by": "ann@laptop", **order}
    seen = look("rig", expected(1), report(gpu(0, cap_w=250), caps={"overrides": [5, given]}))
    assert said(seen) == [("cap-differs", f"slot0 is capped at 250 W{words}, declared are 200 W (circuit)")]


def test_a_number_that_no_float_can_hold_is_not_known() -> None:
    (card,) = look("rig", expected(1), report(gpu(0, power_w=10**400, cap_default_w=10**400))).cards
    assert (card.power_w, card.state) == (None, "ok")


def test_a_card_in_the_place_of_another_is_told() -> None:
    one = expected(1, uuids=True)[0]
    one = replace(one, declared=replace(one.declared, pci="0000:05:00.0"))
    seen = look("rig", [one], report(gpu(5)))
    assert said(seen) == [("replaced", f"slot0 is another card than declared: {UUIDS[5]}")]
    assert seen.present == 1


def test_what_the_last_run_of_caps_found_is_not_told_when_it_is_over() -> None:
    old = [{"code": code, "what": code} for code in ("gpu-lost", "driver-missing", "undeclared-card", "hang")]
    kept = [{"code": "persistence-off", "what": "it forgets", "hint": "enable it", "card": "x"}]
    seen = look("rig", expected(1), report(gpu(0), caps={"findings": [*old, *kept]}))
    assert said(seen) == [("finding", "it forgets")]


def test_a_card_that_may_draw_more_than_was_counted_is_told() -> None:
    seen = look("rig", expected(1, cap=None), report(gpu(0, cap_w=390, cap_default_w=390)))
    assert said(seen) == [("uncounted", "slot0 may draw 390 W, and the budget counts 350 W")]


def test_a_card_that_the_inventory_does_not_know_is_not_in_the_budget() -> None:
    seen = look("rig", expected(1), report(gpu(0), gpu(1, name="NVIDIA GeForce RTX 4090", cap_w=450)))
    assert said(seen) == [
        ("not-declared", "NVIDIA GeForce RTX 4090 at 0000:01:00.0 is not in the inventory and may draw 450 W")
    ]
    assert (seen.present, seen.declared) == (1, 1)


def test_graphics_inside_a_processor_are_part_of_the_base_load() -> None:
    inside = {"pci": "0000:0c:00.0", "device_id": "0x164e", "cap_w": None, "power_w": 9.0}
    seen = look("rig", expected(1), report(gpu(0), amd={"gpus": [inside]}))
    assert seen.wrong == ()


def test_a_card_that_sleeps_or_hangs_is_not_missing() -> None:
    nothing = {"uuid": None, "name": None, "power_w": None, "cap_w": None, "cap_default_w": None}
    seen = look(
        "rig", expected(3), report(gpu(0), gpu(1, **nothing, asleep=True), gpu(2, **nothing, code="hang"))
    )
    assert (seen.wrong, seen.present) == ((), 3)
    assert [card.state for card in seen.cards] == ["ok", "asleep", "silent"]
    assert seen.draw_w is None  # what the one that hangs draws is not known


def test_an_amd_card_without_a_name_is_known_by_its_device() -> None:
    card = {"pci": "0000:03:00.0", "device_id": "0x744C", "cap_w": 200.0, "power_w": 20}
    seen = look("rig", expected(1, vendor="amd"), report(amd={"gpus": [card]}))
    assert (seen.wrong, seen.draw_w) == ((), 20)


def test_a_driver_that_does_not_answer_says_nothing_about_its_cards() -> None:
    error = {"what": "no NVIDIA driver is installed", "hint": "labctl apply", "code": "driver-missing"}
    finding = {"section": "nvidia", "card": None, **error}
    seen = look("rig", expected(2), report(nvidia=None, errors={"nvidia": error}, findings=[finding]))
    assert said(seen) == [("finding", "no NVIDIA driver is installed")]
    assert (seen.present, seen.draw_w) == (None, None)


def test_findings_of_the_host_about_cards_and_caps_are_passed_on_once() -> None:
    lost = {
        "section": "nvidia",
        "card": UUIDS[0],
        "code": "gpu-lost",
        "what": "the card is lost",
        "hint": "reboot",
    }
    other = {"section": "nics", "card": None, "code": "x", "what": "no link", "hint": ""}
    outcome = {"cards": [], "findings": [{"what": "the card is lost"}, {"what": "an override is ignored"}]}
    seen = look("rig", expected(1), report(gpu(0), findings=[lost, other], caps=outcome))
    assert said(seen) == [("finding", "the card is lost"), ("finding", "an override is ignored")]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"nvidia": []},
        {"nvidia": {"gpus": "none"}},
        {"nvidia": {"gpus": [1]}},
        {"nvidia": None, "errors": [], "findings": "many", "caps": 3},
        {"nvidia": {"gpus": []}, "findings": [None, {"section": ["nvidia"]}], "caps": {"findings": 5}},
        {"nvidia": {"gpus": [{"uuid": 5, "name": ["x"], "cap_w": "200", "power_w": True, "pci": {}}]}},
    ],
)
def test_a_report_of_any_form_is_survived(document: dict[str, Any]) -> None:
    seen = look("rig", expected(1), document)
    assert seen.declared == 1
    assert seen.draw_w is None
