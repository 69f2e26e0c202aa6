"""Turn the loop's picture into answers: a host's status, why it is so, and what became of a wish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.controller.answers import Block, Change, Explanation, HostStatus, Ticket
from labctl.controller.board import Picture
from labctl.domain.sleep import idle, proofs, reconcile, remedies, waking
from labctl.domain.sleep.lifecycle import ADMITS, Mode, Verdict
from labctl.domain.sleep.sight import sight_of
from labctl.domain.sleep.terms import How, KnownHost, Moment, Policy, SeenHost, Wish
from labctl.ports.store import Happening, Sought

_UNSEEN = SeenHost("", float("-inf"))
TURNS = Sought(kinds=("mode",), text=f" -> {Mode.READY}: ")
"""The lines of the log in which a host became READY, from wherever."""
_ON_THE_WAY = (f"{Mode.DRAINING} -> ", f"{Mode.SUSPENDING} -> ")


@dataclass(frozen=True, slots=True)
class Told:
    """What the log says of a host: its last lines, and those in which it last became READY (``TURNS``)."""

    recent: Sequence[Happening] = ()
    turns: Sequence[Happening] = ()

    @property
    def refused(self) -> tuple[float, str] | None:
        """Return when it last turned back on its way to sleep, and why."""
        for line in reversed(self.turns):
            if line.text.startswith(_ON_THE_WAY):
                return line.at, line.text.partition(": ")[2]
        return None


def status_of(policy: Policy, picture: Picture, host: str, doing: Mapping[str, str]) -> HostStatus:
    """Return a host as the picture has it."""
    row = picture.known.hosts.get(host, KnownHost(host, because="the store knows nothing of it yet"))
    seen = picture.seen.hosts.get(host, _UNSEEN)
    report = seen.report
    wanted = policy.hosts[host]
    fingerprint, offers = (None, ()) if report is None else (report.fingerprint, report.mem_sleeps)
    way = proofs.way(row.proof, wanted.how)
    proof = proofs.judge(host, row.proof, fingerprint, way, offers=offers)
    return HostStatus(
        host=host,
        mode=row.mode,
        since=row.since,
        because=row.because,
        next=picture.waits.get(host, ""),
        talking=seen.talking,
        paused=row.paused or picture.known.paused,
        quarantined=row.quarantined,
        holds=row.holds,
        wishes=row.wishes,
        leases=row.claims.leases,
        proof="" if proof or not wanted.sleeps else proof.because,
        doing=doing.get(host, ""),
        usual_s=waking.usual_s(row),
        telemetry=report.telemetry if report is not None and seen.talking else None,
    )


def explanation_of(
    policy: Policy, picture: Picture, status: HostStatus, told: Told, now: Moment
) -> Explanation:
    """Return why a host is in its mode, what keeps it awake, and what changes that."""
    host = status.host
    seen = picture.seen.hosts.get(host, _UNSEEN)
    if host not in picture.known.hosts or host not in picture.seen.hosts:
        return Explanation(status, "it was not looked at yet", may_sleep=False)
    sight = sight_of(policy, picture.known, picture.seen, picture.moment)
    verdict, against = idle.verdict(sight, host), idle.reasons(sight, host)
    wakes = not any(one.kind == "wake" for one in against)
    lines = reconcile.explain(policy, picture.known, picture.seen, picture.moment, host)
    report = seen.report
    return Explanation(
        status=status,
        verdict=verdict.because,
        may_sleep=verdict.yes,
        readings=() if report is None else report.readings,
        report_age_s=None if report is None else max(0.0, now.mono - report.at),
        signs=tuple(f"{name}: {sign}" for name, sign in sorted(seen.signs.items())),
        against=tuple(one.because for one in against),
        recent=tuple((line.at, line.text) for line in told.recent),
        lines=lines,
        blocks=tuple(_block(one, host, now, wakes=wakes) for one in against),
        refused=told.refused,
        next_look_s=max(0.0, picture.moment.mono + policy.tick_s - now.mono),
    )


def _block(one: idle.Against, host: str, now: Moment, *, wakes: bool) -> Block:
    until = None if one.for_s is None else now.wall + one.for_s
    return Block(one.kind, one.because, until, remedies.remedy(one.kind, host, wakes=wakes))


def change_of(picture: Picture, host: str, *, ok: bool | None = None) -> Change:
    """Return a host's mode and reason as a line of news; what it waits for goes before why it is so."""
    row = picture.known.hosts.get(host, KnownHost(host, because="the store knows nothing of it yet"))
    because = picture.waits.get(host) or row.quarantined or row.because
    return Change(host, row.mode, because, waking.usual_s(row), ok)


def became_of(
    policy: Policy, picture: Picture, ticket: Ticket, asked: Wish, *, one_shot: bool
) -> Change | None:
    """Return what became of a wish; None while it is under way.

    Args:
        policy: what the inventory wants.
        picture: one that was taken after the wish was written.
        ticket: what was asked.
        asked: the wish itself.
        one_shot: whether the first reason against it ends it.
    """
    row = picture.known.hosts.get(ticket.host)
    if row is None:
        return change_of(picture, ticket.host, ok=False)
    if _true(policy, picture, row, ticket):
        return change_of(picture, ticket.host, ok=True)
    alive = any(wish.id == ticket.wish for wish in row.wishes)
    since_then = row.since >= asked.at
    if ticket.wants == "awake":
        lost = row.quarantined or (row.mode is Mode.FAILED and since_then) or not alive
    elif row.mode in (Mode.SUSPENDING, Mode.DRAINING):
        lost = False
    else:
        lost = not alive or row.mode is Mode.FAILED or (one_shot and _refused(policy, picture, row, asked))
    return change_of(picture, ticket.host, ok=False) if lost else None


def _true(policy: Policy, picture: Picture, row: KnownHost, ticket: Ticket) -> bool:
    if ticket.wants == "awake":
        return row.mode in ADMITS
    frees = proofs.way(row.proof, policy.hosts[row.name].how) is How.UNLOAD
    seen = picture.seen.hosts.get(row.name)
    return row.mode is Mode.ASLEEP or (frees and seen is not None and seen.unloaded)


def _refused(policy: Policy, picture: Picture, row: KnownHost, asked: Wish) -> bool:
    """Return whether something is against a sleep that is wanted now or not at all."""
    if row.mode is Mode.READY and row.since > asked.at:
        return True  # it drained since, and somebody or the host itself was against it
    return not judged(policy, picture, row.name, asked)


def reason_against(policy: Policy, picture: Picture, host: str, asked: Wish) -> str:
    """Return why a host is not put to sleep although somebody wishes it."""
    row = picture.known.hosts[host]
    if row.mode is Mode.READY and row.since > asked.at:
        return row.because
    return judged(policy, picture, host, asked).because


def judged(policy: Policy, picture: Picture, host: str, wish: Wish) -> Verdict:
    """Return whether a host could be put to sleep for a wish, as the picture has it.

    A report that is a moment old still counts: what matters is whether it is worth waiting.
    """
    return idle.judge(policy, picture.known, picture.seen, picture.moment, host, wish=wish)
