"""What the page shows, as values that a template only has to write down.

All words of hosts and of the controller are strangers' text: signs that print nothing or turn the writing
around are replaced here, and the template escapes the rest. What is not known is "" or None, and shown as
such. Times are rounded to what a person reads, so that a page on which nothing happens does not change each
second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labctl.domain.health.terms import Level
from labctl.domain.sleep.wording import lasting
from labctl.domain.web_table import Drawn, Table, drawn
from labctl.web import timeline
from labctl.web.metrics.reading import items, number, text
from labctl.web.sight import Seen

_COARSE_S = 60
_MIB_PER_GIB = 1024.0
_WORDS = {
    "unknown": "unknown",
    "ready": "awake",
    "draining": "about to sleep",
    "suspending": "going to sleep",
    "asleep": "asleep",
    "waking": "waking",
    "verifying": "being checked",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, in words and numbers."""

    name: str
    place: str
    asleep: bool
    power_w: float | None
    cap_w: float | None
    celsius: float | None
    busy: float | None
    vram: str


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that runs: what it has loaded and works on."""

    service: str
    kind: str
    models: tuple[str, ...]
    running: float | None
    waiting: float | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold: its number, and for how long, why and by whom."""

    number: int
    words: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    level: str
    code: str
    about: str
    reason: str
    cure: str
    since: str


@dataclass(frozen=True, slots=True)
class Host:
    """A host at a glance."""

    name: str
    mode: str
    kind: str
    words: str
    lasts: str
    because: str
    next: str
    doing: str
    talking: bool
    warnings: tuple[str, ...]
    watts: float | None
    gpus: tuple[Gpu, ...]
    engines: tuple[Engine, ...]
    holds: tuple[Hold, ...]
    wishes: tuple[str, ...]
    leases: int
    findings: int
    usual: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on the page."""

    rack: str
    trouble: str
    notes: tuple[str, ...]
    hosts: tuple[Host, ...]
    meters: tuple[Drawn, ...]
    findings: tuple[Finding, ...]
    checked: str
    lines: tuple[timeline.Line, ...]
    begin: float
    recent: tuple[tuple[float, str, str], ...]
    energy: Mapping[str, Any] | None
    watts: float | None

    def count(self, *kinds: str) -> int:
        """Return how many hosts are of these kinds."""
        return sum(one.kind in kinds for one in self.hosts)


def page(table: Table, seen: Seen) -> Page:
    """Return what is shown of one look."""
    hosts = tuple(_host(one, seen) for one in seen.hosts)
    by_name = {text(one.get("host")): one for one in seen.hosts}
    told = [one.watts for one in hosts if one.watts is not None]
    now = seen.at - seen.at % _COARSE_S
    return Page(
        rack=table.rack,
        trouble=plain(seen.trouble),
        notes=tuple(_notes(seen.status)),
        hosts=hosts,
        meters=() if seen.trouble else tuple(drawn(meter, by_name) for meter in table.meters),
        findings=tuple(_findings(seen)),
        checked=_checked(seen, table.stale_s),
        lines=tuple(timeline.line(one, seen.events, seen.at) for one in seen.hosts),
        begin=now - timeline.SPAN_S,
        recent=tuple(_recent(seen)),
        energy=_energy(seen.energy),
        watts=sum(told) if told else None,
    )


def plain(said: object) -> str:
    """Return a stranger's text without signs that print nothing or turn the writing around."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text(said))


def ago(seconds: float) -> str:
    """Return how long ago something was, so coarse that it rarely changes."""
    if seconds < _COARSE_S:
        return "just now"
    return f"{lasting(seconds - seconds % _COARSE_S)} ago"


def _lasts(seconds: float) -> str:
    return "just now" if seconds < _COARSE_S else f"for {lasting(seconds - seconds % _COARSE_S)}"


def _notes(status: Mapping[str, Any]) -> Iterator[str]:
    if not status:
        return
    if paused := plain(status.get("paused")):
        yield f"The rack is paused: {paused}"
    if store := plain(status.get("store")):
        yield f"The store cannot be used, so nothing is put to sleep: {store}"
    if not text(status.get("leader")):
        yield "No controller leads, so nothing is woken and nothing sleeps."


def _host(one: Mapping[str, Any], seen: Seen) -> Host:
    name, mode = text(one.get("host")), text(one.get("mode"))
    since, usual = number(one.get("since")), number(one.get("usual_s"))
    talking = one.get("talking") is True
    telemetry = one.get("telemetry") if talking else None
    measured: Mapping[str, Any] = telemetry if isinstance(telemetry, Mapping) else {}
    gpus = tuple(_gpu(each) for each in items(measured.get("gpus")))
    watts = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    return Host(
        name=plain(name),
        mode=plain(mode),
        kind=timeline.KINDS.get(mode, "unknown"),
        words=_WORDS.get(mode, "unknown"),
        lasts="" if since is None else _lasts(seen.at - since),
        because=plain(one.get("because")),
        next=plain(one.get("next")),
        doing=plain(one.get("doing")),
        talking=talking,
        warnings=tuple(_warnings(one)),
        watts=sum(watts) if watts else None,
        gpus=gpus,
        engines=tuple(_engine(each) for each in items(measured.get("engines")) if each.get("active") is True),
        holds=tuple(_hold(each, seen.at) for each in items(one.get("holds"))),
        wishes=tuple(_wish(each) for each in items(one.get("wishes"))),
        leases=int(number(one.get("leases")) or 0),
        findings=0 if seen.findings is None else len(seen.findings.of(name)),
        usual="" if usual is None else lasting(usual),
    )


def _warnings(one: Mapping[str, Any]) -> Iterator[str]:
    for name, words in (("quarantined", "quarantined"), ("paused", "paused"), ("proof", "no wake proof")):
        if said := plain(one.get(name)):
            yield f"{words}: {said}"


def _gpu(one: Mapping[str, Any]) -> Gpu:
    used, whole = number(one.get("vram_used_mib")), number(one.get("vram_mib"))
    known = used is not None and whole is not None
    return Gpu(
        name=plain(one.get("name")),
        place=plain(one.get("pci")),
        asleep=one.get("asleep") is True,
        power_w=number(one.get("power_w")),
        cap_w=number(one.get("cap_w")),
        celsius=number(one.get("temperature_c")),
        busy=number(one.get("busy_percent")),
        vram=f"{(used or 0) / _MIB_PER_GIB:.1f} of {(whole or 0) / _MIB_PER_GIB:.0f} GiB" if known else "",
    )


def _engine(one: Mapping[str, Any]) -> Engine:
    models = one.get("models")
    return Engine(
        service=plain(one.get("service")),
        kind=plain(one.get("kind")),
        models=tuple(map(plain, models)) if isinstance(models, list) else (),
        running=number(one.get("running")),
        waiting=number(one.get("waiting")),
    )


def _hold(one: Mapping[str, Any], now: float) -> Hold:
    left = (number(one.get("until")) or now) - now
    left += _COARSE_S - left % _COARSE_S
    words = f"{plain(one.get('why'))} ({plain(one.get('by'))}), for {lasting(left)}"
    return Hold(int(number(one.get("hold")) or 0), words)


def _wish(one: Mapping[str, Any]) -> str:
    why = plain(one.get("why"))
    return f"{plain(one.get('by'))} wants it {plain(one.get('wants'))}{f': {why}' if why else ''}"


def _findings(seen: Seen) -> Iterator[Finding]:
    if seen.findings is None:
        return
    bad = [one for one in seen.findings.findings if one.result.level is not Level.OK]
    for one in sorted(bad, key=lambda each: (-each.result.level.gravity, each.result.key)):
        result = one.result
        about = " ".join(plain(part) for part in (result.host or "the rack", result.subject) if part)
        yield Finding(
            result.level.name,
            plain(result.code),
            about,
            plain(result.reason),
            plain(result.cure),
            ago(seen.at - one.since),
        )


def _checked(seen: Seen, stale_s: float) -> str:
    if seen.findings is None:
        return "Nothing is known: no health check has left its results here."
    age = seen.at - seen.findings.at
    late = ", which is long: is labctl-health.timer running?" if age > stale_s else ""
    return f"{len(seen.findings.findings)} results, {ago(age)}{late}"


def _recent(seen: Seen) -> Iterator[tuple[float, str, str]]:
    for one in list(seen.events)[-12:][::-1]:
        yield number(one.get("at")) or 0.0, plain(one.get("host")), plain(one.get("text"))


def _energy(said: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what the rack used and saved, as {"kwh", "money", "saved_kwh", ...}; None: not counted."""
    if said is None or not isinstance(said.get("rack"), Mapping):
        return None
    rack = said["rack"]
    saved = rack.get("saved")
    spared: Mapping[str, Any] = saved if isinstance(saved, Mapping) else {}
    by_host: Sequence[Mapping[str, Any]] = list(items(said.get("hosts")))
    since, until = number(said.get("since")), number(said.get("until"))
    return {
        "currency": plain(said.get("currency")),
        "days": 0 if since is None or until is None else round((until - since) / 86400),
        "kwh": number(rack.get("kwh")),
        "money": number(rack.get("money")),
        "saved_kwh": _signed(spared.get("kwh")),
        "saved_money": _signed(spared.get("money")),
        "estimated": spared.get("estimated") is True,
        "because": plain(spared.get("because")),
        "hosts": [
            (plain(one.get("host")), number(one.get("kwh")), number(one.get("money"))) for one in by_host
        ],
    }


def _signed(said: object) -> float | None:
    """Return a number that may be less than nothing: sleeping may cost more than it saves."""
    if isinstance(said, float | int) and not isinstance(said, bool) and said < 0:
        known = number(-said)
        return None if known is None else -known
    return number(said)
