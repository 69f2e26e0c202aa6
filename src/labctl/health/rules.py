"""How a rack is judged: its own expectations, with labctl's checks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from labctl.domain.health import judging
from labctl.domain.health.expected import Expected
from labctl.domain.health.progress import remember
from labctl.domain.health.reading import evidence_of
from labctl.health.looking import Rules
from labctl.inventory import LoadedRack
from labctl.render.expected import expected, expected_rack


def of(loaded: LoadedRack, hosts: Iterable[str]) -> tuple[Rules, tuple[Expected, ...]]:
    """Return the rules of a rack, and what is expected of those hosts.

    Raises:
        LabctlError: the rack file asks for something that cannot be rendered, as ``labctl plan`` would say.
    """
    wanted = tuple(expected(loaded, loaded.rack.host(name)) for name in hosts)
    judge_rack = partial(judging.judge_rack, expected_rack(loaded))
    return Rules(evidence_of, judging.judge, judge_rack, remember, judging.withheld), wanted
