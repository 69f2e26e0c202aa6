"""A worker's words to its parent, who may not listen."""

from __future__ import annotations

import os

import gevent

from labctl.provision.events import Connected, decode_event
from labctl.provision.worker.voice import Voice


def test_a_parent_that_does_not_read_keeps_nobody_waiting_and_loses_nothing() -> None:
    reader, writer = os.pipe()
    voice = Voice(writer)
    said = [Connected(f"host-{number}" * 100, 1.0) for number in range(2000)]
    for event in said:  # many times what a pipe holds
        voice.say(event)
        gevent.sleep(0)
    finishing = gevent.spawn(voice.finish)
    os.set_blocking(reader, False)
    heard = b""
    while heard.count(b"\n") < len(said):
        gevent.sleep(0)
        try:
            heard += os.read(reader, 1 << 16)
        except BlockingIOError:
            continue
    finishing.join()
    assert [decode_event(line.decode()) for line in heard.splitlines()] == said
    os.close(reader)
    os.close(writer)


def test_a_parent_that_is_gone_ends_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    voice = Voice(writer)
    for _ in range(3):
        voice.say(Connected("one", 1.0))
        gevent.sleep(0)
    voice.finish()
    os.close(writer)
