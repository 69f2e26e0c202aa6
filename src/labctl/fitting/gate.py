"""The gate of ``plan`` and ``apply``: what does not fit a host's memory is refused before anything changes.

Headers of models are read (from the host that holds them, or by their address), nothing else is contacted.
A host of which no memory is known, or that serves no model, costs nothing: no header is read for it.

- Over: refused, by plan and apply alike, with every set that is over, its line and what would fit.
- Not known, because a header could not be read: ``plan`` warns; ``apply`` refuses, since a model that does
  not fit takes the others down with it. Main memory that nobody stated is no reason to refuse.
- ``--force WORDS`` lets ``apply`` through. The words, who gave them and when are kept on the hosts that they
  are about until these fit again.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from labctl.domain.fit.measured import Measured
from labctl.domain.fit.terms import ModelShape
from labctl.domain.problem import LabctlError, Problem
from labctl.inventory import LoadedRack, fitting
from labctl.inventory.explain import field_text
from labctl.inventory.fitting import HostFit, Sizes
from labctl.inventory.models import Model
from labctl.inventory.served import Loads

FEWEST_LETTERS = 8
MOST_LETTERS = 300
_AT_ONCE = 8
_MOST_HOSTS = 3  # that are asked for one model's header, one after another


class Headers(Protocol):
    """Reads what the headers of a model's files say; raises ``LabctlError`` where they cannot be read."""

    def of(self, model: Model, *, host: str | None) -> ModelShape:
        """Return a model's shape; ``host`` is where its files lie or will lie."""
        ...

    def projector_bytes(self, model: Model, *, host: str | None) -> int:
        """Return the bytes of a model's projector, 0 where it has none."""
        ...


Read = Callable[[], Headers]  # made only when something is to be read


@dataclass(frozen=True, slots=True)
class Fits:
    """The verdicts on hosts, with their lines: what is over, what is not known, and on which host each is."""

    hosts: tuple[HostFit, ...] = ()
    over: tuple[Problem, ...] = ()
    unknown: tuple[Problem, ...] = ()


def sizes(
    loaded: LoadedRack,
    hosts: Iterable[Loads],
    read: Read,
    measured: Mapping[str, Measured],
    *,
    everything: bool = False,
) -> Sizes:
    """Read the headers that those hosts' models need, and gather what is known of their disks.

    With ``everything``, also for hosts of which no memory is known.
    """
    wanted: dict[str, tuple[Model, list[str | None]]] = {}
    for one in hosts:
        for served in one.served if everything or fitting.can_be_judged(one) else ():
            # A host that is made up has no files: what lies nowhere else is a file of this machine.
            host = served.host if served.host in loaded.host_data else None
            models = [served.model]
            if served.model.draft is not None:
                models.append(loaded.rack.model(served.model.draft))
            for model in models:
                places = wanted.setdefault(model.id, (model, []))[1]
                if host not in places:
                    places.append(host)
    found = _read(wanted, read) if wanted else {}
    shapes = {name: one[0] for name, one in found.items() if not isinstance(one, Problem)}
    projectors = {name: one[1] for name, one in found.items() if not isinstance(one, Problem)}
    silent = {name: one for name, one in found.items() if isinstance(one, Problem)}
    return Sizes(shapes, projectors, silent, measured, disk_rates(loaded, measured))


def _read(
    wanted: Mapping[str, tuple[Model, list[str | None]]], read: Read
) -> dict[str, tuple[ModelShape, int] | Problem]:
    headers = read()

    def one(pair: tuple[Model, list[str | None]]) -> tuple[ModelShape, int] | Problem:
        """Read a model's header on the first host that gives it; one that is off hides no other's."""
        model, hosts = pair
        failed: list[Problem] = []
        for host in hosts[:_MOST_HOSTS]:
            try:
                return headers.of(model, host=host), headers.projector_bytes(model, host=host)
            except LabctlError as error:
                failed.append(error.problems[0])
        return failed[0]

    waiting = deque(wanted)
    news: queue.SimpleQueue[tuple[str, tuple[ModelShape, int] | Problem | BaseException]] = (
        queue.SimpleQueue()
    )

    def work() -> None:
        while True:
            try:
                name = waiting.popleft()
            except IndexError:
                return
            try:
                news.put((name, one(wanted[name])))
            except BaseException as bug:
                news.put((name, bug))

    for _ in range(
        min(_AT_ONCE, len(wanted))
    ):  # daemons: Ctrl-C does not wait for a server that says nothing
        threading.Thread(target=work, name="header", daemon=True).start()
    found: dict[str, tuple[ModelShape, int] | Problem] = {}
    while len(found) < len(wanted):
        name, said = news.get()
        if isinstance(said, BaseException):
            raise said
        found[name] = said
    return {name: found[name] for name in wanted}


def disk_rates(loaded: LoadedRack, measured: Mapping[str, Measured]) -> dict[str, int]:
    """Return at how many bytes per second each host's disk reads models: as stated, else as last measured."""
    rates: dict[str, int] = {}
    for one in sorted(measured.values(), key=lambda one: one.when):
        if one.bytes_s is not None:
            rates[one.host] = one.bytes_s
    stated = {host.name: host.disk_mb_s * 10**6 for host in loaded.rack.hosts if host.disk_mb_s is not None}
    return {**rates, **stated}


def look(loaded: LoadedRack, names: Sequence[str], read: Read, measured: Mapping[str, Measured]) -> Fits:
    """Return the verdicts on those hosts; nothing is read where nothing can be said."""
    hosts = [one for one in fitting.checked(loaded.rack, names) if one.served or one.refused]
    if not hosts:
        return Fits()
    known = sizes(loaded, hosts, read, measured)
    verdicts = tuple(fitting.host_fit(loaded.rack, one, known) for one in hosts)
    over = [found for one in verdicts for found in fitting.refusals(one)]
    unknown = [found for one in verdicts for found in fitting.unknowns(one)]
    if not over and not unknown:
        return Fits(verdicts)
    return Fits(verdicts, _placed(over, loaded), _placed(unknown, loaded))


def _placed(found: Iterable[tuple[fitting.Where, Problem]], loaded: LoadedRack) -> tuple[Problem, ...]:
    placed = []
    for path, problem in found:
        file, line = loaded.place(path)
        placed.append(replace(problem, file=file, line=line, field=field_text(path[2:])))
    return tuple(placed)


def refused(fits: Fits, *, execute: bool) -> tuple[Problem, ...]:
    """Return what plan (or with ``execute`` apply) refuses."""
    return (*fits.over, *(fits.unknown if execute else ()))


def checked_words(words: str | None) -> str:
    """Return the words of ``--force`` without the space around them; "" for none.

    Raises:
        LabctlError: they are too few to say why, or more than anybody would read.
    """
    if words is None:
        return ""
    said = " ".join(words.split())
    if sum(letter.isalpha() for letter in said) < FEWEST_LETTERS or not said.isprintable():
        raise LabctlError(
            f"--force {words!r} does not say why",
            hint='say it in words, which are kept on the host: --force "card two is lent out until Monday"',
        )
    if len(said) > MOST_LETTERS:
        raise LabctlError(
            f"--force says why in {len(said)} letters",
            hint=f"say it in {MOST_LETTERS}: labctl status shows them",
        )
    return said


def records(problems: Iterable[Problem], words: str, who: str, when: str) -> dict[str, str]:
    """Return for each host what is kept there of a ``--force``, as JSON."""
    what: dict[str, list[str]] = {}
    for problem in problems:
        what.setdefault(problem.host, []).append(problem.reason)
    return {
        host: json.dumps({"words": words, "who": who, "when": when, "what": reasons})
        for host, reasons in what.items()
    }
