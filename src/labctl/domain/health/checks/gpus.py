"""Cards: are the declared ones there, and does their memory hold?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from ..evidence import Gpu, Rows
from ..expected import ExpectedGpu
from ..saying import Voice, few, short
from ..seats import Seat, declared, seats, unread
from ..terms import Case, Figure, Result
from .cards import CardCheck
from .past import grown

_SEAT = "power cycle the host; then look at its seat, riser and power cable"
_CODES = {
    "gpu-lost": "cut the host's power for a moment; then look at riser, seat and cables",
    "gpu-power-cable": "connect its power cables",
    "gpu-reset-required": "stop what uses it, then: nvidia-smi -r -i UUID; if that fails, reboot the host",
    "hang": "its driver hangs: look at dmesg, then reboot the host",
    "blocked": "something keeps /dev/nvidia* away from the agent: look at DeviceAllow=",
    "no-permission": "the agent has to run as root: labctl apply --only agent",
}


class GpuPresent:
    """Every declared card is there, answers, and is the one that was declared.

    Without the section of cards each is UNKNOWN. A card that sleeps is there. Of cards that nothing tells
    apart only their number is said, and under the name of their model.
    """

    code: ClassVar = "gpu-present"
    about: ClassVar = "every declared card is there, by its UUID, and answers"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each card, each group of cards that are alike, and those not declared."""
        say = Voice(self.code, case.host)
        if case.evidence is None:
            return
        silent = unread(case)
        for vendor in silent:
            names = (_known_as(seat) for seat in declared(case, (vendor,)))
            yield from (say.unread(silent, vendor, name) for name in dict.fromkeys(names))
        if case.evidence.gpus is None:
            yield say.withheld("undeclared")
            return
        alike: dict[str, list[Seat]] = {}
        strangers: list[Seat] = []
        for seat in seats(case):
            if seat.expected is None:
                strangers.append(seat)
            elif _told_apart(seat.expected):
                yield _one(say, seat, seat.expected)
            else:
                alike.setdefault(seat.expected.model, []).append(seat)
        for model, some in alike.items():
            yield _group(say, model, some)
        if strangers:
            told = few([f"{seat.gpu.name or 'a card'} at {seat.name}" for seat in strangers if seat.gpu])
            yield say.warn(
                "undeclared",
                f"not in the rack file: {told}",
                "add a Gpu(...) for each, since the power budget does not count it",
            )
        else:
            yield say.ok("undeclared", "no card is there that the rack file does not know")


def _told_apart(expected: ExpectedGpu) -> bool:
    return bool(expected.declared.slot or expected.declared.pci or expected.declared.uuid)


def _known_as(seat: Seat) -> str:
    """Return the subject under which a card is told of that is not found."""
    expected = seat.expected
    return expected.model if expected is not None and not _told_apart(expected) else seat.name


def _one(say: Voice, seat: Seat, expected: ExpectedGpu) -> Result:
    name, model, gpu = seat.name, expected.model, seat.gpu
    if gpu is None:
        return say.crit(name, f"the {model} is missing", _SEAT)
    if gpu.code:
        return say.crit(name, f"the {model} does not work: {_why(gpu)}", _CODES.get(gpu.code, _SEAT))
    if seat.replaced:
        reason = f"another card than declared sits there: {gpu.uuid}"
        return say.warn(name, reason, "correct its uuid in the rack file")
    return say.ok(name, f"the {model} is there{' and sleeps' if gpu.asleep else ''}")


def _group(say: Voice, model: str, some: Sequence[Seat]) -> Result:
    broken = [seat for seat in some if seat.gpu is not None and seat.gpu.code]
    there = sum(1 for seat in some if seat.gpu is not None)
    reason = f"{there} of {len(some)} {model} are there"
    if broken:
        told = few([f"{seat.name} ({_why(seat.gpu)})" for seat in broken if seat.gpu is not None])
        return say.crit(model, f"{reason}, and do not work: {told}", _SEAT)
    if there < len(some):
        cure = f"{_SEAT}; give its cards uuid= or pci=, and labctl can tell which one it is"
        return say.crit(model, reason, cure)
    return say.ok(model, reason)


def _why(gpu: Gpu) -> str:
    return short(next(iter(gpu.errors.values()), gpu.code))


class GpuRecovery(CardCheck):
    """The driver wants nothing done about a card; nothing is said where it does not tell."""

    code: ClassVar = "gpu-recovery"
    about: ClassVar = "the driver asks for no reset of a card and no reboot"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield what the driver asks for, where it is of those that tell (NVML's field 230)."""
        say = self.say(case)
        if gpu.recovery is None:
            return
        if gpu.recovery == "none":
            yield say.ok(seat.name, "the driver asks for nothing")
            return
        cure = (
            "stop what runs on the host, then reboot it"
            if "reboot" in gpu.recovery
            else "stop what uses it, then: nvidia-smi -r -i UUID; if that fails, reboot the host"
        )
        yield say.crit(seat.name, f"the driver asks for: {short(gpu.recovery)}", cure)


class Ecc(CardCheck):
    """Memory errors that ECC saw: none uncorrected, and few corrected.

    What was counted before the run before is old news and warns; what came since is critical. A card without
    ECC yields nothing.
    """

    code: ClassVar = "ecc"
    about: ClassVar = "ECC has seen no uncorrectable error of a card's memory, and few others"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield UNKNOWN where a card that has ECC fails to tell."""
        say, name, count = self.say(case), seat.name, gpu.ecc_uncorrected
        if count is None:
            if why := gpu.errors.get("ecc"):
                yield say.unknown(
                    name, f"its memory errors are not known: {short(why)}", "nvidia-smi -q -d ECC"
                )
            return
        figures = [Figure("uncorrected", count, warn=1)]
        if gpu.ecc_corrected is not None:
            figures.append(Figure("corrected", gpu.ecc_corrected))
        new = grown(case, gpu, lambda card: card.ecc_uncorrected)
        rate = grown(case, gpu, lambda card: card.ecc_corrected)
        if new is not None and new.count > 0:
            reason = f"{new.count} new uncorrectable memory errors, {count} in all"
            cure = "restart what ran on it; if more come, reset the card, then have it replaced"
            yield say.crit(name, reason, cure, *figures)
        elif count > 0:
            cure = "reset the card when convenient; if more come, have it replaced"
            yield say.warn(name, f"{count} uncorrectable memory errors were counted", cure, *figures)
        elif rate is not None and rate.per_hour >= case.expected.thresholds.ecc_corrected_per_hour:
            cure = "watch it: a card whose corrected errors grow fails soon"
            yield say.warn(name, f"{rate.per_hour:.0f} corrected memory errors an hour", cure, *figures)
        else:
            yield say.ok(name, "no uncorrectable memory errors", *figures)


class RowRemap(CardCheck):
    """Rows of memory that were replaced: a replacement that failed, or waits for a reset."""

    code: ClassVar = "row-remap"
    about: ClassVar = "no row of a card's memory waits for its replacement, and none failed"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield nothing of a card that neither replaces rows nor retires pages."""
        if gpu.rows is not None or gpu.retired_pending is not None:
            yield _rows(self.say(case), seat.name, gpu)


def _rows(say: Voice, name: str, gpu: Gpu) -> Result:
    rows, retired_pending = gpu.rows or Rows(None, None, None, None), gpu.retired_pending
    if rows.failed:
        return say.crit(name, "a bad row of its memory could not be replaced", "have the card replaced")
    if rows.pending or retired_pending:
        cure = "reset the card or reboot the host when nothing runs on it"
        return say.warn(name, "a bad row of its memory is replaced at the next reset", cure)
    if rows.failed is None and rows.pending is None and retired_pending is None:
        cure = "look with: nvidia-smi -q -d ROW_REMAPPER"
        return say.unknown(name, "it does not tell whether rows wait for their replacement", cure)
    done = (rows.uncorrected or 0) + (rows.corrected or 0)
    if done > 0:
        return say.informs(name, f"{done} bad rows of its memory were replaced", Figure("rows", done))
    return say.ok(name, "no row of its memory had to be replaced", Figure("rows", 0))
