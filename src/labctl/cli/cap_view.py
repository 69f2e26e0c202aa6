"""Show power caps: one line for each card, before and after, and what is to be said about it.

Whatever is not as ordered has its reason in its own line, so that a table of two hundred cards can be
searched; the order of the lines is the rack's. Names and reasons come from hosts, so they are shown safely.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from labctl.cli import printer
from labctl.domain.capping import same, same_address
from labctl.domain.failures import Failure
from labctl.domain.problem import Problem
from labctl.fleet.cap_answers import HostCaps, card_name
from labctl.fleet.sessions import Answer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_MAKERS = ("NVIDIA ", "AMD ", "GeForce ", "Radeon ")


class Waiting:
    """Counts the hosts that have answered, for a person who watches; silent in a pipe and with --json."""

    def __init__(self, hosts: int) -> None:
        self._hosts = hosts
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Waiting:
        if self._hosts and printer.interactive():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("asking hosts"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=printer.console(),
                transient=True,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("", total=self._hosts)
            self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_answer(self, answer: Answer) -> None:
        """Count one more."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)


def show_outcome(hosts: Sequence[HostCaps], *, clocks: bool) -> None:
    """Print what became of every card; with ``clocks`` also of what they are locked to."""
    rows = []
    for host in hosts:
        if host.failure is not None:
            rows.append((host.host, "", "", "", host.status, _said(host.failure)))
        for card in host.cards:
            why = _reason(card) or (_clocks_change(card) if clocks else "")
            rows.append((host.host, card_name(card), _model(card), _change(card), str(card["status"]), why))
    if rows:
        printer.table(("host", "card", "model", "watts", "result", "why"), rows)
    _remarks(hosts)


def show_caps(hosts: Sequence[HostCaps]) -> None:
    """Print what every card is capped at now, what it would take, and who wants that."""
    rows = []
    for host in hosts:
        if host.failure is not None:
            rows.append((host.host, "", "", "", "", f"{host.status}: {_said(host.failure)}"))
        for card in host.cards:
            allowed = _range(card)
            rows.append((host.host, card_name(card), _model(card), _now(card), allowed, _wish(card, host)))
    if rows:
        printer.table(("host", "card", "model", "cap", "range", "set by"), rows)
    else:
        printer.out("There is no graphics card here that labctl can cap.")
    _remarks(hosts)


def _remarks(hosts: Iterable[HostCaps]) -> None:
    """Say what hosts found beside their cards."""
    for host in hosts:
        called = {str(card.get(key)): card_name(card) for card in host.cards for key in ("uuid", "pci")}
        told = (tuple(str(one.get(key) or "") for key in ("what", "hint", "card")) for one in host.findings)
        for what, hint, card in dict.fromkeys(told):
            name = called.get(card, card)
            problem = Problem(what, hint, host=host.host, field=name if name not in what else "")
            printer.show_problems([problem], severity="warning")


def _said(failure: Failure) -> str:
    return f"{failure.reason}; {failure.hint}" if failure.hint else failure.reason


def _reason(card: Mapping[str, Any]) -> str:
    why, hint = str(card.get("why") or ""), str(card.get("hint") or "")
    return f"{why}; {hint}" if why and hint else why or hint


def _model(card: Mapping[str, Any]) -> str:
    name = str(card.get("name") or "")
    for maker in _MAKERS:
        name = name.removeprefix(maker)
    return name


def _number(value: object) -> str:
    try:
        return f"{value:g}" if isinstance(value, int | float) else "?"
    except OverflowError:  # a host may say a number that no float can hold
        return "?"


def _change(card: Mapping[str, Any]) -> str:
    before, after = card.get("before_w"), card.get("after_w")
    if before is None and after is None:
        return ""
    if before == after or after is None:
        return f"{_number(before)} W"
    return f"{_number(before)} -> {_number(after)} W"


def _clocks(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) == 2:
        return f"{_number(value[0])} to {_number(value[1])} MHz"
    return "free" if value == "reset" else ""


def _clocks_change(card: Mapping[str, Any]) -> str:
    before, after = _clocks(card.get("clocks_before")), _clocks(card.get("clocks_after"))
    if not after:
        return f"clocks {before} -> free" if before else ""
    return f"clocks {before} -> {after}" if before and before != after else f"clocks {after}"


def _now(card: Mapping[str, Any]) -> str:
    if card.get("before_w") is None:
        return str(card["status"])
    return f"{_number(card.get('before_w'))} W"


def _range(card: Mapping[str, Any]) -> str:
    low, high = card.get("min_w"), card.get("max_w")
    return "" if low is None or high is None else f"{_number(low)} to {_number(high)} W"


def moment(seconds: object) -> str:
    """Return a time in Unix seconds as a person's clock here shows it."""
    if not isinstance(seconds, int | float):
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M %Z}"
    except (ValueError, OverflowError, OSError):  # a host may say a time that no calendar has
        return "an unknown time"


def _wish(card: Mapping[str, Any], host: HostCaps) -> str:
    """Return who wants what of a card, and what is not as wanted."""
    declared = card.get("declared_w")
    said = (
        [f"inventory: {_number(declared)} W ({card.get('declared_reason')})"] if declared is not None else []
    )
    said += [_order(one) for one in host.overrides if _is_about(one, card)]
    said += [_step(one) for one in host.steps if _is_about(one, card)]
    if clocks := _clocks(card.get("clocks_before")):
        said.append(f"clocks {clocks}")
    if card.get("status") == "would-change":
        said.append(f"{_number(card.get('after_w'))} W again at the next boot or apply")
    return "; ".join([*said, *filter(None, [_reason(card)])])


def _is_about(override: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
    return same(override.get("uuid"), card.get("uuid")) or same_address(override.get("pci"), card.get("pci"))


def _order(override: Mapping[str, Any]) -> str:
    """Return an order that lasts: what, until when, by whom and why."""
    watts, clocks = override.get("watts"), _clocks(override.get("clocks_mhz"))
    what = ", ".join([*([f"{_number(watts)} W"] if watts is not None else []), *([clocks] if clocks else [])])
    until = moment(override.get("until"))
    who = str(override.get("by") or "somebody").partition(" pid ")[0]
    why = ", ".join(str(override[key]) for key in ("reason", "words") if override.get(key))
    return f"{who}: {what} {f'until {until}' if until else 'for good'}{f' ({why})' if why else ''}"


def _step(step: Mapping[str, Any]) -> str:
    """Return that a card stepped down for other hosts, how far and why."""
    return f"stepped down to {_number(step.get('watts'))} W ({step.get('because')})"


def say_left_out(left_out: Sequence[str]) -> None:
    """Say which cards the order was not about, and why."""
    for one in left_out:
        printer.err(f"left out: {printer.safe(one)}")
