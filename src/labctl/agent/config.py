"""What labctl wrote about this host into ``/etc/labctl/agent.json``, believed only where it is exactly that.

Without the file all signals are on, with their defaults, and the engines are those of the units that labctl's
own mark is in. With a file that cannot be read, or holds anything unknown, they are on as well, and nobody
knows what else there would be to look at: that is said, and counts as busy. The sections ``sleep``,
``gate`` and ``health`` are objects that others read; here they are only passed on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import engines as units
from .host import ROOT, document

PATH = "etc/labctl/agent.json"
FORMAT = 1
TEXT_MAX = 300
ENGINES_MAX = 64
LIST_MAX = 200
SECONDS_MAX = 366 * 86_400
_SERVICE = re.compile(r"[A-Za-z0-9@._-]{1,100}", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9@._-]{1,120}\.service", re.ASCII)
_ABSOLUTE = re.compile(r"/[^\0\n]{0,300}")


class SignalSettings(NamedTuple):
    """Which signals count, and what is still quiet; the defaults are those of the inventory."""

    sessions: bool = True
    console: bool = True
    gpu: bool = True
    gpu_percent: int = 5
    gpu_idle_programs: tuple[str, ...] = ()
    engines: bool = True
    inhibitors: bool = True
    packages: bool = True
    downloads: bool = True
    timers: bool = True
    timers_within_s: float = 600.0
    timers_ignored: tuple[str, ...] = (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "logrotate.timer",
        "man-db.timer",
        "motd-news.timer",
        "systemd-tmpfiles-clean.timer",
        "fwupd-refresh.timer",
        "update-notifier-download.timer",
        "update-notifier-motd.timer",
        "ua-timer.timer",
    )
    load: bool = True
    load_percent: int = 25
    network: bool = True
    network_kb_s: int = 500
    mounts: bool = True
    holds: bool = True
    checks: bool = True
    checks_dir: str = "/etc/labctl/busy.d"


class Engine(NamedTuple):
    """An engine of this host: its unit, where it answers, and the file with its key (None: it asks for none).

    ``order`` says which starts first (the lowest) and stops last; ``ask`` is false for one that would take a
    question for use; ``model`` is what it is started with, "" for one that loads what it is asked for.
    """

    service: str
    kind: str
    unit: str
    url: str
    key_file: str | None = None
    order: int = 0
    ask: bool = True
    model: str = ""


class Settings(NamedTuple):
    """All of it; ``trouble`` says why the file is not believed, ``written`` that there is one that is."""

    signals: SignalSettings = SignalSettings()
    engines: tuple[Engine, ...] = ()
    ssh_ports: tuple[int, ...] = (22,)
    sleep: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    gate: dict[str, Any] = {}  # noqa: RUF012
    health: dict[str, Any] = {}  # noqa: RUF012
    trouble: str = ""
    written: bool = False


class Malformed(ValueError):
    """The file is not what labctl writes; the message names the place."""


def read(root: Path = ROOT) -> Settings:
    """Return the settings of this host; whatever is wrong is in them, and nothing is raised."""
    try:
        found = parsed(document(root / PATH))
    except FileNotFoundError:
        return Settings(engines=_found(root))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Settings(engines=_found(root), trouble=_plain(f"/{PATH} cannot be read: {said}"))
    return found


def parsed(given: Any) -> Settings:
    """Return the settings that a decoded file holds.

    Raises:
        Malformed: it is none of labctl's.
    """
    fields = _object(given, "the file")
    if fields.get("format") != FORMAT or isinstance(fields["format"], bool):
        raise Malformed(f"it is not of format {FORMAT}: run labctl apply")
    _only(
        fields,
        {"format", "host", "managed", "ssh_ports", "signals", "engines", "sleep", "gate", "health"},
        "it",
    )
    listed = _list(fields.get("engines", []), "engines", ENGINES_MAX)
    ports = _list(fields.get("ssh_ports", [22]), "ssh_ports", 16)
    return Settings(
        signals=_signals(_object(fields.get("signals", {}), "signals")),
        engines=tuple(_engine(one, f"engines[{at}]") for at, one in enumerate(listed)),
        ssh_ports=tuple(_whole(port, "ssh_ports", 1, 65535) for port in ports),
        sleep=_object(fields.get("sleep", {}), "sleep"),
        gate=_object(fields.get("gate", {}), "gate"),
        health=_object(fields.get("health", {}), "health"),
        written=True,
    )


def _signals(given: dict[str, Any]) -> SignalSettings:
    checks: dict[str, Callable[[Any, str], Any]] = {
        name: _flag for name, value in SignalSettings()._asdict().items() if isinstance(value, bool)
    }
    checks |= dict.fromkeys(("gpu_percent", "load_percent", "network_kb_s"), _count)
    checks |= dict.fromkeys(("gpu_idle_programs", "timers_ignored"), _texts)
    checks |= {"timers_within_s": _seconds, "checks_dir": _path}
    _only(given, set(checks), "signals")
    return SignalSettings(**{name: checks[name](value, f"signals.{name}") for name, value in given.items()})


def _engine(given: Any, place: str) -> Engine:
    fields = _object(given, place)
    _only(fields, set(Engine._fields), place)
    if lacking := [name for name in ("service", "kind", "unit", "url") if name not in fields]:
        raise Malformed(f"{place} has no {lacking[0]}")
    key_file = fields.get("key_file")
    return Engine(
        service=_matching(fields["service"], f"{place}.service", _SERVICE),
        kind=_matching(fields["kind"], f"{place}.kind", _SERVICE),
        unit=_matching(fields["unit"], f"{place}.unit", _UNIT),
        url=_text(fields["url"], f"{place}.url"),
        key_file=None if key_file is None else _path(key_file, f"{place}.key_file"),
        order=_whole(fields.get("order", 0), f"{place}.order", -1000, 1000),
        ask=_flag(fields.get("ask", True), f"{place}.ask"),
        model=_text(fields.get("model", ""), f"{place}.model"),
    )


def _found(root: Path) -> tuple[Engine, ...]:
    """Return the engines of labctl's own units, by what their files say."""
    found = []
    for path in sorted((root / units.UNITS).glob("labctl-*.service"))[:ENGINES_MAX]:
        unit = units.unit_file(path)
        if unit is not None:
            url = f"http://127.0.0.1:{unit['port']}" if unit["port"] else ""
            found.append(Engine(unit["service"], unit["kind"] or "command", path.name, url))
    return tuple(found)


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{place} is not a JSON object")
    return value


def _only(given: dict[str, Any], known: set[str], place: str) -> None:
    if strangers := sorted(set(given) - known):
        raise Malformed(f"{place} has an unknown field {_plain(strangers[0])[:40]!r}")


def _list(value: Any, place: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise Malformed(f"{place} is not a list of at most {most}")
    return value


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(f"{place} is neither true nor false")
    return value


def _whole(value: Any, place: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Malformed(f"{place} is not a whole number from {low} to {high}")
    return value


def _count(value: Any, place: str) -> int:
    return _whole(value, place, 0, 10**9)


def _seconds(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Malformed(f"{place} is not a number of seconds")
    if not 0 <= value <= SECONDS_MAX:
        raise Malformed(f"{place} is not a number of seconds from 0 to {SECONDS_MAX}")
    return float(value)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX or not value.isprintable():
        raise Malformed(f"{place} is not one line of at most {TEXT_MAX} characters")
    return value


def _texts(value: Any, place: str) -> tuple[str, ...]:
    return tuple(_text(one, place) for one in _list(value, place, LIST_MAX))


def _path(value: Any, place: str) -> str:
    return _matching(value, place, _ABSOLUTE)


def _matching(value: Any, place: str, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise Malformed(f"{place} does not have its form")
    return value


def _plain(words: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:TEXT_MAX]
