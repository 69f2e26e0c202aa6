"""Who a run is about, how it is dealt out, and how it ended: tables and properties."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain import limits, shards
from labctl.domain.outcome import Status, judge
from labctl.domain.problem import ExitCode, LabctlError

OK, FAILED, AWAY, LEFT, STOPPED = "ok", "failed", "unreachable", "not-run", "interrupted"


@pytest.mark.parametrize(
    ("statuses", "code", "because"),
    [
        ((OK,), ExitCode.OK, "1 host ok"),
        ((OK, OK), ExitCode.OK, "2 hosts ok"),
        ((), ExitCode.OK, "0 hosts ok"),
        ((OK, FAILED), ExitCode.HOST_FAILED, "1 of 2 hosts failed: b"),
        ((FAILED, FAILED), ExitCode.HOST_FAILED, "2 of 2 hosts failed: a, b"),
        ((FAILED, AWAY), ExitCode.HOST_FAILED, "1 of 2 hosts failed: a"),
        ((FAILED, LEFT, OK), ExitCode.HOST_FAILED, "1 of 3 hosts failed: a"),
        ((OK, AWAY), ExitCode.PARTIAL, "1 of 2 hosts finished; not done: b"),
        ((OK, LEFT), ExitCode.PARTIAL, "1 of 2 hosts finished; not done: b"),
        ((OK, STOPPED), ExitCode.PARTIAL, "1 of 2 hosts finished; not done: b"),
        ((AWAY,), ExitCode.UNREACHABLE, "no host could be reached: a"),
        ((AWAY, LEFT), ExitCode.UNREACHABLE, "no host could be reached: a, b"),
        ((AWAY, STOPPED), ExitCode.INTERRUPTED, "interrupted; no host finished"),
    ],
)
def test_the_first_rule_that_fits_decides(statuses: tuple[Status, ...], code: ExitCode, because: str) -> None:
    outcome = judge(dict(zip("abc", statuses, strict=False)))
    assert (outcome.code, outcome.because) == (code, because)


def test_whatever_the_hosts_say_an_interrupt_is_130() -> None:
    statuses: tuple[Status, ...] = ("ok", "failed", "unreachable", "not-run", "interrupted")
    for pair in itertools.product(statuses, repeat=2):
        outcome = judge(dict(zip("ab", pair, strict=True)), interrupted=True)
        assert outcome.code is ExitCode.INTERRUPTED


def test_success_is_told_only_when_every_host_is_ok() -> None:
    statuses: tuple[Status, ...] = ("ok", "failed", "unreachable", "not-run", "interrupted")
    for three in itertools.product(statuses, repeat=3):
        code = judge(dict(zip("abc", three, strict=True))).code
        assert (code is ExitCode.OK) == (set(three) == {"ok"})


@pytest.mark.parametrize(
    ("hosts", "cores", "forks", "parallel", "careful", "workers"),
    [
        (1, 8, 1, 50, False, 1),
        (10, 8, 1, 50, False, 1),
        (11, 8, 1, 50, False, 2),
        (50, 2, 1, 50, False, 2),
        (50, 2, 2, 50, False, 4),
        (50, 8, 1, 50, False, 5),
        (50, 8, 1, 3, False, 3),
        (50, 8, 4, 50, True, 1),
    ],
)
def test_a_worker_is_added_for_every_ten_hosts_within_the_bounds(
    hosts: int, cores: int, forks: int, parallel: int, careful: bool, workers: int
) -> None:
    assert shards.count(hosts, cores, forks, parallel=parallel, one_place=careful) == workers


@given(
    hosts=st.lists(st.text(min_size=1), min_size=1, max_size=200, unique=True),
    cores=st.integers(1, 64),
    forks=st.integers(1, 8),
    parallel=st.integers(1, 300),
)
def test_every_host_is_dealt_to_one_worker_and_no_more_than_parallel_are_at_work(
    hosts: list[str], cores: int, forks: int, parallel: int
) -> None:
    workers = shards.count(len(hosts), cores, forks, parallel=parallel, one_place=False)
    dealt = shards.split(hosts, workers, parallel)
    assert sorted(host for shard in dealt for host in shard.hosts) == sorted(hosts)
    assert all(shard.hosts for shard in dealt)
    assert sum(shard.parallel for shard in dealt) <= parallel
    assert max(len(shard.hosts) for shard in dealt) - min(len(shard.hosts) for shard in dealt) <= 1


HOSTS = ("gpu-1", "gpu-2", "nas", "hub")
GROUPS = {"gpu": ("gpu-1", "gpu-2"), "always_on": ("nas", "hub"), "storage": ("nas",), "empty": ()}


@pytest.mark.parametrize(
    ("limit", "chosen"),
    [
        ((), HOSTS),
        (("hub", "gpu-1"), ("gpu-1", "hub")),
        (("hub,gpu-1",), ("gpu-1", "hub")),
        ((" hub , ,gpu-1,",), ("gpu-1", "hub")),
        (("gpu",), ("gpu-1", "gpu-2")),
        (("gpu-*",), ("gpu-1", "gpu-2")),
        (("gpu-?",), ("gpu-1", "gpu-2")),
        (("always-on",), ("nas", "hub")),
        (("always_on", "gpu-2"), ("gpu-2", "nas", "hub")),
        (("*",), HOSTS),
        (("[gn]*",), ("gpu-1", "gpu-2", "nas")),
    ],
)
def test_a_limit_chooses_in_the_order_of_the_rack_file(
    limit: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert limits.select(HOSTS, GROUPS, limit) == chosen


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (("gpu-3",), ["gpu-3", "did you mean gpu-2 or gpu-1 or gpu?"]),
        (("nas,xyz",), ["'xyz'", "hosts: gpu-1, gpu-2, nas, hub", "groups: gpu"]),
        (("foo*", "bar?"), ["'foo*'", "'bar?'"]),
        (("empty",), ["the group empty has no hosts"]),
        (("",), ["no host is named"]),
        ((",",), ["no host is named"]),
    ],
)
def test_a_limit_that_fits_nobody_is_an_error_that_helps(limit: tuple[str, ...], words: list[str]) -> None:
    with pytest.raises(LabctlError) as refused:
        limits.select(HOSTS, GROUPS, limit)
    text = str(refused.value)
    assert all(word in text for word in words), text


@given(limit=st.lists(st.text(), max_size=4))
def test_any_limit_chooses_known_hosts_or_is_refused(limit: list[str]) -> None:
    try:
        chosen = limits.select(HOSTS, GROUPS, limit)
    except LabctlError as refused:
        assert refused.code is ExitCode.BAD_INPUT
    else:
        assert chosen
        assert set(chosen) <= set(HOSTS)
