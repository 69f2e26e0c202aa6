"""Everything that went wrong in one load, as problems with a place.

A mistake is told once, at the call that made it. The host comes from the objects, not from the text: the
stand-in which a failed constructor left is searched in the hosts that were built, so a card in a loop is
still named ``gpus[3]`` of its host. The same mistake from the same line (a loop, ``[...] * 8``) is one
problem.
"""

from __future__ import annotations

import builtins
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import labctl.inventory as public
from labctl.domain.problem import LabctlError, Problem
from labctl.inventory.explain import clean_path, did_you_mean, field_text, sentence
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.running import AsksForInputError, Ran, is_own, search_path, working_folder
from labctl.inventory.source import Sources
from labctl.inventory.spec import CallSite, Ledger, Mistake, Spec

Path_ = tuple[str | int, ...]
_PACKAGE = str(Path(__file__).resolve().parent)


def inside(value: object, path: Path_ = (), depth: int = 9) -> Iterator[tuple[Spec, Path_]]:
    """Yield every inventory object in a value, itself included, with the path that leads to it."""
    if depth == 0:  # raw values of a stand-in may contain themselves
        return
    if isinstance(value, Spec):
        yield value, path
        value = vars(value)
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from inside(item, (*path, key), depth - 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from inside(item, (*path, index), depth - 1)


def name_of(spec: object) -> str:
    """Return the name of a host, also of one that stands in for a failed one; empty when it has none."""
    name = vars(spec).get("name") if isinstance(spec, Spec) else None
    return name if isinstance(name, str) and name.isprintable() else ""


def one_line(text: str) -> str:
    """Return the first line of a message without control characters, cut at 300 characters."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "".join(char for char in first if char.isprintable())[:300]


def in_short(file: Path | str) -> str:
    """Return a path as short as it stays right: relative to the working directory if it lies below."""
    path, folder = Path(file), working_folder()
    return str(path.relative_to(folder)) if folder is not None and path.is_relative_to(folder) else str(path)


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """Tell the same mistake from the same line once, and put all in the order of the files."""
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        leaf = re.sub(r"\[\d+\]", "[]", problem.field)
        groups.setdefault((problem.file, problem.line, leaf, problem.reason), []).append(problem)
    told = []
    for first, *others in groups.values():
        hosts = sorted({other.host for other in others if other.host} - {first.host})
        also = f"also {', '.join(hosts[:5])}" + (", ..." if len(hosts) > 5 else "")
        again = also if hosts else f"{len(others)} more from this line"
        told.append(replace(first, reason=f"{first.reason} ({again})") if others else first)
    return sorted(told, key=lambda problem: (problem.file, problem.line or 0))


class Report:
    """Turns what a load found into problems; knows the files and what was built in them."""

    def __init__(self, file: Path, text: str, ledger: Ledger) -> None:
        self.file = file
        self._roots = search_path(file)
        self.sources = Sources({str(file): text})
        self._ledger = ledger
        self._broken = {id(mistake.stand_in) for mistake in ledger.mistakes}
        self._owners: dict[int, tuple[str, Path_]] | None = None

    def _owner(self, spec: Spec) -> tuple[str, Path_] | None:
        """Return the host (or "" for the rack itself) that holds an object, and the path to it."""
        if self._owners is None:
            self._owners = {}
            built = [spec for spec, _ in self._ledger.built.values()]
            for kind in (Host, Rack):
                for top in (spec for spec in built if isinstance(spec, kind)):
                    for found, path in inside(top):
                        self._owners.setdefault(id(found), (name_of(top) if kind is Host else "", path))
        return self._owners.get(id(spec))

    def _in_file(self, sites: Sequence[CallSite]) -> tuple[CallSite | None, str]:
        """Return the call to blame, and the rack file's line that led to it where that is another call."""
        own = [site for site in sites if is_own(site.code.co_filename, self._roots)]
        if not own:
            return None, ""
        blamed = own[0]
        top = [site for site in own if site.code.co_name.startswith("<")]
        main = [site for site in top if site.code.co_filename == str(self.file)]
        if blamed in top and (not main or blamed.code.co_filename == str(self.file)):
            return blamed, ""
        caller = next(iter(main or top), None)
        if caller is None:
            return blamed, ""
        # What stands on the top level of a recipe is run by whoever imports that recipe.
        how = "imported" if blamed in top else "called"
        return blamed, f" ({how} from {in_short(caller.code.co_filename)}:{caller.line})"

    def mistakes(self) -> Iterator[Problem]:
        """Yield what constructors refused."""
        for mistake in self._ledger.mistakes:
            site, reached = self._in_file(mistake.calls)
            for error in mistake.error.errors(include_url=False):
                path = clean_path(error)
                if path and id(error["input"]) in self._broken:
                    continue  # told already, by the constructor of that very object
                reason, hint = sentence(error, type(mistake.stand_in))
                host, field = self._place(mistake, path)
                yield Problem(
                    one_line(reason) + reached,
                    hint=one_line(hint),
                    file=in_short(site.code.co_filename if site else self.file),
                    line=self.sources.line(site, path) if site else None,
                    host=host,
                    field=field,
                )

    def _place(self, mistake: Mistake, path: Path_) -> tuple[str, str]:
        spec = mistake.stand_in
        if isinstance(spec, Rack) and len(path) > 2 and path[0] == "hosts":
            raw: Any = vars(spec).get("hosts")
            index = path[1]
            entry = raw[index] if isinstance(raw, (list, tuple)) and isinstance(index, int) else None
            name = entry.get("name") if isinstance(entry, dict) else None
            return (name, field_text(path[2:])) if isinstance(name, str) else ("", field_text(path))
        owner = self._owner(spec)
        if owner is None:
            return "", ".".join(part for part in (type(spec).__name__, field_text(path)) if part)
        host, prefix = owner
        return host, field_text((*prefix, *path)) or type(spec).__name__

    def printed(self, sites: Iterable[CallSite]) -> Iterator[Problem]:
        """Yield one problem for each place that prints."""
        for site in dict.fromkeys(sites):
            yield Problem(
                "prints to standard output, which is for labctl's own results",
                hint="remove it, or print to sys.stderr",
                file=in_short(site.code.co_filename),
                line=site.line,
            )

    def place_of(self, error: BaseException) -> tuple[str, int | None]:
        """Return the innermost place in the person's own files that an exception came through."""
        found: tuple[str, int | None] = (in_short(self.file), None)
        if isinstance(error, SyntaxError) and error.filename and is_own(str(error.filename), self._roots):
            return in_short(error.filename), error.lineno
        for frame, line in traceback.walk_tb(error.__traceback__):
            name = frame.f_code.co_filename
            if name == str(self.file) or is_own(name, self._roots):
                found = (in_short(name), line)
        return found

    def ending(self, ran: Ran) -> Iterator[Problem]:
        """Yield why the file did not run to its end."""
        error = ran.error
        if error is None:
            return
        if self._ledger.mistakes and self._choked_on_stand_in(error):
            return
        file, line = self.place_of(error)
        if isinstance(error, LabctlError):
            yield from error.problems
        elif isinstance(error, ValidationError):
            for detail in error.errors(include_url=False):
                reason = f"{error.title} {field_text(clean_path(detail))} {sentence(detail, Spec)[0]}"
                yield Problem(one_line(reason), file=file, line=line)
        else:
            reason, hint = explain_exception(error, ran.namespace)
            if self._ledger.mistakes and isinstance(error, (AttributeError, TypeError)) and not hint:
                hint = "this may follow from another mistake in this list"
            yield Problem(reason, hint=hint, file=file, line=line)

    def _choked_on_stand_in(self, error: BaseException) -> bool:
        """Return whether our own code raised it, which it does only on values that were refused before."""
        frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
        known = [name for name in frames if name.startswith(_PACKAGE) or is_own(name, self._roots)]
        return bool(known) and known[-1].startswith(_PACKAGE)

    def line_in(self, rack: Rack, path: Path_) -> tuple[str, int | None]:
        """Return the file and line of a field of a valid rack, as exactly as they are known."""
        return self.place_in(rack, path)[:2]

    def place_in(self, rack: Rack, path: Path_) -> tuple[str, int | None, str]:
        """Return the same, and in words the rack file's line that led there, where that is another one."""
        value: Any = rack
        calls, rest = self._ledger.calls(rack), path
        for index, part in enumerate(path):
            try:
                value = value[part] if isinstance(part, int) else getattr(value, part)
            except (AttributeError, IndexError):
                break
            if found := self._ledger.calls(value):
                calls, rest = found, path[index + 1 :]
        if not calls or not is_own(calls[0].code.co_filename, self._roots):
            return in_short(self.file), None, ""
        site, reached = self._in_file(calls)
        assert site is not None
        return in_short(site.code.co_filename), self.sources.line(site, rest), reached


def explain_exception(error: BaseException, namespace: dict[str, Any]) -> tuple[str, str]:
    """Return what an exception of a person's file means, and what to do."""
    if isinstance(error, SyntaxError):
        return f"Python cannot read this line: {one_line(error.msg or 'syntax error')}", ""
    if isinstance(error, AsksForInputError):
        return "asks for input, but nobody answers when a rack is loaded", "write the value into the file"
    if isinstance(error, SystemExit):
        return "ends the program (exit) instead of describing a rack", "remove the call"
    if isinstance(error, RecursionError):
        return "calls itself without end, or is nested too deeply for Python", ""
    if isinstance(error, ModuleNotFoundError):
        return (
            f"there is no module {str(error.name)!r}",
            "recipes are looked for beside the rack file, in the folder above it and where labctl is started",
        )
    if isinstance(error, ImportError) and error.name == "labctl.inventory":
        missing = str(getattr(error, "name_from", None) or one_line(str(error)).split("'")[1])
        return f"labctl.inventory has no {missing!r}", did_you_mean(missing, public.__all__)
    try:
        text = one_line(str(error))
    except Exception:
        text = ""
    if isinstance(error, NameError) and isinstance(error.name, str):
        if error.name in public.__all__:
            return f"{error.name} is not imported", f"write: from labctl.inventory import {error.name}"
        known = [*(name for name in namespace if not name.startswith("__")), *public.__all__, *dir(builtins)]
        close = did_you_mean(error.name, known)
        return text, close if close.startswith("did") else ""
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__), ""
