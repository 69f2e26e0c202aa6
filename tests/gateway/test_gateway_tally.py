"""Tokens on their way into the energy ledger: none is lost, and none is counted twice."""

from __future__ import annotations

from pathlib import Path

from books_kit import NOW, Site, site_at

from labctl.domain.energy.terms import Grain, Tokens
from labctl.domain.gateway.table import Table
from labctl.gateway.books.tally import Totals
from labctl.gateway.meters.counts import Counts
from labctl.gateway.terms import Record
from labctl.ports.store import StoreError

HOUR = int(NOW) - int(NOW) % 3600


def kept(site: Site) -> list[Tokens]:
    return list(site.store.tokens(Grain.HOUR, since=HOUR, until=HOUR + 36000))


def tell(site: Site, totals: Totals) -> None:
    site.books.count_tokens(totals)
    site.clerk.rounds()


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    site.clerk.lag = 1
    tell(site, {("gpu1", "qwen"): (10, 20)})
    tell(site, {("gpu1", "qwen"): (10, 20)})
    tell(site, {("gpu1", "qwen"): (15, 27), ("gpu1", "phi"): (1, 1)})
    assert kept(site) == [Tokens(HOUR, "gpu1", "phi", 1, 1), Tokens(HOUR, "gpu1", "qwen", 15, 27)]


def test_what_the_store_did_not_take_is_written_with_the_next(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    site.clerk.lag = 1

    def refuse(rows: object) -> None:
        raise StoreError("store: it is locked")

    site.clerk_store.add_tokens = refuse  # type: ignore[method-assign, assignment]
    tell(site, {("gpu1", "qwen"): (10, 20)})
    del site.clerk_store.add_tokens
    tell(site, {("gpu1", "qwen"): (12, 25)})
    assert kept(site) == [Tokens(HOUR, "gpu1", "qwen", 12, 25)]


def test_a_piece_that_is_being_written_is_not_written_again(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    site.clerk.lag = 1
    site.books.count_tokens({("gpu1", "qwen"): (10, 20)})
    site.books.count_tokens({("gpu1", "qwen"): (11, 22)})
    site.clerk.rounds()
    assert kept(site) == [Tokens(HOUR, "gpu1", "qwen", 10, 20)]
    tell(site, {("gpu1", "qwen"): (11, 22)})
    assert kept(site) == [Tokens(HOUR, "gpu1", "qwen", 11, 22)]


class NoLines:
    dropped = 0

    def add(self, record: Record) -> None:
        """Write nothing."""


def test_the_counters_tell_tokens_of_the_racks_hosts_whoever_asked(tmp_path: Path) -> None:
    table = Table("desk", "127.0.0.1", 8080, (), (), (), (), ())  # type: ignore[arg-type]
    counts = Counts(table, NoLines())  # type: ignore[arg-type]
    tail = b'{"usage":{"prompt_tokens":100,"completion_tokens":7}}'
    for host, key in (("gpu1", "ann"), ("gpu1", "bob"), ("", "ann")):
        record = Record(
            "1", NOW, key, "", "POST", "/v1/chat/completions", upstream="up", host=host, how="served"
        )
        record.first_s = 0.1
        counts.took(record, tail)
    assert counts.tokens() == {("gpu1", ""): (200, 14)}
