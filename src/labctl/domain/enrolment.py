"""Decide which host keys of a host may be pinned.

The rule, in one breath: a host that nothing is known of is *new* and may be pinned by whoever answers for it;
a host that shows its pinned key is *unchanged*; a pinned key that became another one, or is no longer shown
at all, is *changed* and refused, whoever asks. Only a fingerprint that a person read off the host's own
console replaces a pinned key.

A fingerprint vouches for the one key that has it. The other keys of the same host came over other
connections, which somebody in the middle may have answered, so they are not pinned along with it. Trust on
first use vouches for nothing, and pins everything that was shown.

When unsure (no keys at all, a fingerprint that fits nothing) the answer is to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host's public key: ``fingerprint`` is the one of OpenSSH, ``SHA256:`` and 43 letters."""

    keytype: str
    key_b64: str
    fingerprint: str

    def __str__(self) -> str:
        """Return the key as people compare it."""
        return f"{self.keytype} {self.fingerprint}"


class Standing(Enum):
    """How a host's keys stand to what is pinned; the last two are refusals."""

    NEW = "new"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    CHANGED = "changed"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with one host: ``pin`` are all keys it has afterwards, if trusted.

    ``vouched`` says that a fingerprint confirmed them, so that nobody needs to be asked.
    ``was`` and ``now`` are the keys at odds, for the message of a refusal.
    """

    standing: Standing
    because: str
    pin: tuple[HostKey, ...] = ()
    vouched: bool = False
    was: tuple[HostKey, ...] = ()
    now: tuple[HostKey, ...] = ()

    @property
    def refused(self) -> bool:
        """Return whether nothing may be written for this host."""
        return self.standing in (Standing.CHANGED, Standing.MISMATCH)

    @property
    def writes(self) -> bool:
        """Return whether the pinned keys would become other ones."""
        return self.standing in (Standing.NEW, Standing.REPLACED)


def judge(
    known: Sequence[HostKey],
    shown: Sequence[HostKey],
    expected: str | None = None,
    *,
    replace: bool = False,
) -> Judgement:
    """Return how the keys ``shown`` by a host stand to the ``known`` ones.

    Args:
        known: The pinned keys of this host.
        shown: The keys that the host proved to hold, just now.
        expected: A fingerprint that a person has from elsewhere, if any.
        replace: Whether ``expected`` may replace pinned keys.
    """
    if not shown:
        return Judgement(Standing.MISMATCH, "the host showed no key", was=tuple(known))
    vouched = tuple(key for key in shown if key.fingerprint == expected)
    if expected and not vouched:
        return Judgement(
            Standing.MISMATCH,
            f"none of the host's {len(shown)} keys has the fingerprint {expected}",
            was=tuple(known),
            now=tuple(shown),
        )
    if not known:
        because = "its fingerprint is the given one" if vouched else "nothing is pinned for it yet"
        return Judgement(Standing.NEW, because, pin=vouched or tuple(shown), vouched=bool(vouched))
    contradicted = _contradicted(known, shown)
    if not contradicted:
        return _confirmed(known, vouched)
    if replace and vouched:
        return Judgement(
            Standing.REPLACED,
            "the new key has the given fingerprint",
            pin=vouched,
            vouched=True,
            was=tuple(known),
            now=vouched,
        )
    return Judgement(
        Standing.CHANGED,
        _changed_because(contradicted, shown),
        was=contradicted,
        now=_at_odds(contradicted, shown),
    )


def _confirmed(known: Sequence[HostKey], vouched: tuple[HostKey, ...]) -> Judgement:
    """Return the judgement on a host that still shows its pinned key."""
    more = tuple(key for key in vouched if key not in known)
    if not more:
        return Judgement(
            Standing.UNCHANGED, "it shows its pinned key", pin=tuple(known), vouched=bool(vouched)
        )
    return Judgement(
        Standing.NEW,
        f"its {more[0].keytype} key has the given fingerprint",
        pin=(*known, *more),
        vouched=True,
    )


def _contradicted(known: Sequence[HostKey], shown: Sequence[HostKey]) -> tuple[HostKey, ...]:
    """Return the pinned keys that the host contradicts.

    A pinned type that is shown with another key is a contradiction, also beside a type that still fits. A
    pinned type that is not shown is none as long as another pinned key is: an administrator may retire a
    type, and may have two keys of one type in use.
    """
    fitting = {key.keytype for key in known if key in shown}
    if not fitting:
        return tuple(known)
    odd = {key.keytype for key in shown} - fitting
    return tuple(key for key in known if key.keytype in odd)


def _at_odds(contradicted: Iterable[HostKey], shown: Sequence[HostKey]) -> tuple[HostKey, ...]:
    """Return the shown keys to hold against ``contradicted``: those of the same types, else all."""
    types = {key.keytype for key in contradicted}
    return tuple(key for key in shown if key.keytype in types) or tuple(shown)


def _changed_because(contradicted: Sequence[HostKey], shown: Sequence[HostKey]) -> str:
    """Return why ``contradicted`` means another host, in one sentence."""
    types = {key.keytype for key in shown}
    changed = sorted({key.keytype for key in contradicted if key.keytype in types})
    if changed:
        return f"its {' and '.join(changed)} key is not the pinned one"
    missing = sorted({key.keytype for key in contradicted})
    return f"it no longer shows its pinned {' or '.join(missing)} key, only other types"


def twins(shown: Mapping[str, Iterable[HostKey]]) -> tuple[tuple[str, str, HostKey], ...]:
    """Return each pair of hosts that hold the same key, with it; cloned disk images do.

    Whoever is root on one of them can pose as the other.
    """
    first: dict[str, str] = {}
    found: dict[tuple[str, str], HostKey] = {}
    for name, keys in shown.items():
        for key in keys:
            other = first.setdefault(key.key_b64, name)
            if other != name:
                found.setdefault((other, name), key)
    return tuple((one, other, key) for (one, other), key in found.items())
