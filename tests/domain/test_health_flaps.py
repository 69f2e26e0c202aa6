"""What is news: told once, when it lasts, and never for what is on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.health.flaps import (
    CALM_S,
    FLIPS,
    Decision,
    Key,
    Kind,
    News,
    Policy,
    Scope,
    Standing,
    decide,
)
from labctl.domain.health.terms import Level, Result

OK, WARN, CRIT, UNKNOWN = Level.OK, Level.WARN, Level.CRIT, Level.UNKNOWN
STEP_S = 300.0
RIG = Scope(frozenset({"rig"}), frozenset({"rig"}))
GONE = None


@dataclass
class Life:
    """One thing that is looked at every five minutes."""

    policy: Policy = field(default_factory=Policy)
    now: float = 1_800_000_000.0
    standings: Mapping[Key, Standing] = field(default_factory=dict)
    host: str = "rig"

    def look(self, level: Level | None, scope: Scope = RIG, after_s: float = STEP_S) -> tuple[News, ...]:
        self.now += after_s
        found = (
            []
            if level is None
            else [Result("disk-space", level, self.host, "/srv", f"it is {level.name}", "mend")]
        )
        decision: Decision = decide(self.standings, found, scope, self.policy, self.now)
        self.standings = decision.standings
        return decision.news

    def looks(self, *levels: Level | None) -> list[Kind]:
        return [one.kind for level in levels for one in self.look(level)]


@pytest.mark.parametrize(
    ("levels", "kinds"),
    [
        ([OK] * 9, []),
        ([CRIT], []),
        ([CRIT, OK, OK, OK], []),
        ([CRIT, CRIT], [Kind.BEGAN]),
        ([CRIT] * 9, [Kind.BEGAN]),
        ([WARN, CRIT], [Kind.BEGAN]),
        ([WARN, WARN, CRIT, CRIT], [Kind.BEGAN, Kind.WORSE]),
        ([CRIT, CRIT, WARN, WARN], [Kind.BEGAN, Kind.BETTER]),
        ([CRIT, CRIT, OK], [Kind.BEGAN]),
        ([CRIT, CRIT, OK, OK], [Kind.BEGAN, Kind.OVER]),
        ([CRIT, CRIT, OK, OK, OK, OK], [Kind.BEGAN, Kind.OVER]),
        ([CRIT, CRIT, GONE, GONE], [Kind.BEGAN, Kind.OVER]),
        ([UNKNOWN, UNKNOWN], [Kind.BEGAN]),
        ([UNKNOWN, UNKNOWN, CRIT, CRIT], [Kind.BEGAN, Kind.WORSE]),
        ([CRIT, CRIT, UNKNOWN, UNKNOWN, UNKNOWN], [Kind.BEGAN]),
        ([CRIT, CRIT, UNKNOWN, OK, OK], [Kind.BEGAN, Kind.OVER]),
        ([GONE] * 5, []),
    ],
)
def test_a_state_is_told_when_two_looks_agree_and_once(levels: list[Level | None], kinds: list[Kind]) -> None:
    assert Life().looks(*levels) == kinds


def test_the_words_and_times_of_news_are_those_of_the_state() -> None:
    life = Life()
    life.look(CRIT)
    began = life.now
    (news,) = life.look(CRIT)
    assert (news.since, news.before, news.result.reason, news.result.cure) == (
        began,
        OK,
        "it is CRIT",
        "mend",
    )
    life.look(OK)
    (over,) = life.look(OK)
    assert (over.kind, over.before, over.since, over.at) == (Kind.OVER, CRIT, began, life.now)


def test_what_is_still_wrong_is_told_again_after_a_day_and_then_a_day_later() -> None:
    life = Life()
    assert life.looks(CRIT, CRIT) == [Kind.BEGAN]
    day = life.policy.remind_s
    assert [n.kind for n in life.look(CRIT, after_s=day - 1)] == []
    assert [n.kind for n in life.look(CRIT, after_s=1)] == [Kind.STILL]
    assert [n.kind for n in life.look(CRIT, after_s=day - 1)] == []
    assert [n.kind for n in life.look(CRIT, after_s=1)] == [Kind.STILL]


def test_a_host_that_goes_to_sleep_tells_nothing_takes_nothing_back_and_reminds_of_nothing() -> None:
    life, asleep = Life(), Scope(frozenset({"rig"}), frozenset())
    assert life.looks(CRIT, CRIT) == [Kind.BEGAN]
    for _ in range(20):
        assert life.look(GONE, asleep, after_s=86_400.0) == ()
    assert life.looks(CRIT)[:1] == [Kind.STILL]
    assert life.looks(OK, OK) == [Kind.OVER]


def test_a_host_that_left_the_rack_is_forgotten() -> None:
    life = Life()
    life.looks(CRIT, CRIT)
    assert life.look(GONE, Scope(frozenset({"nas"}), frozenset({"nas"}))) == ()
    assert life.standings == {}


def test_what_is_of_the_rack_and_not_found_any_more_is_over() -> None:
    life, nobody = Life(host=""), Scope(frozenset({"rig"}), frozenset())
    life.looks(CRIT, CRIT)
    assert life.look(GONE, nobody) == ()
    assert [n.kind for n in life.look(GONE, nobody)] == [Kind.OVER]


def test_what_changes_at_every_look_is_told_once_as_flapping_though_it_never_lasts() -> None:
    life = Life()
    kinds = life.looks(*([CRIT, OK] * 20))
    assert kinds == [Kind.FLAPPING]
    calm = life.looks(*([OK] * int(CALM_S / STEP_S + 1)))
    assert calm == [Kind.SETTLED]
    assert life.looks(OK, OK, CRIT, CRIT) == [Kind.BEGAN]


def test_what_flaps_slowly_is_damped_too_and_says_in_the_end_what_it_is() -> None:
    life = Life()
    kinds = life.looks(*([CRIT, CRIT, OK, OK] * 10))
    assert kinds.count(Kind.FLAPPING) == 1
    assert len(kinds) == FLIPS
    life.looks(*([CRIT] * 2))
    news = [n for _ in range(20) for n in life.look(CRIT)]
    assert [(n.kind, n.result.level) for n in news] == [(Kind.SETTLED, CRIT)]
    assert life.looks(OK, OK) == [Kind.OVER]


def test_a_clock_that_went_back_neither_repeats_nor_loses() -> None:
    life = Life()
    life.looks(CRIT, CRIT)
    assert life.look(CRIT, after_s=-864_000.0) == ()
    assert life.looks(OK, OK) == [Kind.OVER]


LEVELS = st.sampled_from([OK, WARN, CRIT, UNKNOWN, GONE])


@given(st.lists(st.tuples(LEVELS, st.booleans(), st.floats(0.0, 90_000.0)), max_size=60), st.integers(1, 4))
def test_people_always_know_what_lasts_and_hear_of_each_thing_in_turn(
    looks: list[tuple[Level | None, bool, float]], needed: int
) -> None:
    life, told = Life(Policy(looks=needed)), OK
    for level, answers, after_s in looks:
        scope = RIG if answers else Scope(frozenset({"rig"}), frozenset())
        for news in life.look(level, scope, after_s):
            assert news.before is told, "each piece of news follows from the last"
            if news.kind in (Kind.BEGAN, Kind.WORSE, Kind.BETTER, Kind.OVER):
                assert news.result.level is not told
            told = news.result.level
            assert answers or level is not None, "a host that is away is no news"
    for _ in range(needed + 1):
        for news in life.look(CRIT, after_s=2 * CALM_S):
            told = news.result.level
    assert told is CRIT
    for _ in range(needed + 1):
        for news in life.look(OK, after_s=2 * CALM_S):
            told = news.result.level
    assert told is OK


@given(st.lists(LEVELS, max_size=40))
def test_news_are_few_however_it_goes(levels: list[Level | None]) -> None:
    # Six changes at most before it counts as flapping, a word then, and no end of it without an hour of calm.
    assert len(Life().looks(*levels)) <= FLIPS + len(levels) * STEP_S / CALM_S * 2


def test_what_a_check_could_not_read_or_withheld_is_not_over() -> None:
    hot = Result("temperature", Level.CRIT, "rig", "slot0", "it has 99 °C", "air")
    policy = Policy(looks=1)
    before = decide({}, [hot], RIG, policy, 0.0).standings
    unread = Result("temperature", Level.UNKNOWN, "rig", "", "not known: NVML hangs", "look")
    waits = decide(before, [unread], RIG, policy, 300.0)
    assert waits.standings[hot.key] == before[hot.key]
    assert {one.result.key for one in waits.news} == {unread.key}
    withheld = replace(RIG, withheld=frozenset({hot.key}))
    assert decide(before, [], withheld, policy, 300.0).standings == before
    assert decide(before, [], RIG, policy, 300.0).news[0].kind is Kind.OVER
