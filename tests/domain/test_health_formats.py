"""Results as other programs read them: a monitoring plugin's line, Prometheus' text, and our own document."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from labctl.domain.health.flaps import Kind, News
from labctl.domain.health.formats import exposition, plugin
from labctl.domain.health.outbox import Line
from labctl.domain.health.results import Finding, Findings, document_of, results_of, worst
from labctl.domain.health.terms import Figure, Level, Result
from labctl.domain.health.wording import LONGEST, lasting, line_of, text_of, title_of

HOT = Result(
    "temperature",
    Level.WARN,
    "rig",
    "slot0",
    "it has 84 C",
    "clean it",
    (Figure("gpu", 84.0, "C", 83.0, 90.0),),
)
FULL = Result(
    "disk-space", Level.CRIT, "nas", "/srv", "1 % is free", "make room", (Figure("free", 812, "MiB"),)
)
WELL = Result("clock", Level.OK, "rig", "", "it is right")
DARK = Result("smart", Level.UNKNOWN, "rig", "sda", "it does not say")

TEXTS = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
RESULTS = st.builds(
    Result,
    TEXTS,
    st.sampled_from(Level),
    TEXTS,
    TEXTS,
    st.text(max_size=30),
    TEXTS,
    st.lists(
        st.builds(
            Figure, TEXTS, NUMBERS, st.sampled_from(["W", "C", "MiB", "s", "%", ""]), st.none() | NUMBERS
        ),
        max_size=3,
    ).map(tuple),
    st.booleans(),
)
_NUMBER = r"-?\d+(?:\.\d+)?"
PERF = re.compile(rf"'[^'=|]+'={_NUMBER}(?:s|%|MB)?(?:;(?:{_NUMBER})?){{0,2}}")


@pytest.mark.parametrize(
    ("results", "level"),
    [
        ([], Level.UNKNOWN),
        ([WELL], Level.OK),
        ([WELL, DARK], Level.UNKNOWN),
        ([DARK, HOT], Level.WARN),
        ([DARK, HOT, FULL, WELL], Level.CRIT),
    ],
)
def test_the_gravest_result_is_the_exit_status_and_nothing_at_all_is_unknown(
    results: list[Result], level: Level
) -> None:
    assert worst(results) is level


def test_a_plugin_says_the_worst_first_with_figures_behind_the_bar() -> None:
    first, *rest = plugin([WELL, DARK, HOT, FULL]).splitlines()
    said, _, figures = first.partition(" | ")
    assert said.startswith("LABCTL CRITICAL - 1 CRIT, 1 WARN, 1 UNKNOWN: nas disk-space /srv: 1 % is free; ")
    assert figures == "'nas/disk-space//srv/free'=812MB 'rig/temperature/slot0/gpu'=84;83;90"
    assert rest[0] == "CRIT: nas disk-space /srv: 1 % is free"


def test_a_plugin_that_looked_at_nothing_says_so() -> None:
    assert plugin([]) == "LABCTL UNKNOWN - nothing was looked at"
    assert plugin([WELL]) == "LABCTL OK - 1 checks are well"


@settings(max_examples=40)
@given(st.lists(RESULTS, max_size=4))
def test_whatever_hosts_say_a_plugin_has_one_bar_at_most_and_well_formed_figures(
    results: list[Result],
) -> None:
    first, *rest = plugin(results).splitlines() or [""]
    assert first.count("|") <= 1 and not any("|" in line for line in rest)
    _, bar, figures = first.partition(" | ")
    assert not bar or all(PERF.fullmatch(one) for one in figures.split(" "))


@settings(max_examples=40)
@given(st.lists(st.builds(Finding, RESULTS, st.floats(0, 4e9)), max_size=4))
def test_prometheus_own_parser_reads_whatever_hosts_say(findings: list[Finding]) -> None:
    text = exposition(findings, 1_800_000_000.0)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE")
    levels = families["labctl_health_level"].samples
    assert len(levels) == len({tuple(sorted(sample.labels.items())) for sample in levels}), "each once"
    assert bool(levels) == bool(findings)
    assert {sample.value for sample in levels} <= {0.0, 1.0, 2.0, 3.0}
    (ran,) = families["labctl_health_run_seconds"].samples
    assert ran.value == 1_800_000_000.0


def test_a_metric_names_what_it_is_of_and_figures_carry_their_unit() -> None:
    text = exposition([Finding(HOT, 5.0), Finding(FULL, 6.0)], 7.0)
    assert 'labctl_health_level{code="temperature",host="rig",subject="slot0"} 1' in text
    assert 'labctl_health_level_since_seconds{code="disk-space",host="nas",subject="/srv"} 6' in text
    assert (
        'labctl_health_figure_celsius{code="temperature",host="rig",subject="slot0",figure="gpu"} 84' in text
    )
    assert 'labctl_health_results{level="crit"} 1' in text


FINITE = RESULTS.filter(
    lambda one: all(each.value == each.value and each.warn == each.warn for each in one.figures)
)


@settings(max_examples=40)
@given(st.floats(0, 4e9), st.lists(st.builds(Finding, FINITE, st.floats(0, 4e9)), max_size=5))
def test_the_document_comes_back_as_it_went(at: float, findings: list[Finding]) -> None:
    found = Findings(at, tuple(findings))
    assert results_of(json.loads(json.dumps(document_of(found)))) == found


SHOWN = document_of(Findings(1.0, (Finding(HOT, 1.0),)))["results"][0]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        {"format": 2, "at": 1.0, "results": []},
        {"format": 1, "at": "now", "results": []},
        {"format": 1, "at": True, "results": []},
        {"format": 1, "at": 1.0},
        {"format": 1, "at": 1.0, "results": {}},
        {"format": 1, "at": 1.0, "results": [{}]},
        {"format": 1, "at": 1.0, "results": [None]},
        {"format": 1, "at": 1.0, "results": [{**SHOWN, "level": "GOOD"}]},
        {"format": 1, "at": 1.0, "results": [{**SHOWN, "host": 7}]},
    ],
)
def test_a_document_that_is_not_whole_is_none(broken: object) -> None:
    assert results_of(broken) is None


def test_of_a_host_the_gravest_come_first_and_what_is_well_not_at_all() -> None:
    found = Findings(1.0, tuple(Finding(one, 0.0) for one in (WELL, DARK, HOT, FULL)))
    assert [one.result.code for one in found.of("rig")] == ["temperature", "smart"]
    assert found.level is Level.CRIT


def test_two_subjects_that_look_alike_make_one_line_of_the_graver_since_a_name_twice_spoils_the_file() -> (
    None
):
    alike = [replace(FULL, subject=f"/srv/a{gap}b", level=level) for gap, level in
             (("  ", Level.CRIT), (" ", Level.WARN), ("\t", Level.OK))]  # fmt: skip
    lines = exposition([Finding(one, 5.0) for one in alike], 7.0).splitlines()
    names = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(names) == len(set(names))
    (level,) = [line for line in lines if line.startswith("labctl_health_level{")]
    assert level.endswith(" 2")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 min"),
        (59, "0 min"),
        (60, "1 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (90_000, "1 d 1 h"),
        (-5, "0 min"),
    ],
)
def test_how_long_something_lasted_is_said_in_two_units(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


@pytest.mark.parametrize(
    ("kind", "before", "words"),
    [
        (Kind.BEGAN, Level.OK, "WARN: rig temperature slot0: it has 84 C -> clean it"),
        (Kind.BETTER, Level.CRIT, "WARN (was CRIT): rig temperature slot0: it has 84 C -> clean it"),
        (Kind.STILL, Level.WARN, "WARN (for 1 h): rig temperature slot0: it has 84 C -> clean it"),
    ],
)
def test_a_line_says_what_is_so_of_what_why_and_what_to_do(kind: Kind, before: Level, words: str) -> None:
    assert line_of(News(kind, HOT, before, 0.0, 3600.0)).text == words


def test_a_line_of_what_is_over_says_how_long_it_was() -> None:
    well = Result("temperature", Level.OK, "rig", "slot0", "it has 60 C")
    line = line_of(News(Kind.OVER, well, Level.WARN, 0.0, 3600.0))
    assert (line.text, line.level) == ("OK (was WARN for 1 h): rig temperature slot0", Level.OK)


@settings(max_examples=40)
@given(st.text(max_size=900), st.text(max_size=900))
def test_a_host_cannot_forge_a_line_nor_speak_to_a_terminal(reason: str, subject: str) -> None:
    result = Result("xid", Level.CRIT, "rig", subject, reason, reason)
    text = line_of(News(Kind.BEGAN, result, Level.OK, 0.0, 0.0)).text
    assert text.isprintable() and len(text) < 4 * LONGEST
    assert (
        len(text_of([line_of(News(Kind.BEGAN, result, Level.OK, 0.0, 0.0))], 0, again=False).splitlines())
        == 1
    )


def test_a_letter_of_one_line_has_it_as_title_and_one_of_several_counts() -> None:
    one = line_of(News(Kind.BEGAN, HOT, Level.OK, 0.0, 0.0))
    two = line_of(News(Kind.BEGAN, FULL, Level.OK, 0.0, 0.0))
    assert title_of("home", [one]).startswith("home: WARN: rig temperature")
    assert title_of("home", [one, two]) == "home: 1 CRIT, 1 WARN"
    text = text_of([one, two], 3, again=True).splitlines()
    assert text[0].startswith("CRIT: nas") and "3 more" in text[2] and "before" in text[3]
    assert isinstance(one, Line)
