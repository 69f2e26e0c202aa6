"""A host may sleep by itself only on this kernel, driver and card, the way that it came back from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sleep_cases import PROOF, RUNS

from labctl.domain.sleep import proofs
from labctl.domain.sleep.proofs import Rung
from labctl.domain.sleep.terms import Fingerprint, How, Proof

DEEP, S2IDLE, OFF, UNLOAD = proofs.ladder(How.SUSPEND)


def test_a_proof_holds_for_what_it_was_made_with() -> None:
    verdict = proofs.judge("gpu1", PROOF, RUNS, How.SUSPEND)
    assert (verdict.yes, verdict.because) == (True, "gpu1 came back 3 times in its sleep test")


STALE: list[tuple[Proof | None, Fingerprint | None, How, str]] = [
    (None, RUNS, How.SUSPEND, "gpu1 has not shown yet that it comes back"),
    (PROOF, None, How.SUSPEND, "gpu1 does not tell what it runs"),
    (PROOF, replace(RUNS, kernel="6.1.0-26"), How.SUSPEND, "stale (kernel 6.1.0-25 -> 6.1.0-26)"),
    (PROOF, replace(RUNS, driver="580.1"), How.SUSPEND, "stale (driver 570.86 -> 580.1)"),
    (PROOF, replace(RUNS, nic="other"), How.SUSPEND, "stale (nic 52:54:00:00:00:01 r8169 -> other)"),
    (PROOF, replace(RUNS, mem_sleep="s2idle"), How.SUSPEND, "stale (mem sleep deep -> s2idle)"),
    (PROOF, replace(RUNS, kernel="7", driver="8"), How.SUSPEND, "kernel 6.1.0-25 -> 7; driver 570.86 -> 8"),
    (PROOF, replace(RUNS, how=How.POWER_OFF), How.POWER_OFF, "is for suspend, and it is to power-off"),
    (PROOF, RUNS, How.HIBERNATE, "is for suspend, and it is to hibernate"),
]


@pytest.mark.parametrize(("proof", "now", "wanted", "because"), STALE)
def test_a_proof_is_stale_when_anything_changed(
    proof: Proof | None, now: Fingerprint | None, wanted: How, because: str
) -> None:
    verdict = proofs.judge("gpu1", proof, now, wanted)
    assert not verdict
    assert because in verdict.because
    assert "\n" not in verdict.because


def test_where_a_lower_way_was_proven_the_host_sleeps_that_way() -> None:
    fallen = replace(PROOF, fingerprint=replace(RUNS, how=How.POWER_OFF, mem_sleep=""))
    assert proofs.way(fallen, How.SUSPEND) is How.POWER_OFF
    assert proofs.judge("gpu1", fallen, RUNS, How.SUSPEND)  # what the system would do by itself is no matter
    assert not proofs.judge("gpu1", fallen, replace(RUNS, kernel="7"), How.SUSPEND)
    assert proofs.way(None, How.SUSPEND) is How.SUSPEND
    assert proofs.way(PROOF, How.POWER_OFF) is How.POWER_OFF  # a proof for a higher way is none


def test_what_counts_is_how_the_next_order_sleeps_and_not_what_is_set_at_the_moment() -> None:
    proven = replace(PROOF, fingerprint=replace(RUNS, mem_sleep="s2idle"))
    offers = ("s2idle", "deep")  # after each resume the host sets "deep" again, as it was
    assert RUNS.mem_sleep == "deep"
    assert proofs.judge("gpu1", proven, RUNS, How.SUSPEND, offers=offers)
    assert proofs.judge("gpu1", PROOF, replace(RUNS, mem_sleep="s2idle"), How.SUSPEND, offers=offers)
    assert not proofs.judge("gpu1", proven, replace(RUNS, kernel="7"), How.SUSPEND, offers=offers)


@pytest.mark.parametrize("now", [RUNS, replace(RUNS, mem_sleep="s2idle"), replace(RUNS, how=How.POWER_OFF)])
def test_a_proof_is_stale_where_the_kernel_offers_that_way_no_longer(now: Fingerprint) -> None:
    proven = replace(PROOF, fingerprint=replace(RUNS, mem_sleep="s2idle"))
    verdict = proofs.judge("gpu1", proven, now, How.SUSPEND, offers=("deep",))
    assert not verdict
    assert "stale (mem sleep s2idle -> not offered, only deep)" in verdict.because


def test_where_a_host_does_not_tell_what_it_offers_the_setting_counts() -> None:
    proven = replace(PROOF, fingerprint=replace(RUNS, mem_sleep="s2idle"))
    assert not proofs.judge("gpu1", proven, RUNS, How.SUSPEND)


def test_freeing_cards_needs_no_proof() -> None:
    assert proofs.judge("gpu1", None, None, How.UNLOAD)


def test_the_ladder_goes_down_from_what_is_wanted() -> None:
    texts = {how: [str(rung) for rung in proofs.ladder(how)] for how in How}
    assert texts == {
        How.SUSPEND: ["suspend (deep)", "suspend (s2idle)", "power-off", "unload"],
        How.HIBERNATE: ["hibernate", "power-off", "unload"],
        How.POWER_OFF: ["power-off", "unload"],
        How.UNLOAD: ["unload"],
    }


CHOSEN: list[tuple[list[tuple[Rung, str]], Rung, str]] = [
    ([(DEEP, "")], DEEP, "gpu1 sleeps by suspend (deep)"),
    (
        [(DEEP, "no wake within 180 s"), (S2IDLE, "")],
        S2IDLE,
        "gpu1 sleeps by suspend (s2idle) (suspend (deep) failed: no wake within 180 s)",
    ),
    (
        [(DEEP, "a"), (S2IDLE, "b"), (OFF, "c")],
        UNLOAD,
        "gpu1 only frees its cards when it is idle and stays on (suspend (deep) failed: a;"
        " suspend (s2idle) failed: b; power-off failed: c)",
    ),
    ([(UNLOAD, "")], UNLOAD, "gpu1 only frees its cards"),
]


@pytest.mark.parametrize(("tried", "rung", "line"), CHOSEN)
def test_the_first_way_that_passed_is_taken_and_said_in_one_line(
    tried: list[tuple[Rung, str]], rung: Rung, line: str
) -> None:
    found: Any = proofs.chosen("gpu1", tried, How.SUSPEND)
    assert found == (rung, line)
