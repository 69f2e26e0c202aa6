"""Share an upstream's slots fairly.

An upstream gets so many requests at a time. Whoever finds no slot waits in line, and the lines are one for
each key: a free slot goes to the keys in turn, and within a key to whoever came first. So somebody who sends
five hundred requests at once delays others by one turn, not by five hundred; and each line has its own end,
or his would be everybody's. Nobody overtakes: while anybody waits, whoever comes has to wait too.

It only counts; who comes and goes says so, and always both.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """One upstream's slots and who waits for one.

    ``limit`` 0 is no limit, ``queue`` is how many of a key may wait.
    """

    __slots__ = ("_lines", "limit", "queue", "running", "waiting")

    def __init__(self, limit: int, queue: int) -> None:
        self.limit: float = limit or inf
        self.queue = queue
        self.running = 0
        self.waiting = 0
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()

    def free(self) -> bool:
        """Return whether somebody who comes now gets a slot."""
        return self.running < self.limit and not self.waiting

    def enter(self) -> None:
        """Take a slot, which has to be free."""
        self.running += 1

    def leave(self) -> T | None:
        """Give a slot back, or to who is next in line: then that one is returned, and has it."""
        if not self.waiting:
            self.running -= 1
            return None
        return self._next()

    def line_up(self, key: str, who: T) -> bool:
        """Wait in a key's line; False: too many wait there already."""
        line = self._lines.get(key)
        if (len(line) if line else 0) >= self.queue:
            return False
        if line is None:
            line = self._lines[key] = deque()
        line.append(who)
        self.waiting += 1
        return True

    def give_up(self, key: str, who: T) -> None:
        """Wait no more; harmless when it does not wait."""
        line = self._lines.get(key)
        if line is None or who not in line:
            return
        line.remove(who)
        self.waiting -= 1
        if not line:
            del self._lines[key]

    def ahead(self, key: str, who: T) -> int:
        """Return how many get a slot before it, as far as it stands now; 0 when it does not wait."""
        line = self._lines.get(key)
        if line is None or who not in line:
            return 0
        place = line.index(who)
        names = list(self._lines)
        mine = names.index(key)
        others = ((at, len(self._lines[name])) for at, name in enumerate(names) if name != key)
        return place + sum(min(size, place + (at < mine)) for at, size in others)

    def _next(self) -> T:
        key, line = next(iter(self._lines.items()))
        who = line.popleft()
        self.waiting -= 1
        if line:
            self._lines.move_to_end(key)
        else:
            del self._lines[key]
        return who
