"""What electricity costs, by the hour of the week as the rack's own clock shows it.

The first window that a minute lies in gives its price, else the price of all other times. An hour of the
store costs the mean of its minutes, so a tariff that changes at half past is right too. Summer time is kept
apart by cutting a time into spans of one distance to UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from labctl.domain.sleep.terms import Window

HOURS = 168
_HOUR, _DAY = 3600, 86400
_DAY_MINUTES = 1440


@dataclass(frozen=True, slots=True)
class Price:
    """What a kWh costs in some windows of the week."""

    windows: tuple[Window, ...]
    per_kwh: float


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a kWh costs, in a currency: ``per_kwh``, unless a window says otherwise."""

    per_kwh: float
    currency: str
    prices: tuple[Price, ...] = ()

    @property
    def flat(self) -> bool:
        """Return whether it is the same at all times."""
        return not self.prices


def price_at(tariff: Tariff, day: int, minute: int) -> float:
    """Return what a kWh costs at a minute of a day of the week, 0 being Monday."""
    for price in tariff.prices:
        if any(_within(window, day, minute) for window in price.windows):
            return price.per_kwh
    return tariff.per_kwh


def _within(window: Window, day: int, minute: int) -> bool:
    """Return whether a window is on; one that runs past midnight belongs to the day on which it begins."""
    if window.start < window.end:
        return day in window.days and window.start <= minute < window.end
    before = (day - 1) % 7
    return (day in window.days and minute >= window.start) or (before in window.days and minute < window.end)


def by_hour(tariff: Tariff, offset_s: int) -> tuple[float, ...]:
    """Return the price of each hour of the week, where the rack's clock is so far ahead of UTC.

    Hours of the store begin with those of UTC, so where the distance is no whole hour they begin past it.
    """
    past = offset_s % _HOUR // 60
    edges = {edge % 60 for price in tariff.prices for one in price.windows for edge in (one.start, one.end)}
    # Where prices change with the hours of the store alone, one minute stands for all of its hour.
    step = 60 if edges <= {0} and not past else 1
    found = []
    for hour in range(HOURS):
        minutes = [(hour * 60 + past + more) % (HOURS * 60) for more in range(0, 60, step)]
        prices = [price_at(tariff, one // _DAY_MINUTES, one % _DAY_MINUTES) for one in minutes]
        found.append(sum(prices) / len(prices))
    return tuple(found)


def mean(tariff: Tariff) -> float:
    """Return the mean price over a week."""
    return sum(by_hour(tariff, 0)) / HOURS


def stretches(zone: str, since: int, until: int) -> Iterator[tuple[int, int, int]]:
    """Yield (since, until, seconds ahead of UTC) of each stretch in which a zone's distance to UTC is one.

    The cuts lie on whole hours of UTC.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: there is no such zone.
    """
    place = ZoneInfo(zone)

    def ahead(at: int) -> int:
        offset = datetime.fromtimestamp(at, place).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    begin = since
    while begin < until:
        offset, end = ahead(begin), begin
        while end < until and ahead(min(end + _DAY, until)) == offset:
            end += _DAY
        if end < until:  # it changes within this day
            end = end - end % _HOUR
            while ahead(end + _HOUR) == offset:
                end += _HOUR
            end += _HOUR
        yield begin, min(end, until), offset
        begin = end


@dataclass(frozen=True, slots=True)
class EnergyPolicy:
    """What the rack file says of energy: its zone (an IANA name), and the tariff, where there is one."""

    zone: str = "Etc/UTC"
    tariff: Tariff | None = None
