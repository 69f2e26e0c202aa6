"""Rows to values and back; what cannot be read is refused, not guessed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import Row

from labctl.domain.sleep.lifecycle import Claims, Mode
from labctl.domain.sleep.terms import Attempt, Fingerprint, Hold, How, KnownHost, Order, Proof, Repair, Wish

T = TypeVar("T")


class UnreadableError(Exception):
    """A row holds what this version of labctl cannot read."""


def encoded(value: Order | Attempt | Proof | Repair | None) -> dict[str, Any] | None:
    """Return a value as the JSON that is kept of it."""
    return None if value is None else asdict(value)


def _order(kept: Mapping[str, Any]) -> Order:
    return Order(**{**kept, "how": How(kept["how"])})


def _proof(kept: Mapping[str, Any]) -> Proof:
    fingerprint = kept["fingerprint"]
    return Proof(
        **{**kept, "fingerprint": Fingerprint(**{**fingerprint, "how": How(fingerprint["how"])})},
    )


def _repair(kept: Mapping[str, Any]) -> Repair:
    return Repair(taken=tuple(kept["taken"]), broken=tuple(kept["broken"]), at=kept["at"])


def _read(kept: str | None, make: Callable[[Mapping[str, Any]], T]) -> T | None:
    return None if kept is None else make(json.loads(kept))


def _wake(kept: Any) -> tuple[float, float]:
    """Return how long a wake took and when it ended; of one kept without its end, that it was long ago."""
    return (kept[0], kept[1]) if isinstance(kept, list) else (kept, 0.0)


def mode_of(row: Row[Any]) -> Mode:
    """Return the mode in a row of ``host``."""
    try:
        return Mode(row.mode)
    except ValueError as error:
        raise UnreadableError(f"host {row.name}: {row.mode!r} is no mode") from error


def host_of(row: Row[Any], claims: Claims, holds: Sequence[Hold], wishes: Sequence[Wish]) -> KnownHost:
    """Return a host from its row, whose JSON is still text, and what belongs to it."""
    try:
        wakes = [_wake(kept) for kept in json.loads(row.came_up_s)]
        return KnownHost(
            name=row.name,
            mode=mode_of(row),
            since=row.since,
            because=row.because,
            version=row.version,
            boot_id=row.boot_id,
            resumes=row.resumes,
            claims=claims,
            holds=tuple(holds),
            wishes=tuple(wishes),
            paused=row.paused,
            quarantined=row.quarantined,
            order=_read(row.sleep_order, _order),
            attempt=_read(row.attempt, lambda kept: Attempt(**kept)),
            proof=_read(row.proof, _proof),
            repair=_read(row.repair, _repair) or Repair(),
            came_up_s=tuple(took for took, _ in wakes),
            woke_at=tuple(ended for _, ended in wakes),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise UnreadableError(f"host {row.name}: its row cannot be read: {error}") from error


def hold_of(row: Row[Any]) -> Hold:
    """Return a hold from its row."""
    return Hold(row.id, row.host, row.why, row.by, row.until)


def wish_of(row: Row[Any]) -> Wish:
    """Return a wish from its row."""
    return Wish(row.id, row.host, row.by, row.why, row.at, row.until, sleep=row.sleep, force=row.force)
