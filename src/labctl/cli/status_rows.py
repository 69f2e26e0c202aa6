"""What is known of a host, for ``labctl status``: by the controller's word, or as its agent reported it.

The controller hears every awake host all the time, so what it knows costs nobody anything. What a host says
is a stranger's word: it is believed only as far as it has the right form, and what it does not say is not
known, never fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labctl.cli.asking import number, objects, text, texts
from labctl.domain.failures import Failure
from labctl.domain.sleep.wording import counted

_NEEDS_A_KEY = 401
_WRONG = ("failed", "inactive", "deactivating")


@dataclass(frozen=True, slots=True)
class Service:
    """One of labctl's units on a host; what is None is not known.

    ``models`` are names and states; ``running`` and ``waiting`` are requests.
    """

    name: str
    unit: str = ""
    state: str = "unknown"
    sub: str = "unknown"
    since: str | None = None
    restarts: int | None = None
    answer: int | None = None
    models: tuple[tuple[str, str], ...] | None = None
    running: int | None = None
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A card: what it draws and may draw, in W; ``asleep``: not asked; ``wrong``: why it is silent."""

    name: str
    power_w: float | None = None
    cap_w: float | None = None
    asleep: bool = False
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What is known of one host; in ``failure`` why nothing is.

    ``missing``: services that it does not have. ``source``: whose word it is, "controller" or "agent".
    ``gpus`` None: not known.
    """

    host: str
    services: tuple[Service, ...] | None = None
    missing: tuple[str, ...] = ()
    forced: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())
    failure: Failure | None = None
    asleep: bool = False
    gpus: tuple[Card, ...] | None = None
    source: str = ""

    @property
    def status(self) -> str:
        """Return the host's state in a word."""
        if self.asleep:
            return "asleep"
        if self.failure is not None:
            if self.failure.code == "interrupted":
                return "interrupted"
            return "unreachable" if self.failure.unreachable else "failed"
        bad = self.missing or self.services is None or any(one.state in _WRONG for one in self.services)
        return "wrong" if bad or any(card.wrong for card in self.gpus or ()) else "ok"


def of_report(host: str, wanted: Sequence[str], document: Mapping[str, Any]) -> HostStatus:
    """Return what a report of its agent says of a host; ``wanted`` are its services by the rack file."""
    listed = document.get("engines")
    errors = document.get("errors")
    notes = [
        str(error.get("what"))
        for name, error in (errors.items() if isinstance(errors, dict) else ())
        if name in ("engines", "forced") and isinstance(error, dict)
    ]
    forced = document.get("forced")
    noted = forced if isinstance(forced, dict) else None
    gpus = _reported_cards(document)
    if not isinstance(listed, list):
        old = "its agent is older than this labctl: labctl apply brings it up to date"
        said = (*notes, *(() if notes else (old,)))
        return HostStatus(host, None, (), noted, said, gpus=gpus, source="agent")
    services = tuple(_reported(one) for one in listed if isinstance(one, dict))
    there = {one.name for one in services}
    missing = tuple(name for name in wanted if name not in there)
    return HostStatus(host, services, missing, noted, tuple(notes), gpus=gpus, source="agent")


def of_telemetry(host: str, wanted: Sequence[str], said: Mapping[str, Any]) -> HostStatus | None:
    """Return what the controller hears of an awake host; ``said`` is its row (docs/control-api.md).

    None: it hears too little (nothing at all, or not of each service that the rack file wants there, or that
    one does not run, and not how it ended), so the host itself has to be asked.
    """
    told = said.get("telemetry")
    if said.get("talking") is not True or not isinstance(told, Mapping):
        return None
    services = tuple(_heard(one) for one in objects(told.get("engines")))
    if not set(wanted) <= {one.name for one in services} or any(one.state != "active" for one in services):
        return None
    gpus = tuple(
        Card(text(one.get("name")), number(one.get("power_w")), number(one.get("cap_w")), _asleep(one))
        for one in objects(told.get("gpus"))
    )
    return HostStatus(host, services, gpus=gpus, source="controller")


def _asleep(card: Mapping[str, Any]) -> bool:
    return card.get("asleep") is True


def _heard(one: Mapping[str, Any]) -> Service:
    active = one.get("active") is True
    return Service(
        text(one.get("service")),
        f"labctl-{text(one.get('service'))}.service",
        "active" if active else "inactive",
        models=tuple((name, "ready") for name in texts(one.get("models"))),
        running=_whole(one.get("running")),
        waiting=_whole(one.get("waiting")),
    )


def _reported(one: Mapping[str, Any]) -> Service:
    listed = one.get("models")
    models = None
    if isinstance(listed, list):
        pairs = (item for item in listed if isinstance(item, dict))
        models = tuple((str(item.get("model", "")), str(item.get("state", ""))) for item in pairs)
    since = one.get("since")
    return Service(
        str(one.get("service", "")),
        str(one.get("unit", "")),
        str(one.get("active") or "unknown"),
        str(one.get("sub") or "unknown"),
        since if isinstance(since, str) else None,
        _whole(one.get("restarts")),
        _whole(one.get("answer")),
        models,
        _whole(one.get("running")),
        _whole(one.get("waiting")),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _reported_cards(document: Mapping[str, Any]) -> tuple[Card, ...] | None:
    cards: list[Card] = []
    known = False
    for section in ("nvidia", "amd"):
        found = document.get(section)
        if isinstance(found, Mapping):
            known = True
            cards += [
                Card(
                    text(one.get("name")) or text(one.get("gfx")),
                    number(one.get("power_w")),
                    number(one.get("cap_w")),
                    one.get("code") == "asleep",
                    "" if one.get("code") == "asleep" else text(one.get("code")),
                )
                for one in objects(found.get("gpus"))
            ]
    return tuple(cards) if known else None


def notes(one: HostStatus) -> Iterator[str]:
    """Yield what a person should know of a host beside the table's cells."""
    if one.failure is not None:
        yield one.failure.reason
    if one.missing:
        yield f"missing: {', '.join(one.missing)}"
    for wrong in filter(None, (card.wrong for card in one.gpus or ())):
        yield f"a card does not answer ({wrong}): labctl health {one.host}"
    for service in one.services or ():
        if service.restarts:
            yield f"{service.name} was restarted {counted(service.restarts, 'time')}"
        if service.answer == _NEEDS_A_KEY:
            yield f"{service.name} wants a key, so what it has loaded is not known"
    yield from one.notes
    if one.forced is not None:
        who, when = one.forced.get("who", "somebody"), str(one.forced.get("when", "unknown"))[:16]
        yield f'forced by {who} at {when}: "{one.forced.get("words", "")}"'


def shown(one: HostStatus) -> dict[str, Any]:
    """Return a host for ``--json``; see ``labctl.cli.status``."""
    failure = one.failure
    return {
        "host": one.host,
        "status": one.status,
        "source": one.source or None,
        "failure": None
        if failure is None
        else {"code": failure.code, "reason": failure.reason, "hint": failure.hint},
        "services": None if one.services is None else [_service_shown(each) for each in one.services],
        "missing": list(one.missing),
        "forced": one.forced,
        "notes": list(one.notes),
        "gpus": None
        if one.gpus is None
        else [
            {"name": card.name, "asleep": card.asleep, "power_w": card.power_w, "cap_w": card.cap_w}
            for card in one.gpus
        ],
    }


def _service_shown(service: Service) -> dict[str, Any]:
    return {
        "service": service.name,
        "unit": service.unit,
        "state": service.state,
        "sub": service.sub,
        "since": service.since,
        "restarts": service.restarts,
        "answer": service.answer,
        "models": None
        if service.models is None
        else [{"model": name, "state": state} for name, state in service.models],
        "running": service.running,
        "waiting": service.waiting,
    }
