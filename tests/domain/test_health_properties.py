"""What holds of all checks, whatever a host says: none fails, and none takes silence for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from health_cases import NOW, evidence, told, well
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.domain.health.evidence import Evidence
from labctl.domain.health.expected import ExpectedRack
from labctl.domain.health.judging import CHECKS, RACK_CHECKS, judge, judge_rack, withheld
from labctl.domain.health.terms import Case, Level
from labctl.domain.health.thresholds import Thresholds
from labctl.domain.sleep.lifecycle import Mode

# Names that meet each other, so that cards are found and things are told of twice. One line each: reading
# sees to that.
_WORDS = ("", "a", "nvidia", "amd", "slot0", "0000:01:00.0", "GPU-1", "/", "/srv", "none", "é" * 300)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.sampled_from(_WORDS),
    int: st.integers(-3, 2**63),
    float: st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from((0.0, -1.0, NOW)),
    bool: st.booleans(),
    type(None): st.none(),
    Thresholds: st.just(Thresholds()),
    Mode: st.sampled_from(Mode),
}


@cache
def _any(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a type: of a dataclass with all of its fields, not only those without a default."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    parts = get_args(hint)
    match get_origin(hint):
        case None:
            hints = get_type_hints(hint)
            return st.builds(hint, **{name: _any(one) for name, one in hints.items()})
        case kind if kind is tuple and parts[-1] is ...:
            return st.lists(_any(parts[0]), max_size=2).map(tuple)
        case kind if kind is tuple:
            return st.tuples(*map(_any, parts))
        case kind if kind is Mapping:
            return st.dictionaries(_any(parts[0]), _any(parts[1]), max_size=3)
        case _:
            return st.one_of(*map(_any, parts))


_CASES = _any(Case)
_SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@_SETTINGS
@given(_CASES)
def test_no_check_fails_whatever_a_host_says(case: Case) -> None:
    for check in CHECKS:
        for result in check.judge(case):
            assert result.code == check.code
            assert result.host == case.host
            assert result.reason and "\n" not in result.reason
            assert bool(result.cure) == (result.level is not Level.OK and not result.informs)
    for rack_check in RACK_CHECKS:
        list(rack_check.judge(ExpectedRack(replace_by={"hf": case.now}), {case.host: case}, case.now))


@_SETTINGS
@given(_CASES)
def test_equal_cases_are_judged_equally_and_each_thing_once(case: Case) -> None:
    results = judge(case)
    assert results == judge(replace(case))
    keys = [result.key for result in results]
    assert len(keys) == len(set(keys))
    assert not withheld(case) & set(keys)


SECTIONS = {
    "gpus": {"gpu-present"},
    "driver": {"driver-mismatch"},
    "xids": {"xid"},
    "mounts": {"disk-space"},
    "smart": {"disk-smart"},
    "memory": {"memory"},
    "clock": {"clock"},
    "upkeep": {"reboot-required", "updates"},
    "failed_units": {"units"},
    "certificates": {"certificates"},
    "wol_armed": {"wol-armed"},
    "engines": {"engine-progress"},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_missing_is_unknown_with_its_reason_and_nothing_of_it_is_well(section: str) -> None:
    case = told(well(), **{section: None}, errors={section: "it could not be read"})
    results = judge(case)
    about = [one for one in results if one.code in SECTIONS[section]]
    assert {one.code for one in about} == SECTIONS[section]
    assert {one.level for one in about} == {Level.UNKNOWN}
    assert all("it could not be read" in one.reason for one in about)
    # Nobody else says UNKNOWN for it, and what they said before is not taken back.
    assert {one.code for one in results if one.level is not Level.OK} == SECTIONS[section]
    unread = {one.code for one in results if one.level is Level.UNKNOWN and not one.subject}
    gone = {one.key for one in judge(well())} - {one.key for one in results} - withheld(case)
    assert {code for code, _, _ in gone} <= unread


def test_every_section_of_the_evidence_is_judged_when_it_is_missing() -> None:
    optional = {one.name for one in fields(Evidence) if getattr(Evidence(0, "", ""), one.name, 0) is None}
    # The caps that a host wants only explain what is declared.
    assert optional - {"caps_wanted_w"} == set(SECTIONS)


def test_evidence_in_which_nothing_is_known_has_nothing_well_but_that_the_host_answers() -> None:
    results = judge(well(evidence=Evidence(NOW, "", ""), sleep=None, earlier=evidence()))
    assert {one.code for one in results if one.level is Level.OK} == {"reachable"}
    assert {one.level for one in results if one.code != "reachable"} == {Level.UNKNOWN}
    assert judge_rack(ExpectedRack(), [well()], NOW) == ()
