"""The language between parent and worker survives the way through a pipe, and nothing else is accepted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.provision import events
from labctl.provision.events import (
    Cancel,
    Connected,
    Go,
    HostEnded,
    Job,
    Log,
    OpEnded,
    OpStarted,
    Planned,
    PlannedOp,
    WorkerEnded,
)

EVENTS = st.one_of(
    st.builds(Connected, st.text(), st.floats(0, 1e6)),
    st.builds(OpStarted, st.text(), st.integers(0), st.text()),
    st.builds(
        OpEnded,
        st.text(),
        st.integers(0),
        st.text(),
        st.just("failed"),
        st.floats(0, 9),
        st.text(),
        st.text(),
    ),
    st.builds(HostEnded, st.text(), st.just("ok"), st.text(), st.text(), st.text()),
    st.builds(Log, st.just("warning"), st.text(), st.text()),
    st.builds(WorkerEnded, st.floats(0, 1e6), st.integers(0)),
    st.builds(
        Planned,
        st.text(),
        st.lists(
            st.builds(
                PlannedOp,
                st.integers(0),
                st.text(),
                st.sampled_from(["no-change", "change", "conditional"]),
                st.text(),
                st.lists(st.text()).map(tuple),
            )
        ).map(tuple),
        st.floats(0, 9),
    ),
)
ORDERS = st.one_of(
    st.builds(Go, st.lists(st.text()).map(tuple)),
    st.builds(Cancel, st.floats(0, 100)),
    st.builds(
        Job,
        st.text(),
        st.lists(st.text()).map(tuple),
        st.lists(st.text()).map(tuple),
        st.booleans(),
        owner=st.text(),
    ),
)


@given(EVENTS)
def test_an_event_is_one_line_and_comes_back_equal(event: events.Event) -> None:
    line = events.encode(event)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert events.decode_event(line) == event


@given(ORDERS)
def test_an_order_comes_back_equal(order: events.Order) -> None:
    assert events.decode_order(events.encode(order)) == order


@pytest.mark.parametrize("extra", [{"surprise": 1}, {"ev": "unheard-of"}])
def test_a_line_with_anything_unknown_is_refused(extra: dict[str, object]) -> None:
    line = json.dumps({"ev": "connected", "host": "a", "seconds": 1.0} | extra)
    with pytest.raises(ValueError):
        events.decode_event(line)
