"""Sleepers for tests: what is wanted, known and seen, each quiet and well unless a test says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from labctl.domain.budget import Rack as WattRack
from labctl.domain.sleep import reconcile
from labctl.domain.sleep.actions import Action
from labctl.domain.sleep.lifecycle import Claims, Mode
from labctl.domain.sleep.terms import (
    Fingerprint,
    HostPolicy,
    How,
    Known,
    KnownHost,
    Moment,
    OrderWord,
    Policy,
    Proof,
    Reading,
    Report,
    Seen,
    SeenHost,
    Sign,
    Wish,
)

WALL = 1_790_000_000.0  # a Monday in September 2026, in the afternoon
MONO = 500_000.0
NOW = Moment(WALL, MONO)
TICK = 10.0
RUNS = Fingerprint("6.1.0-25", "570.86", "52:54:00:00:00:01 r8169", How.SUSPEND, "deep")
PROOF = Proof(RUNS, WALL - 86400, 3, 6.0, 12.0)
QUIET = (Reading("sessions", False, "nobody"), Reading("gpu", False, "0 %"))
DARK = {"ssh": Sign.DARK, "ping": Sign.DARK}


def host(name: str = "gpu1", **more: Any) -> HostPolicy:
    return HostPolicy(**{"name": name, "wakeable": True, "sleeps": True, **more})


def policy(*hosts: HostPolicy, watts: WattRack | None = None, zone: str = "Etc/UTC") -> Policy:
    return Policy({one.name: one for one in hosts or (host(),)}, watts or WattRack(()), zone, TICK)


def row(name: str = "gpu1", mode: Mode = Mode.READY, **more: Any) -> KnownHost:
    """Return a host that has been in its mode for two hours, with a proof."""
    fields = {"since": WALL - 7200, "boot_id": "boot", "resumes": 1, "proof": PROOF, "version": 7}
    found = KnownHost(**{"name": name, "mode": mode, **fields, **more})
    wishes = sum(1 for wish in found.wishes if not wish.sleep)
    claims = {"holds": len(found.holds), "wishes": wishes, "paused": bool(found.paused)}
    if "claims" not in more:
        found = KnownHost(**{**_fields(found), "claims": Claims(**claims)})
    return found


def _fields(found: KnownHost) -> dict[str, Any]:
    return {name: getattr(found, name) for name in KnownHost.__slots__}


def known(*rows: KnownHost, paused: str = "") -> Known:
    return Known({one.name: one for one in rows or (row(),)}, paused)


def report(readings: Iterable[Reading] = QUIET, **more: Any) -> Report:
    fields: dict[str, Any] = {"at": MONO - 2, "boot_id": "boot", "resumes": 1, "up_s": 9000.0, "watch": "w"}
    return Report(**{**fields, "readings": tuple(readings), "fingerprint": RUNS, "wol_armed": True, **more})


def talks(name: str = "gpu1", said: Report | None = None, **more: Any) -> SeenHost:
    """Return a host whose channel is open, and that has been quiet for an hour."""
    said = said or report()
    fields = {"at": MONO - 1, "talking": True, "report": said, "quiet_since": MONO - 3600}
    return SeenHost(**{"name": name, **fields, **more})


def is_dark(
    name: str = "gpu1", signs: Mapping[str, Sign] = DARK, for_s: float = 12.0, **more: Any
) -> SeenHost:
    fields = {"at": MONO - 1, "signs": dict(signs), "dark_since": MONO - for_s, "silent_because": "no route"}
    return SeenHost(**{"name": name, **fields, **more})


def silent(name: str = "gpu1", **more: Any) -> SeenHost:
    """Return a host that does not talk and is not seen dark either."""
    fields = {"at": MONO - 1, "signs": {"ssh": Sign.UNCLEAR, "ping": Sign.ON}, "silent_because": "timed out"}
    return SeenHost(**{"name": name, **fields, **more})


def seen(*looks: SeenHost) -> Seen:
    return Seen({one.name: one for one in looks or (talks(),)})


def wish(name: str = "gpu1", number: int = 1, **more: Any) -> Wish:
    fields = {"by": "anna", "why": "a fine-tune", "at": WALL - 5, "until": WALL + 900}
    return Wish(**{"id": number, "host": name, **fields, **more})


def word(nonce: str, said: Any, because: str = "somebody is logged in") -> OrderWord:
    return OrderWord(nonce, said, because)


def decide(
    rows: KnownHost | Known,
    looks: SeenHost | Seen | None = None,
    want: Policy | None = None,
    now: Moment = NOW,
) -> list[Action]:
    """Return what is decided; every reason is looked at on the way."""
    rows = rows if isinstance(rows, Known) else known(rows)
    looks = looks if isinstance(looks, Seen) else seen(*((looks,) if looks is not None else ()))
    found = reconcile.decide(want or policy(), rows, looks, now)
    for action in found:
        assert names_something(action.because, rows.hosts), action
    assert len({(action.host, type(action).__name__ == "StepCaps") for action in found}) == len(found)
    return found


def names_something(because: str, hosts: Iterable[str]) -> bool:
    """Return whether a reason names a number or a host."""
    return bool(re.search(r"\d", because)) or any(name in because for name in hosts)


def kinds(actions: Iterable[Action]) -> list[str]:
    """Return the actions in short: "Move dark", "Suspend", "SendWake 1"."""
    return [short(action) for action in actions]


def short(action: Action) -> str:
    for field in ("event", "round", "step", "how"):
        if hasattr(action, field):
            return f"{type(action).__name__} {getattr(action, field)}"
    return type(action).__name__
