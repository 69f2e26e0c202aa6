"""Has a host shown that it comes back? And how may it sleep then?

A proof is a passed sleep-test: it slept, was seen dark, woke and passed the gate. It holds for one kernel,
driver, network card and way to sleep; a change of any of these makes it stale, and then the host stays awake
until the test is passed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.domain.sleep.lifecycle import Verdict
from labctl.domain.sleep.terms import Fingerprint, How, Proof


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to sleep: ``mem_sleep`` is "deep" or "s2idle" for ``How.SUSPEND``, else empty."""

    how: How
    mem_sleep: str = ""


def judge(proof: Proof | None, fingerprint: Fingerprint | None) -> Verdict:
    """Return whether a proof holds for what a host runs now; ``because`` is one line that says why not."""
    raise NotImplementedError


def ladder(how: How) -> tuple[Rung, ...]:
    """Return the ways to sleep to try, the wanted one first: deep, s2idle, power-off, unload."""
    raise NotImplementedError


def chosen(tried: Sequence[tuple[Rung, str]], how: How) -> tuple[Rung, str]:
    """Return the first rung that passed (its failure is empty), and one line that says what failed and why.

    Args:
        tried: what was tried in the order of ``ladder``, each with what went wrong.
        how: what the inventory wants.
    """
    raise NotImplementedError
