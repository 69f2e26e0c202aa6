"""Tell the parent what happens, without ever waiting for it.

A parent that is stopped (Ctrl-Z) or slow reads nothing for a while. Were events written where they happen,
the whole worker would then stand still, heartbeats of its locks included, and lose these locks in the middle
of its work. So events queue here, and one greenlet writes them in order. When the parent is gone for good,
the rest is dropped: there is nobody to tell, and the hosts must still be left in an orderly way.
"""

from __future__ import annotations

import gevent
from gevent.os import make_nonblocking, nb_write
from gevent.queue import SimpleQueue

from labctl.provision.events import Event, encode


class Voice:
    """The way of events to the parent: a file descriptor that this object alone writes to."""

    def __init__(self, descriptor: int) -> None:
        """Start to write to ``descriptor``."""
        make_nonblocking(descriptor)
        self._descriptor = descriptor
        self._queue: SimpleQueue = SimpleQueue()
        self._writer = gevent.spawn(self._write)

    def say(self, event: Event) -> None:
        """Send ``event`` after those that were said before."""
        if not self._writer.ready():
            self._queue.put(encode(event).encode())

    def finish(self) -> None:
        """Wait until everything is with the parent, or the parent is gone."""
        self._queue.put(b"")
        self._writer.join()

    def _write(self) -> None:
        while data := memoryview(self._queue.get()):
            while data:
                try:
                    data = data[nb_write(self._descriptor, data) :]
                except OSError:
                    return
