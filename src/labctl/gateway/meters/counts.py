"""Count requests, in plain numbers that cost next to nothing.

A request finds its row by what it is labelled with, and all that it is counted in hangs on that row. Labels
come from the table alone: a name that a client made up is counted as none, or anybody could fill the memory,
and what people type would stand in metrics and in the log.

Several processes on one port each count for themselves, and a scrape gets one of them; so each says which it
is (label ``process``), and Prometheus' rates hold for each.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from labctl.domain.gateway.table import Table
from labctl.gateway.meters.histogram import PACES, Histogram
from labctl.gateway.meters.lines import Lines
from labctl.gateway.meters.text import histograms, labels, numbers
from labctl.gateway.meters.use import use_of
from labctl.gateway.terms import Record

# How much of a path stands in the log: it is a client's, and may be as long as a head.
_PATH = 200
# The defaults themselves: only what is the same object is left out of a line.
_NO_TIME, _NEVER = (getattr(Record("", 0.0, "", "", "", ""), name) for name in ("seconds", "first_s"))
_GAUGE = "gauge"
_COUNTER = "counter"


class _Served:
    """What is measured of a model at a host."""

    __slots__ = ("first", "pace", "queued", "received", "retries", "sent", "whole")

    def __init__(self) -> None:
        self.first = Histogram()
        self.whole = Histogram()
        self.queued = Histogram()
        self.pace = Histogram(PACES)
        self.received = 0
        self.sent = 0
        self.retries = 0


class _Used:
    """Tokens of a model at a host for a key."""

    __slots__ = ("answer", "cached", "prompt", "unsaid")

    def __init__(self) -> None:
        self.prompt = 0
        self.answer = 0
        self.cached = 0
        self.unsaid = 0


class _Row:
    """Requests that are labelled alike."""

    __slots__ = ("count", "served", "used")

    def __init__(self, served: _Served, used: _Used) -> None:
        self.count = 0
        self.served = served
        self.used = used


_Alike = tuple[str, str, str, int, str, str]


class Counts:
    """The ``Meters`` of a gateway; ``process`` tells it from others on the same port."""

    __slots__ = ("_lines", "_models", "_process", "_rows", "_served", "_used", "_wakes")

    def __init__(self, table: Table, lines: Lines, process: str = "") -> None:
        self._lines = lines
        self._process = process
        self._models = {name: model.id for model in table.models for name in (model.id, *model.aliases)}
        self._rows: dict[_Alike, _Row] = {}
        self._served: dict[tuple[str, str], _Served] = {}
        self._used: dict[tuple[str, str, str], _Used] = {}
        self._wakes: dict[tuple[str, str, bool], Histogram] = {}

    def took(self, record: Record, tail: bytes) -> None:
        """Count a request that is over and write its line; ``tail`` is searched for its usage."""
        model = record.model = self._models.get(record.model, "")
        how = record.how
        alike = (model, record.host, record.key, record.status, how, record.code)
        row = self._rows.get(alike)
        if row is None:
            row = self._rows[alike] = self._row(model, record.host, record.key)
        row.count += 1
        if record.upstream:
            self._measure(record, row, tail)
        # Cut to what a person reads; rounding takes four times as long.
        record.at = record.at * 1e3 // 1 / 1e3
        record.seconds = record.seconds * 1e6 // 1 / 1e6 or _NO_TIME
        record.queued_s = record.queued_s * 1e6 // 1 / 1e6 if record.queued_s else _NO_TIME
        record.woke_s = record.woke_s * 1e6 // 1 / 1e6 if record.woke_s else _NO_TIME
        record.first_s = record.first_s * 1e6 // 1 / 1e6 if record.first_s >= 0 else _NEVER
        if len(record.path) > _PATH:
            record.path = record.path[:_PATH]
        self._lines.add(record)

    def _measure(self, record: Record, row: _Row, tail: bytes) -> None:
        served, used = row.served, row.used
        served.whole.add(record.seconds)
        if record.queued_s:
            served.queued.add(record.queued_s)
        else:
            served.queued.counts[0] += 1
        served.received += record.bytes_in
        served.sent += record.bytes_out
        if record.tries > 1:
            served.retries += record.tries - 1
        first_s = record.first_s
        if first_s < 0:
            return
        served.first.add(first_s)
        prompt, answer, cached = use_of(tail)
        if prompt < 0 and answer < 0:
            used.unsaid += record.how == "served" and record.status < 400
            return
        record.prompt_tokens, record.answer_tokens, record.cached_tokens = prompt, answer, cached
        if prompt > 0:
            used.prompt += prompt
        if cached > 0:
            used.cached += cached
        if answer > 0:
            used.answer += answer
            # The first token came with the first byte.
            if record.stream and answer > 1 and record.seconds > first_s:
                served.pace.add((answer - 1) / (record.seconds - first_s))

    def _row(self, model: str, host: str, key: str) -> _Row:
        served = self._served.setdefault((model, host), _Served())
        return _Row(served, self._used.setdefault((model, host, key), _Used()))

    def wake(self, host: str, key: str, seconds: float, *, came: bool) -> None:
        """Count a wake that somebody waited for."""
        self._wakes.setdefault((host, key, came), Histogram()).add(seconds)

    def tokens(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return tokens of prompts and of answers since we began, by host of the rack and model."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for (model, host, _), used in self._used.items():
            if host and (used.prompt or used.answer):
                prompt, answer = found.get((host, model), (0, 0))
                found[host, model] = prompt + used.prompt, answer + used.answer
        return found

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> bytes:
        """Return everything in Prometheus' text format.

        ``gauges`` are more of them: by name without ``labctl_gateway_``, each value by its labels as they
        are written (``host="gpu-box"``), or by "" where it has none.
        """
        more = (
            numbers(name, _GAUGE, "As of now.", self._marked(samples.items()))
            for name, samples in gauges.items()
        )
        return "".join((*self._of_requests(), *self._of_serving(), *self._of_us(), *more)).encode()

    def _of_requests(self) -> Iterator[str]:
        asked = (
            (self._said(model=model, host=host, key=key, status=str(status), how=how), row.count)
            for (model, host, key, status, how, code), row in self._rows.items()
            if not code
        )
        refused = (
            (self._said(model=model, host=host, key=key, status=str(status), code=code), row.count)
            for (model, host, key, status, _, code), row in self._rows.items()
            if code
        )
        yield numbers("requests_total", _COUNTER, "Requests that are over, but refused ones.", asked)
        yield numbers(
            "refused_total", _COUNTER, "Requests that were refused, by the problem's code.", refused
        )
        tokens = (
            (self._said(model=model, host=host, key=key, kind=kind), getattr(used, kind))
            for (model, host, key), used in self._used.items()
            for kind in ("prompt", "cached", "answer")
            if getattr(used, kind)
        )
        yield numbers(
            "tokens_total", _COUNTER, "Tokens by what answers say; cached are of the prompt.", tokens
        )
        unsaid = (
            (self._said(model=model, host=host, key=key), used.unsaid)
            for (model, host, key), used in self._used.items()
            if used.unsaid
        )
        yield numbers("tokens_unsaid_total", _COUNTER, "Answers that did not tell their tokens.", unsaid)
        wakes = {
            self._said(host=host, key=key, came="yes" if came else "no"): histogram
            for (host, key, came), histogram in self._wakes.items()
        }
        yield histograms("wake_seconds", "How long somebody waited for a host to wake.", wakes)

    def _of_serving(self) -> Iterator[str]:
        served = {
            self._said(model=model, host=host): one
            for (model, host), one in self._served.items()
            if sum(one.whole.counts)
        }
        for name, part, about in (
            ("first_byte_seconds", "first", "From a request's head to its answer's first byte."),
            ("request_seconds", "whole", "From a request's head to its answer's last byte."),
            ("queue_seconds", "queued", "How long requests waited for a place at their host."),
            ("tokens_per_second", "pace", "Tokens of streams by the seconds after their first byte."),
        ):
            some = {said: getattr(one, part) for said, one in served.items()}
            yield histograms(name, about, {said: one for said, one in some.items() if sum(one.counts)})
        for name, part, about in (
            ("received_bytes_total", "received", "Bytes of requests' bodies."),
            ("sent_bytes_total", "sent", "Bytes of answers' bodies."),
            ("retries_total", "retries", "How often another upstream was asked in vain before."),
        ):
            yield numbers(name, _COUNTER, about, [(said, getattr(one, part)) for said, one in served.items()])

    def _of_us(self) -> Iterator[str]:
        said = self._said()
        yield numbers("log_lost_lines_total", _COUNTER, "Lines nobody took.", [(said, self._lines.dropped)])
        yield numbers("cpu_seconds_total", _COUNTER, "Of this process.", [(said, time.process_time())])
        yield numbers("resident_bytes", _GAUGE, "Memory of this process.", [(said, _resident_bytes())])

    def _said(self, **named: str) -> str:
        return labels(**named, process=self._process) if self._process else labels(**named)

    def _marked(self, samples: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
        mark = self._said()
        for said, value in samples:
            yield ",".join(filter(None, (said, mark))), value


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
