"""Who showed a key: sessions in memory, and how often keys may be tried.

A session is a random name in a cookie, and a token that forms carry, so that no other site can send ours. It
ends after ``LASTS_S`` or with this process. Keys are compared by their hashes, all of them each time, so
that how long it takes says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labctl.domain.web_table import Key

LASTS_S = 12 * 3600.0
MOST = 256
TRIES, WITHIN_S = 10, 60.0
_MOST_ADDRESSES = 1024
_LONGEST_KEY = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: whose key, the token of its forms, and until when, by the monotonic clock."""

    key: Key
    token: str
    until: float


class Sessions:
    """All sessions of this process; used from one thread."""

    def __init__(self, keys: Sequence[Key], monotonic: Callable[[], float]) -> None:
        self._keys = tuple(keys)
        self._now = monotonic
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()

    def key_of(self, shown: str) -> Key | None:
        """Return the key that somebody shows; None: it is none of ours."""
        digest = hashlib.sha256(shown[:_LONGEST_KEY].encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def open(self, key: Key) -> str:
        """Open a session; return its name. The oldest goes when there are too many."""
        name = secrets.token_urlsafe(32)
        self._open[name] = Session(key, secrets.token_urlsafe(32), self._now() + LASTS_S)
        while len(self._open) > MOST:
            self._open.popitem(last=False)
        return name

    def find(self, name: str) -> Session | None:
        """Return the session of that name, if it is open."""
        session = self._open.get(name)
        if session is not None and session.until <= self._now():
            del self._open[name]
            return None
        return session

    def close(self, name: str) -> None:
        """End a session."""
        self._open.pop(name, None)

    def may_try(self, address: str) -> bool:
        """Return whether a client may try a key; ``TRIES`` wrong ones in ``WITHIN_S`` are enough."""
        tried = self._tried.get(address)
        if tried is None:
            return True
        while tried and tried[0] <= self._now() - WITHIN_S:
            tried.popleft()
        return len(tried) < TRIES

    def missed(self, address: str) -> None:
        """Note that a client showed a wrong key."""
        self._tried.setdefault(address, deque(maxlen=TRIES)).append(self._now())
        self._tried.move_to_end(address)
        while len(self._tried) > _MOST_ADDRESSES:
            self._tried.popitem(last=False)
