"""The answer: kWh, money, kWh for a million tokens, and what sleeping saved.

*Saved by sleeping* compares a host with itself: had it not slept, it would have drawn while idle what it
draws while awake and idle, as measured. From that goes what it did draw asleep, and all that its ways to
sleep and back cost: where nothing told what those drew, they are counted with the idle watts. So::

    saved = idle watts * seconds asleep - joules asleep - joules of changing

It is an estimate unless a meter told both sides. Where a host was never measured awake and idle, nothing is
said to be saved.

*For a million tokens* all that a host used is counted, also while it was idle or asleep: that is what they
cost. Tokens are those of answers, as the gateway counted them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .terms import IDLE, J_PER_KWH, Doing, SpentSum, Tokens

LEAST_IDLE_S = 600.0
"""How long a host must have been measured awake and idle before that is believed to be what it draws."""

_MILLION = 1e6
_MOSTLY = 0.95


@dataclass(frozen=True, slots=True)
class Line:
    """What doing one thing took: seconds, kWh with the estimated part of it, and money (None: no tariff)."""

    doing: Doing
    seconds: float
    kwh: float
    estimated_kwh: float
    money: float | None


@dataclass(frozen=True, slots=True)
class Saved:
    """What sleeping saved; ``because`` says by which watts, or why nothing can be said (then kWh is None).

    ``wakes_kwh`` is what the ways to sleep and back took, which is in ``kwh`` already. ``estimated``: not
    both sides were measured.
    """

    kwh: float | None
    money: float | None
    estimated: bool
    wakes_kwh: float
    idle_w: float | None
    asleep_w: float | None
    because: str


@dataclass(frozen=True, slots=True)
class Used:
    """What a host (or the rack: empty) used; per million tokens None where there were none."""

    host: str
    lines: tuple[Line, ...]
    kwh: float
    estimated_kwh: float
    money: float | None
    prompt_tokens: int
    answer_tokens: int
    kwh_per_mtok: float | None
    money_per_mtok: float | None
    saved: Saved


@dataclass(frozen=True, slots=True)
class Account:
    """All hosts and the rack, from ``since`` until ``until`` (wall); ``currency`` is empty without a tariff.

    ``mean_price``: hours are forgotten by now for a part of it, so money is by the mean price of a week.
    """

    since: float
    until: float
    currency: str
    mean_price: bool
    hosts: tuple[Used, ...]
    rack: Used


@dataclass(frozen=True, slots=True)
class Priced:
    """Sums of a stretch of time, and what a kWh cost in each hour of the week of it (None: no tariff)."""

    sums: Sequence[SpentSum]
    prices: Sequence[float] | None


@dataclass(slots=True)
class _Heap:
    """What is added up of a host doing one thing."""

    seconds: float = 0.0
    metered_s: float = 0.0
    joules: float = 0.0
    guessed: float = 0.0
    money: float = 0.0
    paid: dict[float, float] = field(default_factory=dict)  # seconds by price


def account(
    hosts: Sequence[str],
    stretches: Iterable[Priced],
    tokens: Iterable[Tokens],
    usual: Iterable[SpentSum],
) -> tuple[tuple[Used, ...], Used]:
    """Return what each host used, and the rack.

    Args:
        hosts: which are asked for.
        stretches: their sums; each stretch has its own prices.
        tokens: what the gateway counted in that time.
        usual: sums of a longer time, by which a host's idle watts are known where these have too little.
    """
    heaps: dict[str, dict[Doing, _Heap]] = {host: {} for host in hosts}
    priced = False
    for stretch in stretches:
        priced = priced or stretch.prices is not None
        for one in stretch.sums:
            if one.host in heaps:
                _heap(heaps[one.host].setdefault(one.doing, _Heap()), one, stretch.prices)
    counted: dict[str, tuple[int, int]] = {}
    for each in tokens:
        prompt, answer = counted.get(each.host, (0, 0))
        counted[each.host] = prompt + each.prompt, answer + each.answer
    known = _idle_heaps(usual)
    used = tuple(
        _used(host, heaps[host], counted.get(host, (0, 0)), known.get(host), priced=priced) for host in hosts
    )
    return used, _together(used, priced=priced)


def _heap(heap: _Heap, one: SpentSum, prices: Sequence[float] | None) -> None:
    heap.seconds += one.seconds
    heap.metered_s += one.metered_s
    heap.joules += one.joules
    heap.guessed += one.guessed
    if prices is not None:
        price = sum(prices) / len(prices) if one.slot is None else prices[one.slot]
        heap.money += (one.joules + one.guessed) / J_PER_KWH * price
        heap.paid[price] = heap.paid.get(price, 0.0) + one.seconds


def _idle_heaps(sums: Iterable[SpentSum]) -> Mapping[str, _Heap]:
    found: dict[str, _Heap] = {}
    for one in sums:
        if one.doing in IDLE:
            _heap(found.setdefault(one.host, _Heap()), one, None)
    return found


def _idle_w(heap: _Heap | None) -> float | None:
    if heap is None or heap.metered_s < LEAST_IDLE_S:
        return None
    return heap.joules / heap.metered_s


def _used(
    host: str, heaps: Mapping[Doing, _Heap], tokens: tuple[int, int], usual: _Heap | None, *, priced: bool
) -> Used:
    lines = tuple(
        Line(
            doing,
            heap.seconds,
            (heap.joules + heap.guessed) / J_PER_KWH,
            heap.guessed / J_PER_KWH,
            heap.money if priced else None,
        )
        for doing in Doing
        if (heap := heaps.get(doing)) is not None
    )
    return _with_tokens(host, lines, tokens, _saved(heaps, usual, priced=priced), priced=priced)


def _with_tokens(
    host: str, lines: tuple[Line, ...], tokens: tuple[int, int], saved: Saved, *, priced: bool
) -> Used:
    kwh = sum(line.kwh for line in lines)
    money = sum(line.money or 0.0 for line in lines) if priced else None
    prompt, answer = tokens
    # What nothing told is not nothing: then nobody knows what the tokens took.
    told = all(line.kwh for line in lines if line.seconds and line.doing is not Doing.UNSEEN)
    millions = answer / _MILLION if told else 0.0
    return Used(
        host=host,
        lines=lines,
        kwh=kwh,
        estimated_kwh=sum(line.estimated_kwh for line in lines),
        money=money,
        prompt_tokens=prompt,
        answer_tokens=answer,
        kwh_per_mtok=kwh / millions if millions else None,
        money_per_mtok=money / millions if millions and money is not None else None,
        saved=saved,
    )


def _saved(heaps: Mapping[Doing, _Heap], usual: _Heap | None, *, priced: bool) -> Saved:
    """Return what sleeping saved, by the rule of the module's text."""
    own = _Heap()
    for doing in IDLE:
        if (heap := heaps.get(doing)) is not None:
            own.metered_s += heap.metered_s
            own.joules += heap.joules
    asleep, changing = heaps.get(Doing.ASLEEP, _Heap()), heaps.get(Doing.CHANGING, _Heap())
    wakes = changing.joules + changing.guessed
    asleep_w = (asleep.joules + asleep.guessed) / asleep.seconds if asleep.seconds else None
    idle_w = _idle_w(own)
    longer = idle_w is None
    if idle_w is None:
        idle_w = _idle_w(usual)
    if asleep_w is None:
        return Saved(0.0, 0.0 if priced else None, False, wakes / J_PER_KWH, idle_w, None, "it did not sleep")
    if idle_w is None:
        because = "it was not yet measured awake and idle for 10 min"
        return Saved(None, None, True, wakes / J_PER_KWH, None, asleep_w, because)
    kwh = (idle_w * asleep.seconds - asleep.joules - asleep.guessed - wakes) / J_PER_KWH
    money = None
    if priced:
        gross = sum(price * seconds for price, seconds in asleep.paid.items()) * idle_w / J_PER_KWH
        money = gross - asleep.money - changing.money
    metered = asleep.metered_s >= _MOSTLY * asleep.seconds and not changing.guessed
    when = ", measured at other times" if longer else ""
    because = f"awake and idle it draws {idle_w:.0f} W{when}, asleep {asleep_w:.0f} W"
    if not metered:
        because += ", which is an estimate"
    return Saved(kwh, money, not metered or longer, wakes / J_PER_KWH, idle_w, asleep_w, because)


def _together(used: Sequence[Used], *, priced: bool) -> Used:
    """Return the rack: the sum of its hosts."""
    lines = []
    for doing in Doing:
        those = [line for one in used for line in one.lines if line.doing is doing]
        if those:
            money = sum(line.money or 0.0 for line in those) if priced else None
            seconds, kwh = sum(line.seconds for line in those), sum(line.kwh for line in those)
            lines.append(Line(doing, seconds, kwh, sum(line.estimated_kwh for line in those), money))
    tokens = sum(one.prompt_tokens for one in used), sum(one.answer_tokens for one in used)
    known = [one.saved for one in used if one.saved.kwh is not None]
    unknown = [one.host for one in used if one.saved.kwh is None]
    saved = Saved(
        kwh=sum(one.kwh or 0.0 for one in known) if known else None,
        money=sum(one.money or 0.0 for one in known) if known and priced else None,
        estimated=any(one.estimated for one in known),
        wakes_kwh=sum(one.saved.wakes_kwh for one in used),
        idle_w=None,
        asleep_w=None,
        because=f"not counted, since not yet measured awake and idle: {', '.join(unknown)}"
        if unknown
        else "",
    )
    return _with_tokens("", tuple(lines), tokens, saved, priced=priced)
