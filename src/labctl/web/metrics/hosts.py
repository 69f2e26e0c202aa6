"""What the controller says of the rack: every host's state, who claims it, and what it measured.

The answer comes from another process and may be another version's: a field that is missing or of another
kind is not known, and never a reason for no page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.web.metrics import measured
from labctl.web.metrics.families import Sheet, Spread
from labctl.web.metrics.reading import items, number, text


def put(sheet: Sheet, status: Mapping[str, Any]) -> None:
    """Put the controller's answer to ``status`` on the page."""
    sheet.put("labctl_controller_up", 1.0)
    sheet.put("labctl_controller_leading", float(status.get("leading") is True))
    sheet.put("labctl_controller_led", float(bool(status.get("leader"))))
    sheet.put("labctl_controller_store_usable", float(not status.get("store")))
    sheet.put("labctl_controller_tick_age_seconds", number(status.get("ticked_s")))
    sheet.put("labctl_rack_paused", float(bool(status.get("paused"))))
    for one in items(status.get("hosts")):
        if host := text(one.get("host")):
            _put_host(sheet, host, one)


def _put_host(sheet: Sheet, host: str, one: Mapping[str, Any]) -> None:
    mode = one.get("mode")
    for state in Mode:
        sheet.put("labctl_host_state", float(mode == state.value), host=host, state=state.value)
    sheet.put("labctl_host_state_since_seconds", number(one.get("since")), host=host)
    talking = one.get("talking") is True
    sheet.put("labctl_host_talking", float(talking), host=host)
    for name in ("paused", "quarantined"):
        sheet.put(f"labctl_host_{name}", float(bool(one.get(name))), host=host)
    sheet.put("labctl_host_leases", number(one.get("leases")), host=host)
    sheet.put("labctl_host_holds", float(len(list(items(one.get("holds"))))), host=host)
    wanted = [text(wish.get("wants")) for wish in items(one.get("wishes"))]
    for wants in ("awake", "asleep"):
        sheet.put("labctl_host_wishes", float(wanted.count(wants)), host=host, wants=wants)
    sheet.put("labctl_host_wake_proven", float(not one.get("proof")), host=host)
    sheet.put("labctl_host_wake_usual_seconds", number(one.get("usual_s")), host=host)
    _put_counts(sheet, host, one.get("counts"))
    if talking:  # what it measured before it fell silent says nothing of now
        measured.put(sheet, host, one.get("telemetry"))


def _put_counts(sheet: Sheet, host: str, counts: object) -> None:
    if not isinstance(counts, Mapping):
        return
    # Each from zero on: a counter that begins with 1 has not risen, as Prometheus sees it.
    moves = {**dict.fromkeys(Event, 0.0), **dict(_numbers(counts.get("moves")))}
    for event in Event:
        sheet.put("labctl_host_moves_total", moves[event], host=host, event=event.value)
    sheet.put("labctl_host_wake_seconds", _spread(counts.get("wakes")), host=host)


def _numbers(said: object) -> Iterator[tuple[Event, float]]:
    for event in Event:
        count = number(said.get(event.value)) if isinstance(said, Mapping) else None
        if count is not None:
            yield event, count


def _spread(said: object) -> Spread | None:
    if not isinstance(said, Mapping):
        return None
    bounds, counts = ([number(one) for one in _list(said.get(name))] for name in ("bounds", "counts"))
    whole = number(said.get("sum"))
    if whole is None or None in bounds or None in counts or len(counts) != len(bounds) + 1:
        return None
    return Spread([one or 0.0 for one in bounds], [int(one or 0) for one in counts], whole)


def _list(said: object) -> list[object]:
    return said if isinstance(said, list) else []
