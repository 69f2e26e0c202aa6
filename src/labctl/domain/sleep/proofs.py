"""Has a host shown that it comes back? And how may it sleep then?

A proof is a passed sleep-test: it slept, was seen dark, woke and passed the gate. It holds for one kernel,
driver, network card and way to sleep; a change of any of these makes it stale, and then the host stays awake
until the test is passed again. What a host runs now and does not tell has changed, for all we know.

How the kernel is set to sleep to memory at the moment is another matter: the order names what was proven,
and the host puts the setting back when it is awake again. What counts is that the kernel still offers it.

Where the wanted way fails, the test tries the next one of ``ladder``, and the proof is for the one that
passed: the host then sleeps that way (``way``), without a change of the rack file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from labctl.domain.sleep.lifecycle import Verdict
from labctl.domain.sleep.terms import Fingerprint, How, Proof
from labctl.domain.sleep.wording import counted, listed


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to sleep: ``mem_sleep`` is "deep" or "s2idle" for ``How.SUSPEND``, else empty."""

    how: How
    mem_sleep: str = ""

    def __str__(self) -> str:
        """Return how a person calls it: "suspend (deep)", "power-off"."""
        return f"{self.how} ({self.mem_sleep})" if self.mem_sleep else str(self.how)


_POWER_OFF, _UNLOAD = Rung(How.POWER_OFF), Rung(How.UNLOAD)
_LADDERS = {
    How.SUSPEND: (Rung(How.SUSPEND, "deep"), Rung(How.SUSPEND, "s2idle"), _POWER_OFF, _UNLOAD),
    How.HIBERNATE: (Rung(How.HIBERNATE), _POWER_OFF, _UNLOAD),
    How.POWER_OFF: (_POWER_OFF, _UNLOAD),
    How.UNLOAD: (_UNLOAD,),
}


def judge(
    host: str,
    proof: Proof | None,
    fingerprint: Fingerprint | None,
    wanted: How,
    *,
    offers: tuple[str, ...] = (),
) -> Verdict:
    """Return whether a proof holds for what a host runs now; ``because`` is one line that says why not.

    Args:
        host: its name, for the line.
        proof: what was proven; None: nothing.
        fingerprint: what the host says that it runs now; None: it does not tell.
        wanted: how the inventory wants it to sleep.
        offers: the ways to sleep to memory that its kernel has; empty where it does not tell.
    """
    if wanted is How.UNLOAD:
        return Verdict(True, f"{host} stays on, so it needs no proof")
    test = f"`labctl sleep-test {host}`"
    if proof is None:
        return Verdict(False, f"{host} has not shown yet that it comes back: {test} arms it")
    if fingerprint is None:
        return Verdict(False, f"{host} does not tell what it runs, so its proof may be stale")
    if all(rung.how is not proof.fingerprint.how for rung in ladder(wanted)):
        proven = proof.fingerprint.how
        return Verdict(False, f"the proof of {host} is for {proven}, and it is to {wanted}: {test} renews it")
    changed = _changed(proof.fingerprint, fingerprint, offers)
    if changed:
        return Verdict(False, f"the proof of {host} is stale ({'; '.join(changed)}): {test} renews it")
    return Verdict(True, f"{host} came back {counted(proof.cycles, 'time')} in its sleep test")


def way(proof: Proof | None, wanted: How) -> How:
    """Return how a host sleeps: as it has proven, where the wanted way failed and a lower one passed."""
    if proof is not None and any(rung.how is proof.fingerprint.how for rung in ladder(wanted)):
        return proof.fingerprint.how
    return wanted


def ladder(how: How) -> tuple[Rung, ...]:
    """Return the ways to sleep to try, the wanted one first: deep, s2idle, power-off, unload."""
    return _LADDERS[how]


def chosen(host: str, tried: Sequence[tuple[Rung, str]], wanted: How) -> tuple[Rung, str]:
    """Return the rung that a host sleeps by from now on, and one line that says so and why.

    Args:
        host: its name, for the line.
        tried: what was tried, in the order of ``ladder``, each with what went wrong; empty: it passed.
        wanted: how the inventory wants it to sleep.
    """
    failed = [f"{rung} failed: {why}" for rung, why in tried if why]
    passed = next((rung for rung, why in tried if not why), _UNLOAD)
    if not failed:
        return passed, f"{host} sleeps by {passed}" if passed != _UNLOAD else f"{host} only frees its cards"
    if passed == _UNLOAD:
        return passed, f"{host} only frees its cards when it is idle and stays on ({'; '.join(failed)})"
    return passed, f"{host} sleeps by {passed} ({'; '.join(failed)})"


def _changed(proven: Fingerprint, now: Fingerprint, offers: tuple[str, ...]) -> tuple[str, ...]:
    """Return what differs from what the next order would use.

    How the system would sleep by itself says nothing where another way is proven; to which memory state it
    would, nothing where it tells which ones it offers.
    """
    told = proven.how is How.SUSPEND and bool(proven.mem_sleep and offers)
    changed = (replace(proven, mem_sleep=now.mem_sleep) if told else proven).changed(now)
    if proven.how is not now.how:
        changed = tuple(one for one in changed if not one.startswith(("how ", "mem sleep ")))
    if told and proven.mem_sleep not in offers:
        changed += (f"mem sleep {proven.mem_sleep} -> not offered, only {listed(list(offers))}",)
    return changed
