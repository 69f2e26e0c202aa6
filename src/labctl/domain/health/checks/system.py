"""The machine and its system: memory, clock, units, updates, certificates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ...sleep.wording import counted
from ..evidence import Clock, Memory
from ..saying import Voice, few, gravest, lasting, over, short, under
from ..terms import Case, Figure, Level, Result
from ..thresholds import DAY_S, Thresholds
from .past import before

_OURS = "labctl-"


class MemoryPressure:
    """Main memory is left, nobody waits for it, and nothing was killed for want of it."""

    code: ClassVar = "memory"
    about: ClassVar = "main memory is left, and nothing was killed for want of it"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        if evidence.memory is None:
            yield say.unread(evidence.errors, "memory")
            return
        past = before(case)
        old = past.memory.oom_kills if past is not None and past.memory is not None else None
        yield _memory(say, case.expected.thresholds, evidence.memory, old)


def _memory(say: Voice, limits: Thresholds, now: Memory, old_kills: int | None) -> Result:
    if now.total_mib <= 0:
        return say.unknown("", "it does not tell how much memory it has", "look with: free")
    percent = max(0.0, 100 * now.available_mib / now.total_mib)
    free = under(percent, limits.memory_free_warn_percent, limits.memory_free_crit_percent)
    found = [(free, f"{percent:.0f} % of its memory are available")]
    figures = [Figure("available", now.available_mib, "MiB")]
    if now.stall_percent is not None:
        stall = over(now.stall_percent, limits.stall_warn_percent, limits.stall_crit_percent)
        found.append((stall, f"all programs waited for memory {now.stall_percent:.0f} % of a minute"))
        figures.append(
            Figure("stall", now.stall_percent, "%", limits.stall_warn_percent, limits.stall_crit_percent)
        )
    killed = (now.oom_kills or 0) - old_kills if old_kills is not None else 0
    if killed > 0:
        found.append((Level.WARN, f"{killed} programs were killed for want of memory"))
    level = gravest(*(one for one, _ in found))
    words = [text for one, text in found if one is level]
    cure = "see who uses it with: ps aux --sort -rss; give engines less (fewer models, shorter contexts)"
    return say.at(level, "", ", ".join(words if level else words[:1]), cure, *figures)


class ClockSkew:
    """The host's clock is synchronised, and close to that of whoever asks."""

    code: ClassVar = "clock"
    about: ClassVar = "the clock is synchronised and right"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        if evidence.clock is None:
            yield say.unread(evidence.errors, "clock")
        else:
            yield _clock(say, case.expected.thresholds, evidence.clock, case.now)


def _clock(say: Voice, limits: Thresholds, clock: Clock, now: float) -> Result:
    off = clock.wall - now
    level = over(abs(off), limits.clock_warn_s, limits.clock_crit_s)
    figures = [Figure("skew", off, "s", limits.clock_warn_s, limits.clock_crit_s)]
    cure = "look at: timedatectl timesync-status; labctl apply sets up time servers (`ntp` of the rack)"
    if level is not Level.OK:
        way = "ahead of" if off > 0 else "behind"
        return say.at(level, "", f"its clock is {lasting(abs(off))} {way} this machine's", cure, *figures)
    if clock.synchronised is False:
        return say.warn("", "its clock is not synchronised", cure, *figures)
    if clock.offset_s is not None and abs(clock.offset_s) >= limits.offset_warn_s:
        return say.warn("", f"its clock is {clock.offset_s:+.1f} s off by its own account", cure, *figures)
    if clock.synchronised is None:
        reason = "its clock is right; whether it is synchronised, it does not tell"
        return say.informs("", reason, *figures)
    return say.ok("", "its clock is synchronised and right", *figures)


class Units:
    """No unit of systemd has failed; labctl's own are told of one by one."""

    code: ClassVar = "units"
    about: ClassVar = "no unit of systemd has failed"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each service and each failed unit of labctl's, and one for the rest."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        if evidence.failed_units is None:
            yield say.unread(evidence.errors, "failed_units")
            return
        failed = tuple(dict.fromkeys(evidence.failed_units))
        ours = [f"{_OURS}{engine.service}.service" for engine in case.expected.engines]
        for unit in dict.fromkeys((*ours, *(one for one in failed if one.startswith(_OURS)))):
            if unit in failed:
                yield say.crit(unit, "it has failed", f"look why with: journalctl -u {short(unit)} -e")
            else:
                yield say.ok(unit, "it has not failed")
        others = [one for one in failed if not one.startswith(_OURS)]
        if others:
            cure = "look why with: systemctl --failed; one that may fail: systemctl reset-failed"
            yield say.warn("", f"failed: {few(others)}", cure, Figure("failed", len(others), warn=1))
        else:
            yield say.ok("", "no other unit has failed", Figure("failed", 0, warn=1))


class RebootRequired:
    """Nothing that was installed waits for a reboot."""

    code: ClassVar = "reboot-required"
    about: ClassVar = "nothing that was installed waits for a reboot"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        if evidence.upkeep is None:
            yield say.unread(evidence.errors, "upkeep")
        elif evidence.upkeep.reboot_required is None:
            yield say.unknown(
                "", "whether it waits for a reboot is not known", "look at /run/reboot-required"
            )
        elif evidence.upkeep.reboot_required:
            why = evidence.upkeep.reboot_because
            reason = f"it waits for a reboot{f' for {few(why)}' if why else ''}"
            yield say.warn(
                "", reason, "reboot it when nothing runs on it; labctl apply --allow-reboot does it in turns"
            )
        else:
            yield say.ok("", "nothing waits for a reboot")


class Updates:
    """No security update waits, and the lists that say so are young."""

    code: ClassVar = "updates"
    about: ClassVar = "no security update waits to be installed"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        if evidence.upkeep is None or evidence.upkeep.security is None:
            yield say.unread(evidence.errors, "updates" if "updates" in evidence.errors else "upkeep")
            return
        security, pending, age = evidence.upkeep.security, evidence.upkeep.pending, evidence.upkeep.age_s
        figures = [Figure("security", security, warn=1)]
        if pending is not None:
            figures.append(Figure("pending", pending))
        if security > 0:
            cure = "install them: apt upgrade, or wait for unattended-upgrades"
            yield say.warn("", f"{counted(security, 'security update')} to install", cure, *figures)
        elif age is None:
            yield say.unknown(
                "", "how old its package lists are is not known", "run on it: apt update", *figures
            )
        elif age >= case.expected.thresholds.lists_warn_s:
            reason = f"its package lists are {lasting(age)} old, so what waits is not known"
            yield say.warn("", reason, "run on it: apt update; look at apt-daily.timer", *figures)
        else:
            yield say.ok("", "no security update waits", *figures)


class Certificates:
    """Certificates in the files that the rack file names hold for a while yet."""

    code: ClassVar = "certificates"
    about: ClassVar = "certificates on hosts do not end soon"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each file that is expected, or that the agent was told to look at."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        found = evidence.certificates or ()
        failed = (name.partition(":")[2] for name in evidence.errors if name.startswith("certificates:"))
        for path in dict.fromkeys((*case.expected.certificates, *(one.path for one in found), *failed)):
            ends = [one.not_after for one in found if one.path == path]
            if ends:
                yield _until(say, case, path, min(ends))
            else:
                name = f"certificates:{path}" if f"certificates:{path}" in evidence.errors else "certificates"
                yield say.unread(evidence.errors, name, path)


def _until(say: Voice, case: Case, path: str, end: float) -> Result:
    limits, left = case.expected.thresholds, end - case.now
    level = under(left, limits.certificate_warn_s, limits.certificate_crit_s)
    days = Figure("days", left / DAY_S)
    reason = f"it ended {lasting(-left)} ago" if left <= 0 else f"it holds for another {lasting(left)}"
    return say.at(level, path, reason, "renew it, then: labctl apply", days)
