"""The log: whole JSON lines, and nobody who waits for whoever reads them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator

import pytest
from access_world import Timers, record

from labctl.gateway.meters.lines import EVERY_S, MOST_BYTES, Lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    yield reads, writes
    for fd in (reads, writes):
        with contextlib.suppress(OSError):  # the test closed it
            os.close(fd)


def _read(fd: int) -> bytes:
    os.set_blocking(fd, False)
    text = b""
    while True:
        try:
            piece = os.read(fd, 1 << 20)
        except BlockingIOError:
            return text
        if not piece:
            return text
        text += piece


def test_a_request_is_one_line_without_what_is_not_known(pipe: tuple[int, int]) -> None:
    timers = Timers()
    lines = Lines(pipe[1], timers.later)
    lines.add(record(at=1_790_000_000.123, prompt_tokens=12))
    assert _read(pipe[0]) == b""
    assert [seconds for seconds, _ in timers.due] == [EVERY_S]
    timers.pass_by()
    told = json.loads(_read(pipe[0]))
    assert told == {
        "id": "req-1",
        "at": 1790000000.123,
        "key": "alice",
        "client": "192.168.1.20",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "qwen3-8b",
        "upstream": "gpu-box/llama",
        "host": "gpu-box",
        "status": 200,
        "how": "served",
        "tries": 1,
        "first_s": 0.2,
        "seconds": 1.2,
        "prompt_tokens": 12,
        "bytes_in": 300,
        "bytes_out": 4000,
    }
    assert timers.due == []


def test_lines_are_gathered_and_a_burst_does_not_wait_for_the_timer(pipe: tuple[int, int]) -> None:
    timers = Timers()
    lines = Lines(pipe[1], timers.later)
    for number in range(200):
        lines.add(record(id=f"req-{number}"))
    assert len(timers.due) == 1
    early = _read(pipe[0])
    assert 0 < early.count(b"\n") < 200
    timers.pass_by()
    whole = (early + _read(pipe[0])).splitlines()
    assert [json.loads(line)["id"] for line in whole] == [f"req-{number}" for number in range(200)]


def test_what_a_client_chose_can_not_break_a_line(pipe: tuple[int, int]) -> None:
    timers = Timers()
    lines = Lines(pipe[1], timers.later)
    path = '/v1/"\n{"at":0}\r\x1b[31m\x00'
    lines.add(record(path=path))
    lines.close()
    text = _read(pipe[0])
    assert text.count(b"\n") == 1
    assert not any(control in text for control in (b"\r", b"\x1b", b"\0"))
    assert json.loads(text)["path"] == path


def test_a_reader_that_hangs_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    assert os.get_blocking(pipe[1])
    timers = Timers()
    lines = Lines(pipe[1], timers.later)
    began = time.process_time()
    for number in range(10_000):
        lines.add(record(id=f"req-{number}"))
        if number % 1000 == 0:
            timers.pass_by()
    # It has blocked for ever, or it is here.
    assert time.process_time() - began < 30
    assert lines.dropped > 0
    assert len(lines._left) < MOST_BYTES + 200 * 1024
    assert len(lines._gathered) < 200
    assert os.get_blocking(pipe[1])


def test_the_first_line_that_gets_through_says_how_many_were_lost(pipe: tuple[int, int]) -> None:
    timers = Timers()
    lines = Lines(pipe[1], timers.later)
    total = 6_000
    for number in range(total):
        lines.add(record(id=f"req-{number}"))
    assert 0 < lines.dropped < total
    text = b""
    for _ in range(100):
        timers.pass_by()
        text += _read(pipe[0])
    lines.add(record(id="after", at=1_790_000_001.5))
    timers.pass_by()
    text += _read(pipe[0])
    told = [json.loads(line) for line in text.splitlines()]
    missing = [line for line in told if "lost" in line]
    assert sum(line["lost"] for line in missing) == lines.dropped
    assert len(told) - len(missing) == total - lines.dropped + 1
    assert told[-1]["id"] == "after"
    assert timers.due == []


def test_nobody_reading_any_more_is_no_error(pipe: tuple[int, int]) -> None:
    timers = Timers()
    lines = Lines(pipe[1], timers.later)
    os.close(pipe[0])
    for _ in range(3):
        lines.add(record())
    timers.pass_by()
    assert lines.dropped == 3
    assert timers.due == []


def test_a_journal_s_socket_is_written_to_like_a_pipe() -> None:
    ours, journal = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, journal:
        timers = Timers()
        lines = Lines(ours.fileno(), timers.later)
        for _ in range(20_000):  # more than its buffer takes
            lines.add(record())
        assert lines.dropped > 0
        journal.settimeout(5)
        first = journal.recv(65536)
        assert json.loads(first.split(b"\n")[0])["id"] == "req-1"


def test_a_log_that_nobody_wants_keeps_nothing() -> None:
    timers = Timers()
    lines = Lines(-1, timers.later)
    lines.add(record())
    lines.close()
    assert (timers.due, lines._gathered, lines.dropped) == ([], [], 0)
