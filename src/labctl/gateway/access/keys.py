"""Know who asks, and how much of it they may.

A key is known by its SHA-256 only: what a client shows is hashed, and the hash is looked up and compared. So
neither this process nor its table has a key that could leak, and how long a comparison takes says nothing
about keys, since nobody can choose a hash. Whoever shows a key that is not known is refused before anything
else of the request is looked at.

Without keys the gateway serves whoever reaches it, which only programs of this machine do (``listening``),
and web pages that are open there: these are turned away by where they come from.

Each process counts for itself, and begins with nothing spent.
"""

from __future__ import annotations

import hashlib
from collections import deque
from hmac import compare_digest
from math import ceil

from labctl.domain.gateway.quota import (
    HOUR_S,
    MINUTE_S,
    full_after_one,
    wait_for_one,
    wait_for_wake,
)
from labctl.domain.gateway.table import Key, Table
from labctl.domain.problem import LabctlError
from labctl.gateway.access.audit import Audit, Note
from labctl.gateway.access.origins import foreign_because
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask

# Nobody's key is longer, and nobody has us hash a megabyte.
MOST_BYTES = 512
# Pairs of origin and host that were found to be of this machine.
_PAIRS = 64
_SHOW = "show it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"


class _Spent:
    """What a key may, and how much of it is in use; ``full_at`` is its bucket of requests."""

    __slots__ = ("at_once", "every_s", "full_at", "inside", "models", "woken_at")

    def __init__(self, key: Key) -> None:
        self.models = frozenset(key.models) if key.models else None
        self.at_once = key.at_once
        self.every_s = MINUTE_S / key.per_minute if key.per_minute else 0.0
        self.full_at = 0.0
        self.inside = 0
        self.woken_at: deque[float] = deque(maxlen=max(key.wakes_per_hour, 1))


class Keys:
    """The ``Access`` of a gateway; ``note`` is ``Books.note``.

    Raises:
        LabctlError: a key of the table has no sound hash, or two have the same.
    """

    __slots__ = ("_anonymous", "_audit", "_known", "_ours", "_spent")

    def __init__(self, table: Table, note: Note) -> None:
        self._audit = Audit(note)
        self._known: dict[bytes, tuple[bytes, Key]] = {}
        self._spent: dict[str, _Spent] = {}
        for key in table.keys:
            digest = _digest(key)
            if digest in self._known:
                raise LabctlError(f"the keys {self._known[digest][1].name} and {key.name} are the same")
            self._known[digest] = (digest, key)
            self._spent[key.sha256] = _Spent(key)
        self._anonymous = None if table.keys else table.anonymous
        if self._anonymous is not None:
            self._spent[self._anonymous.sha256] = _Spent(self._anonymous)
        self._ours: set[tuple[bytes, bytes]] = set()

    def who(self, ask: Ask) -> Key | Answer:
        """Return whose key it shows (Authorization: Bearer, x-api-key), or the refusal: 401, 403."""
        if self._anonymous is not None:
            return self._anybody(ask, self._anonymous)
        named = ask.named
        shown = named.get(b"authorization")
        if shown is not None and (shown.startswith(b"Bearer ") or shown[:7].lower() == b"bearer "):
            shown = shown[7:].strip()
        else:
            shown = named.get(b"x-api-key")
        if not shown:
            return self._stranger(ask, "no-key", "no key was shown")
        if len(shown) <= MOST_BYTES:
            digest = hashlib.sha256(shown).digest()
            found = self._known.get(digest)
            if found is not None and compare_digest(digest, found[0]):
                return found[1]
        return self._stranger(ask, "unknown-key", "the key that was shown is not known here")

    def enter(self, key: Key, model: str, now: float) -> Answer | None:
        """Count a request in, or refuse it: 403 for the model, 429 with Retry-After for too many.

        ``model`` is an id of the table, or empty where the request names none: then a key for certain models
        does not get in.
        """
        spent = self._spent[key.sha256]
        if spent.models is not None and model not in spent.models:
            return _not_for(key, model)
        if spent.at_once and spent.inside >= spent.at_once:
            return problem(
                429,
                "too-many-at-once",
                f"the key {key.name} has {spent.inside} requests under way, as many as it may",
                hint="wait until one of them is over",
                retry_after_s=1,
            )
        if spent.every_s:
            full_at = full_after_one(spent.full_at, now, spent.every_s)
            wait_s = wait_for_one(full_at, now)
            if wait_s:
                return problem(
                    429,
                    "too-many-requests",
                    f"the key {key.name} may ask {key.per_minute} times a minute, and has",
                    hint=f"ask again in {ceil(wait_s)} s",
                    retry_after_s=wait_s,
                )
            spent.full_at = full_at
        spent.inside += 1
        return None

    def leave(self, key: Key) -> None:
        """Count a request out that was let in."""
        spent = self._spent[key.sha256]
        if spent.inside:
            spent.inside -= 1

    def inside(self) -> dict[str, int]:
        """Return how many requests of each key are under way, by the key's name."""
        known = [key for _, key in self._known.values()]
        keys = known if self._anonymous is None else [self._anonymous]
        return {key.name: self._spent[key.sha256].inside for key in keys}

    def may_wake(self, key: Key, host: str, now: float) -> Answer | None:
        """Count a wake of a host, or refuse it: 403 where the key wakes nobody, 429 where it has its share.

        Called once for each wake, by whoever wants it first. Either is written to the log that is kept.
        """
        if key.wakes_per_hour == 0:
            self._audit.may_not_wake(key.name, host, "it wakes nobody", now)
            return problem(
                403,
                "may-not-wake",
                f"{host} is asleep, and the key {key.name} may wake nobody",
                host=host,
                hint="ask for a model whose host is awake, or have somebody wake it: labctl wake " + host,
            )
        spent = self._spent[key.sha256]
        count = "no limit"
        if key.wakes_per_hour > 0:
            wait_s = wait_for_wake(spent.woken_at, now, key.wakes_per_hour)
            if wait_s:
                self._audit.may_not_wake(key.name, host, f"{key.wakes_per_hour} wakes within an hour", now)
                return problem(
                    429,
                    "too-many-wakes",
                    f"{host} is asleep, and the key {key.name} has woken hosts {key.wakes_per_hour} times"
                    " within an hour, as often as it may",
                    host=host,
                    hint=f"ask again in {ceil(wait_s / 60)} min, or for a model whose host is awake",
                    retry_after_s=wait_s,
                )
            spent.woken_at.append(now)
            within = sum(now - at < HOUR_S for at in spent.woken_at)
            count = f"{within} of {key.wakes_per_hour} within an hour"
        self._audit.woke(key.name, host, count)
        return None

    def _anybody(self, ask: Ask, key: Key) -> Key | Answer:
        pair = (ask.named.get(b"origin", b""), ask.named.get(b"host", b""))
        if pair in self._ours:
            return key
        why = foreign_because(pair[0].decode("latin-1"), pair[1].decode("latin-1"))
        if why:
            self._audit.stranger(ask.client, "a strange web page", ask.began)
            return problem(
                403,
                "strange-page",
                f"{why}, and this gateway without keys serves programs of its own machine only",
                hint="give the gateway keys (Gateway.keys), or ask it by http://127.0.0.1 or http://localhost",
            )
        if len(self._ours) >= _PAIRS:
            self._ours.clear()
        self._ours.add(pair)
        return key

    def _stranger(self, ask: Ask, code: str, why: str) -> Answer:
        self._audit.stranger(ask.client, why, ask.began)
        told = problem(401, code, why, hint=_SHOW)
        headers = (*told.headers, ("WWW-Authenticate", 'Bearer realm="labctl"'))
        return Answer(told.status, told.body, told.content_type, headers)


def _digest(key: Key) -> bytes:
    try:
        digest = bytes.fromhex(key.sha256)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise LabctlError(
            f"the key {key.name} has no sound hash", hint="`labctl gateway keys new` says what to write"
        )
    return digest


def _not_for(key: Key, model: str) -> Answer:
    asked = f"ask for {model}" if model else "ask without naming a model"
    return problem(
        403,
        "model-not-allowed",
        f"the key {key.name} may not {asked}",
        hint=f"it may ask for {', '.join(key.models)}",
    )
