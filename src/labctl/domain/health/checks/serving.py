"""Engines: does each compute what it was asked, where it should, and by the configuration that it should?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ...sleep.wording import counted
from ..evidence import Engine
from ..expected import ExpectedEngine
from ..progress import Standing, look_at, standing, with_look
from ..saying import Voice, few, lasting, short
from ..seats import Seat, seats, unread
from ..terms import Case, EnginePast, Figure, Result

_COUNTING = ("llama-server", "vllm", "sglang")
_ASKED = (*_COUNTING, "llama-swap", "ollama", "tabbyapi")
_ON_CARDS = ("llama-server", "vllm", "sglang", "tabbyapi")
_CONTEXT_MIB = 128
"""Less on a card is no part of a model: a context of CUDA alone takes more."""
_LOADING = 503


def _wanted(case: Case, engine: Engine) -> ExpectedEngine | None:
    """Return what is expected of an engine; of one that llama-swap runs, what is of its llama-swap."""
    names = (engine.service, engine.service.partition("/")[0])
    known = {one.service: one for one in case.expected.engines}
    return next((known[name] for name in names if name in known), None)


class EngineProgress:
    """Every engine runs, and computes as long as it has requests; see ``progress``.

    Needs the section of engines, and what earlier looks remember: a single look finds no dead engine. An
    engine that counts nothing (Ollama, TabbyAPI) is judged by whether it answers.
    """

    code: ClassVar = "engine-progress"
    about: ClassVar = "every engine runs, and its counters move while it has requests"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each engine of which something can be said, and each that is missing."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        if evidence.engines is None:
            if case.expected.engines:
                yield say.unread(evidence.errors, "engines")
            return
        past = {one.service: one for one in case.engines}
        found = {engine.service for engine in evidence.engines}
        for one in case.expected.engines:
            if one.service not in found:
                yield say.crit(one.service, "its unit is not on the host", "labctl apply")
        for engine in evidence.engines:
            if engine.active != "active":
                yield _not_running(say, engine)
            elif engine.kind in _ASKED:
                looks = past.get(engine.service, EnginePast(engine.service, ())).looks
                yield _running(say, engine, standing(with_look(looks, look_at(engine, evidence.at))))


def _not_running(say: Voice, engine: Engine) -> Result:
    name, look = engine.service, f"journalctl -u {short(engine.unit)} -n 50"
    state = " ".join(word for word in (engine.active, f"({engine.sub})" if engine.sub else "") if word)
    if engine.rests and engine.active == "inactive":
        return say.informs(name, "labctl stopped it for as long as nobody uses the host")
    if engine.active == "failed" or engine.sub == "auto-restart":
        return say.crit(name, f"it does not run: {short(state)}", look)
    if engine.active in ("activating", "reloading"):
        return say.unknown(name, f"it is starting: {short(state)}", look)
    if not engine.active:
        return say.unknown(name, "systemd does not say whether it runs", look)
    return say.warn(name, f"it is switched off: {short(state)}", f"systemctl start {short(engine.unit)}")


def _running(say: Voice, engine: Engine, stand: Standing) -> Result:
    name, figures = engine.service, _figures(engine)
    restart = f"systemctl restart {short(engine.unit)}, and look at dmesg for Xid messages"
    if stand.is_dead:
        return say.crit(name, _dead(engine, stand), restart, *figures)
    if stand.is_deaf:
        cure = f"journalctl -u {short(engine.unit)} -n 50; it may still load its model"
        return say.warn(name, f"it answers nothing for {lasting(stand.for_s)}", cure, *figures)
    if engine.answer is None and engine.pulse is None:
        why = short(engine.note) or "it does not answer"
        return say.unknown(name, f"not known: {why}", f"journalctl -u {short(engine.unit)} -n 50")
    if engine.answer == _LOADING:
        return say.ok(name, "it loads its model", *figures)
    if engine.kind in _COUNTING and engine.running is None and (engine.silent or engine.note):
        why = short(engine.note) or "it does not say"
        cure = "wait for the next looks" if engine.silent else "labctl apply"
        return say.unknown(name, f"what it computes is not known: {why}", cure)
    return _well(say, engine, stand, figures)


def _dead(engine: Engine, stand: Standing) -> str:
    for_long = lasting(stand.for_s)
    if stand.stood and not stand.silent:
        requests = counted((engine.running or 0) + (engine.waiting or 0), "request")
        page = f", though its health page answers {engine.answer}" if engine.answer is not None else ""
        return f"it has {requests} and has computed nothing for {for_long}{page}"
    return f"it has shown no sign of life for {for_long}: {short(engine.note) or 'it answers nothing'}"


def _well(say: Voice, engine: Engine, stand: Standing, figures: tuple[Figure, ...]) -> Result:
    name = engine.service
    if engine.running is None:
        return say.ok(name, "it answers; it does not count its requests", *figures)
    if not engine.running and not engine.waiting:
        return say.ok(name, "it has nothing to do", *figures)
    busy = f"{counted(engine.running, 'request')} running, {engine.waiting or 0} waiting"
    if stand.stood > 1:
        return say.ok(name, f"{busy}; nothing was computed for {lasting(stand.for_s)}", *figures)
    if engine.waiting:
        return say.informs(name, f"it is saturated: {busy}", *figures)
    return say.ok(name, busy, *figures)


def _figures(engine: Engine) -> tuple[Figure, ...]:
    told = (("running", engine.running), ("waiting", engine.waiting), ("tokens", engine.tokens))
    return tuple(Figure(label, float(value)) for label, value in told if value is not None)


class EnginePlacement:
    """Every engine that has a model loaded holds memory on the cards that it was given, and on no others.

    Engines fall back to the processor without a word when a driver fails them. Needs the cards' lists of
    processes; where one card does not tell, or a driver's cards cannot be read, nobody knows. One without a
    loaded model holds nothing, and yields nothing; nor does one that runs on the processor by the rack file.
    """

    code: ClassVar = "engine-placement"
    about: ClassVar = "every engine with a loaded model is on its declared cards, not on the processor"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each engine that has a model loaded."""
        if case.evidence is None:
            return
        say = Voice(self.code, case.host)
        if case.evidence.engines is None or unread(case):
            yield from (say.withheld(one.service) for one in case.expected.engines)
            return
        for engine in case.evidence.engines:
            wanted = _wanted(case, engine)
            # Which card one of llama-swap's engines is on, nobody tells: processes are known by their unit.
            if wanted is None or "/" in engine.service or not _is_loaded(engine):
                continue
            yield from _placed(say, engine, wanted, seats(case))


def _is_loaded(engine: Engine) -> bool:
    if engine.active != "active":
        return False
    if engine.kind in _ON_CARDS:
        return engine.answer == 200
    return any(state == "ready" for _, state in engine.models)


def _placed(say: Voice, engine: Engine, wanted: ExpectedEngine, cards: tuple[Seat, ...]) -> Iterator[Result]:
    name = engine.service
    look = f"journalctl -u {short(engine.unit)} says why"
    if not wanted.gpus:
        if engine.gpus:
            where = few([_name(cards, gpu) for gpu in engine.gpus])
            cure = "give it gpus= in the rack file, so that the power budget counts it, or keep it off them"
            yield say.warn(name, f"it is to run on the processor, and holds memory on {where}", cure)
        return
    if engine.device == "cpu" or engine.gpus == ():
        said = "its layers are all in main memory" if engine.device == "cpu" else "it is on no card"
        yield say.crit(name, f"it runs on the processor: {said}", f"systemctl restart {engine.unit}; {look}")
        return
    if engine.gpus is None:
        if engine.device == "gpu":
            yield say.ok(name, "it says that it runs on cards; which ones, the driver does not tell")
        else:
            yield say.unknown(name, "on which cards it runs is not known", look)
        return
    if engine.gpu_mib is not None and 0 < engine.gpu_mib < _CONTEXT_MIB:
        reason = f"it holds no more than {engine.gpu_mib} MiB on cards, so its model is in main memory"
        yield say.crit(name, reason, look, Figure("vram", engine.gpu_mib, "MiB"))
        return
    yield _on(say, engine, wanted, cards)


def _on(say: Voice, engine: Engine, wanted: ExpectedEngine, cards: tuple[Seat, ...]) -> Result:
    figures = () if engine.gpu_mib is None else (Figure("vram", engine.gpu_mib, "MiB"),)
    on = {_name(cards, gpu) for gpu in engine.gpus or ()}
    own = {seat.expected.label: seat.name for seat in cards if seat.expected is not None}
    meant = {own.get(label, label) for label in wanted.gpus}
    strange, unused = sorted(on - meant), sorted(meant - on)
    cure = "labctl apply renders its cards anew; then restart it"
    # A service that loads what it is asked for need not be on all its cards at once.
    spreads = engine.kind in _ON_CARDS
    if strange:
        reason = f"it is on {few(strange)}, which it was not given; its own: {few(sorted(meant))}"
        return say.crit(engine.service, reason, cure, *figures)
    if unused and spreads:
        return say.warn(engine.service, f"it holds nothing on {few(unused)}", cure, *figures)
    part = f"; {short(engine.note)}" if engine.note and engine.kind == "ollama" else ""
    return say.ok(engine.service, f"it is on {few(sorted(on))}{part}", *figures)


def _name(cards: tuple[Seat, ...], gpu: str) -> str:
    """Return what people call the card that holds an engine, by its UUID or address."""
    found = (seat for seat in cards if seat.gpu is not None and gpu in (seat.gpu.uuid, seat.gpu.pci))
    return next((seat.name for seat in found), gpu)


class SwapConfig:
    """A llama-swap runs by the configuration in its file, and that is the one of the rack file.

    A configuration that llama-swap refused is only logged there, and the old one stays in force. Its models
    bear a digest of the configuration; one without models of its own shows no digest, and its file counts.
    """

    code: ClassVar = "swap-config"
    about: ClassVar = "llama-swap runs by its file, and its file is what the rack file renders"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each llama-swap that runs."""
        if case.evidence is None:
            return
        say = Voice(self.code, case.host)
        if case.evidence.engines is None:
            yield from (
                say.withheld(one.service) for one in case.expected.engines if one.kind == "llama-swap"
            )
            return
        for engine in case.evidence.engines:
            wanted = _wanted(case, engine)
            if engine.kind == "llama-swap" and engine.active == "active" and wanted is not None:
                yield _swap(say, engine, wanted)


def _swap(say: Voice, engine: Engine, wanted: ExpectedEngine) -> Result:
    name, apply = engine.service, "labctl apply"
    if not engine.config_sha256:
        return say.unknown(name, "its configuration on the host cannot be read", apply)
    if engine.config_sha256 != wanted.config_sha256:
        by_hand = wanted.config != "" and engine.config_file == wanted.config
        reason = "its file was changed by hand" if by_hand else "its file is not what the rack file renders"
        return say.warn(name, reason, f"labctl plan shows the difference, {apply} puts it there")
    if not wanted.config and not engine.note:
        return say.informs(name, "its file is what the rack file renders; no model of its own shows more")
    if not engine.config:
        why = short(engine.note) or "it lists no model of its own"
        return say.unknown(
            name, f"what it runs by is not known: {why}", f"journalctl -u {short(engine.unit)}"
        )
    if engine.config != engine.config_file:
        cure = f"systemctl reload {short(engine.unit)} stops its models; its journal says whether it refused"
        return say.warn(name, "it runs by an older configuration than its file", cure)
    return say.ok(name, "it runs by what the rack file renders")
