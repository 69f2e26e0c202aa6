"""Write pages: the templates beside this file, which escape everything that they are given."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labctl.domain.sleep.wording import lasting
from labctl.web.view import ago

HERE = Path(__file__).parent


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "pages"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(watts=_watts, amount=_amount, money=_money, lasting=lasting, ago=ago)
    return made


def page(template: str, **context: object) -> str:
    """Return ``pages/<template>`` filled with ``context``."""
    return _environment().get_template(template).render(**context)


def _money(value: float, currency: str) -> str:
    return f"{value:.2f} {currency}".strip()


def _watts(value: float | None) -> str:
    return "? W" if value is None else f"{value:.0f} W"


def _amount(value: float | None, unit: str) -> str:
    """Return an amount with two digits that matter, and its unit; a dash where it is not known."""
    if value is None:
        return "\N{EN DASH}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".strip()
