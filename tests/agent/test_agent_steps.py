"""A card steps down for other hosts and up again, and nobody who may say so can raise it above its cap."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capped_host import Box, MakeBox, capped, codes, statuses
from fake_gpus import FAULTS
from labctl.agent import capsteps, gate, orders, vitals
from labctl.domain import cap_json, capstep
from labctl.domain.capping import Card, Declared, Matched, Wish
from labctl.domain.capstep import Step
from labctl.domain.sleep import words

PATTERNS = (r"NVIDIA GeForce RTX 3090",)


def two(box: MakeBox, **more: Any) -> Box:
    """Return a host whose two cards are declared with 300 W, and have them."""
    host = box("RTX 3090", "RTX 3090")
    first, second = host.gpus.cards
    host.declare(
        capped(first, 300, **{"slot": "slot0", "reason": "efficiency", **more}),
        capped(second, 300, **{"slot": "slot1", "reason": "efficiency", **more}),
    )
    host.apply()
    assert host.watts() == [300, 300]
    return host


def slept(host: Box) -> None:
    """Have the kernel count one more sleep."""
    count = host.root / "sys/power/suspend_stats/success"
    count.parent.mkdir(parents=True, exist_ok=True)
    count.write_text(f"{int(count.read_text()) + 1 if count.exists() else 1}\n")


def told(host: Box) -> dict[str, int]:
    """Return the caps of stepped cards as a line of the watch tells them."""
    found = vitals.caps(host.root)
    assert found is not None
    return dict(found["caps_w"])


# --- down and up ---


def test_cards_step_down_are_read_back_and_step_up_again(box: MakeBox) -> None:
    host = two(box)
    answer = host.step(slot0=150, slot1=150)
    assert (answer["caps_w"], answer["ok"], answer["caps_n"]) == ({"slot0": 150, "slot1": 150}, True, 1)
    assert (host.watts(), statuses(answer)) == ([150, 150], ["changed", "changed"])
    assert [(row["source"], row["after_w"]) for row in answer["cards"]] == [("step", 150), ("step", 150)]
    assert told(host) == {"slot0": 150, "slot1": 150}
    answer = host.step(slot0=200)
    assert (host.watts(), told(host)) == ([200, 150], {"slot0": 200, "slot1": 150})
    answer = host.step(slot0=300, slot1=300)
    assert (answer["caps_w"], host.watts(), told(host)) == ({"slot0": 300, "slot1": 300}, [300, 300], {})
    assert answer["caps_n"] == 3
    writes = host.gpus.writes()
    assert statuses(host.step(slot0=300)) == ["unchanged"]
    assert host.gpus.writes() == writes


def test_a_step_stays_when_the_driver_comes_back_and_caps_are_applied_again(box: MakeBox) -> None:
    host = two(box)
    host.step(slot0=150)
    host.gpus.set(0, power_limit_mw=350_000)  # the driver was loaded again and has forgotten
    assert host.watts() == [350, 300]
    answer = host.apply()
    assert (host.watts(), answer["cards"][0]["source"]) == ([150, 300], "step")
    assert [(one["name"], one["watts"], one["because"]) for one in answer["steps"]] == [
        ("slot0", 150, "gpu2 wakes")
    ]
    assert host.show()["steps"] == answer["steps"]


@pytest.mark.parametrize("how", ["boots", "resumes", "passes the gate"])
def test_after_a_boot_a_sleep_or_the_gate_the_declared_caps_hold_again(box: MakeBox, how: str) -> None:
    host = two(box)
    host.step(slot0=150)
    if how == "boots":
        host.boot("second")
        host.apply()
    elif how == "resumes":
        slept(host)
        host.apply()
    else:
        gate.caps.apply(host.root, steps_end=True)
    assert (host.watts(), told(host)) == ([300, 300], {})
    assert host.step(slot0=160)["caps_w"] == {"slot0": 160}
    assert told(host) == {"slot0": 160}


def test_the_gate_itself_ends_steps(box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    host = two(box)
    host.step(slot0=150)
    asked: list[bool] = []
    monkeypatch.setattr(
        gate.caps, "apply", lambda root, *, steps_end=False: asked.append(steps_end) or {"error": {}}
    )
    monkeypatch.setattr(gate.caps, "complaints", lambda answer: ["x"])
    (host.root / "etc/labctl/agent.json").write_text(json.dumps({"format": 1, "sleep": {"how": "suspend"}}))
    gate.passed(host.root)
    assert asked == [True]


# --- what it can't do ---


@pytest.mark.parametrize("asked", [301, 350, 400, 100_000])
@pytest.mark.parametrize("stepped", [None, 150])
def test_whatever_is_asked_a_card_never_gets_more_than_is_declared(
    box: MakeBox, asked: int, stepped: int | None
) -> None:
    host = two(box)
    if stepped is not None:
        host.step(slot0=stepped)
    answer = host.step(slot0=asked)
    assert (host.watts(), told(host)) == ([300, 300], {})
    assert answer["caps_w"] == {"slot0": asked}, "it draws no more than that"


def test_no_sequence_of_steps_raises_a_card(box: MakeBox) -> None:
    host = two(box)
    for watts in (1000, 150, 299, 400, 100, 301):
        host.step(slot0=watts, slot1=1001 - watts)
        assert all(100 <= shown <= 300 for shown in host.watts())
    host.apply()
    assert all(100 <= shown <= 300 for shown in host.watts())


def test_below_its_own_minimum_a_card_is_left_alone_and_says_why(box: MakeBox) -> None:
    host = two(box)
    answer = host.step(slot0=99, slot1=150)
    assert (host.watts(), answer["ok"]) == ([300, 150], False)
    assert answer["caps_w"] == {"slot0": 300, "slot1": 150}
    assert statuses(answer) == ["refused", "changed"]
    assert "99 W is below what this card takes: 100 to 400 W" in answer["cards"][0]["why"]
    assert told(host) == {"slot1": 150}


def test_unknown_cards_are_refused_and_the_others_step(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 5090")
    known, undeclared = host.gpus.cards
    host.declare(capped(known, 300, slot="slot0"))
    host.apply()
    answer = capsteps.step(
        {"caps_w": {"slot0": 150, "slot7": 150, str(undeclared.uuid): 450}, "because": "gpu2 wakes"},
        host.root,
    )
    assert (host.watts(), answer["caps_w"], answer["ok"]) == ([150, 575], {"slot0": 150}, False)
    assert statuses(answer)[0] == "changed"


def test_a_persons_order_is_never_exceeded_and_comes_back_when_the_step_ends(box: MakeBox) -> None:
    host = two(box)
    host.order(watts=200, cards=["slot0"], persist=True, reason="noise")
    assert host.step(slot0=250)["caps_w"] == {"slot0": 250}
    assert host.watts() == [200, 300]
    host.step(slot0=150)
    assert host.watts() == [150, 300]
    host.step(slot0=300)
    assert host.watts() == [200, 300]


def test_a_person_can_only_raise_a_stepped_card_with_words_and_then_the_step_is_over(box: MakeBox) -> None:
    host = two(box)
    host.step(slot0=150)
    answer = host.order(watts=250, cards=["slot0"])
    assert (host.watts()[0], statuses(answer)) == (150, ["refused"])
    assert "it stepped down to 150 W for other hosts: gpu2 wakes" in answer["cards"][0]["why"]
    assert host.order(watts=120, cards=["slot0"])["ok"] and host.watts()[0] == 120
    host.order(reset=True, cards=["slot0"])
    assert (host.watts()[0], told(host)) == (150, {"slot0": 150})
    host.order(watts=250, cards=["slot0"], override="I watch the fuse")
    assert (host.watts()[0], told(host)) == (250, {})


# --- cards that have no name of their own, no cap, or are gone ---


def test_cards_that_nothing_tells_apart_step_by_the_budgets_names(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090")
    host.declare(
        *(
            Declared("RTX 3090", patterns=PATTERNS, cap_w=300, reason="noise", name=name)
            for name in ("slot0", "slot1")
        )
    )
    host.apply()
    assert host.step(slot0=150, slot1=150)["caps_w"] == {"slot0": 150, "slot1": 150}
    assert host.watts() == [150, 150]
    assert statuses(host.order(watts=200, cards=["slot0"])) == ["missing"], "a person can't know which it is"


def test_a_card_without_a_declared_cap_steps_under_its_own_default(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(Declared("RTX 3090", slot="slot0", uuid=host.gpus.cards[0].uuid))
    host.step(slot0=200)
    assert host.watts() == [200]
    host.step(slot0=400)
    assert host.watts() == [350]


def test_a_card_that_is_gone_draws_nothing_so_nobody_waits_for_it(box: MakeBox) -> None:
    host = two(box)
    host.gpus.fault(0, "removed")
    gone = host.root / "sys/bus/pci/devices" / host.gpus.cards[0].pci
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    answer = host.step(slot0=150, slot1=150)
    assert answer["caps_w"] == {"slot0": 150, "slot1": 150}
    assert (host.gpus.cap_w(1), told(host)) == (150, {"slot1": 150})


def test_a_card_that_only_fell_silent_is_not_taken_for_gone(box: MakeBox) -> None:
    host = two(box)
    host.gpus.fault(0, "lost")
    assert host.step(slot0=150, slot1=150)["caps_w"] == {"slot1": 150}


def test_a_card_that_refuses_keeps_what_was_written_of_it(box: MakeBox) -> None:
    host = two(box)
    host.gpus.fault(0, "refuse")
    answer = host.step(slot0=150, slot1=150)
    assert (answer["caps_w"], told(host)) == ({"slot0": 300, "slot1": 150}, {"slot1": 150})
    host.gpus.set(0, **dict.fromkeys(FAULTS["refuse"]))
    host.step(slot0=150)
    host.gpus.fault(0, "refuse")
    assert host.step(slot0=250)["ok"] is False
    assert told(host) == {"slot0": 250, "slot1": 150}, "it may have taken it; never less than it may draw"


# --- what comes in, and what is kept ---


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({}, "the order has no caps_w"),
        ({"caps_w": {"slot0": 150}}, "the order has no because"),
        ({"caps_w": {}, "because": "x"}, "names no card"),
        ({"caps_w": [150], "because": "x"}, "must be an object of at most 256 cards"),
        ({"caps_w": {"slot0": "150"}, "because": "x"}, "must be a whole number"),
        ({"caps_w": {"slot0": True}, "because": "x"}, "must be a whole number"),
        ({"caps_w": {"slot0": 0}, "because": "x"}, "must be a whole number from 1"),
        ({"caps_w": {"slot0\n": 150}, "because": "x"}, "must be one line of text"),
        ({"caps_w": {"slot0": 150}, "because": "two\nlines"}, "because must be one line"),
        ({"caps_w": {"slot0": 150}, "because": "x", "override": "me"}, "unknown field 'override'"),
        ({"caps_w": {"slot0": 150}, "because": "x", "persist": True}, "unknown field 'persist'"),
        ({"format": 1, "watts": 400}, "unknown field"),
    ],
)
def test_what_is_no_order_to_step_changes_nothing(box: MakeBox, order: dict[str, Any], says: str) -> None:
    host = two(box)
    answer = orders.answered(io.BytesIO(json.dumps(order).encode()), lambda it: capsteps.step(it, host.root))
    assert (answer["error"]["code"], host.watts(), told(host)) == ("bad-order", [300, 300], {})
    assert says in answer["error"]["what"]


def test_one_card_under_two_names_is_refused(box: MakeBox) -> None:
    host = two(box)
    uuid = str(host.gpus.cards[0].uuid)
    answer = capsteps.step({"caps_w": {"slot0": 150, uuid: 300}, "because": "x"}, host.root)
    assert "are one card" in answer["error"]["what"]
    assert host.watts() == [300, 300]


def test_what_was_written_and_cannot_be_read_is_no_step_and_the_line_does_not_guess(box: MakeBox) -> None:
    host = two(box)
    host.step(slot0=150)
    assert host.file("steps.json").stat().st_mode & 0o777 == 0o644
    host.file("steps.json").write_text('{"n": 1')
    assert vitals.caps(host.root) is None
    host.file("steps.json").write_text('{"n": "many", "boot_id": "first", "resumes": 0, "steps": []}')
    assert vitals.caps(host.root) is None
    answer = host.apply()
    assert (host.watts(), "bad-file" in codes(answer)) == ([300, 300], True)


def test_a_line_tells_it_as_the_controller_reads_it(box: MakeBox) -> None:
    host = two(box)
    host.step(slot0=150)
    line = {
        "format": 1,
        "watch": "a",
        "n": 1,
        "boot_id": "0b6a5b0e-3f0e-4c3f-9d59-1a2b3c4d5e6f",
        "resumes": 0,
        "up_s": 1.0,
        "readings": [{"signal": "load", "busy": False, "because": ""}],
        "order": None,
        "fingerprint": None,
        "wol_armed": None,
        "caps": vitals.caps(host.root),
    }
    found = words.report_of(json.loads(json.dumps(line)), 0.0)
    assert (found.caps_n, found.caps_w) == (1, {"slot0": 150})


# --- the rule ---


@given(st.none() | st.integers(1, 500), st.integers(1, 500), st.none() | st.integers(1, 500))
def test_under_a_step_a_card_never_should_have_more_than_without(
    wanted: int | None, stepped: int, default: int | None
) -> None:
    card = Card("nvidia", "GPU-1", default_w=default)
    wish = capstep.under(Wish(wanted, None, "declared"), Step("slot0", stepped, "x", "GPU-1"), card)
    top = wanted if wanted is not None else default
    got = wish.watts if wish.watts is not None else default
    assert got is not None or default is None
    if top is not None and got is not None:
        assert got == min(top, stepped)


def test_a_step_is_written_and_read_again() -> None:
    steps = (Step("slot0", 150, "gpu2 wakes", "GPU-1", "0000:01:00.0", 5), Step("card", 1, "x"))
    assert cap_json.steps(json.loads(json.dumps(cap_json.steps_document(steps)))) == steps


def test_only_declared_cards_have_a_name_to_step_by() -> None:
    card, other = Card("nvidia", "GPU-1", "0000:01:00.0"), Card("nvidia", "GPU-2", "0000:02:00.0")
    matched = Matched(((Declared("RTX 3090", pci="0000:01:00.0"), card),), (), (other,))
    names = ("0000:01:00.0", "gpu-1", "GPU-2", "0000:02:00.0", "RTX 3090", "")
    found = [capstep.named(name, [card, other], matched) for name in names]
    assert found == [card, card, None, None, None, None]
