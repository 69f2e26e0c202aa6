"""Real processes on one store: however they interleave, no host is ever closed and leased at once."""

from __future__ import annotations

import pytest
from hammer import GATEWAYS, Span, hammered, violations

# As many as take a few seconds; more by hand: python tests/store/hammer.py ADDRESS 20000
LEASES = {"sqlite": 1_500, "postgres": 400}


def test_no_host_is_closed_and_leased_at_once(address: str, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["address"]
    spans = hammered(address, LEASES[kind])
    kinds = [span.kind for span in spans]
    assert kinds.count("leased") == LEASES[kind] // GATEWAYS * GATEWAYS
    assert kinds.count("closed") >= 5, "too few sleeps to prove anything"
    assert violations(spans) == []


@pytest.mark.parametrize(
    ("spans", "found"),
    [
        ([("leased", "a", 1, 2), ("closed", "a", 2, 3)], 0),
        ([("leased", "a", 1, 2.5), ("closed", "a", 2, 3)], 1),
        ([("leased", "a", 2.1, 2.2), ("closed", "a", 2, 3)], 1),
        ([("leased", "a", 1, 9), ("closed", "a", 2, 3), ("closed", "a", 4, 5)], 2),
        ([("leased", "a", 2.9, 9), ("closed", "a", 2, 3)], 1),
        ([("leased", "a", 1, 9), ("closed", "b", 2, 3)], 0),
        ([("leased", "a", 1, 2), ("leased", "a", 2, 9), ("closed", "a", 1.5, 1.6)], 1),
    ],
)
def test_the_judge_sees_what_overlaps(spans: list[tuple[str, str, float, float]], found: int) -> None:
    assert len(violations([Span(*span) for span in spans])) == found
