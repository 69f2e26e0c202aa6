"""Does a build of an engine know the flags that it is given? By its own ``--help``, and by nothing else.

Engines rename and drop flags between releases, and most of them find that out only when they start. So each
word of a command line that is a flag is looked up in the help of the very build that will run it. Two formats
are read, which differ in little: llama.cpp's (aliases in a first column) and argparse's (vLLM, SGLang). A
flag that is listed only to say that it was removed counts as unknown, with those words. Where the help lists
the values of a flag, another value is told as well. ``_`` and ``-`` are one to argparse, and so they are
here.

A help in which no flag at all is found says nothing about any, and then nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

_STARTS = re.compile(r"\s{0,6}-{1,2}[A-Za-z]")
_FLAG = re.compile(r"\s*(-{1,2}[A-Za-z][\w.-]*)")
_METAVAR = re.compile(r"[ =](?! |-{1,2}[A-Za-z])(\S+)")
_LISTED = re.compile(r"\{([^{}]+)\}|\[([^\[\]<>{}]+\|[^\[\]<>{}]+)\]|([a-z0-9+-]+(?:,[a-z0-9+-]+)+)")
_ALLOWED = re.compile(r"allowed values: *((?:[\w.+-]+, *)+[\w.+-]+)", re.IGNORECASE)
_REMOVED = re.compile(r"\bargument has been removed\b\.? *(.*?) *(?:\(env: .*)?$", re.IGNORECASE)
_IS_FLAG = re.compile(r"--?[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as a help lists it. ``several``: its value may join those listed by commas."""

    takes_value: bool = False
    values: tuple[str, ...] = ()
    several: bool = False
    removed: str = ""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a word of a command line: the flag, why, and what would help ("": nobody knows)."""

    flag: str
    reason: str
    hint: str = ""


@dataclass(slots=True)
class _Entry:
    names: list[str] = field(default_factory=list)
    metavar: str = ""
    text: str = ""


def _plain(name: str) -> str:
    return name.replace("_", "-")


def read(text: str) -> Mapping[str, Flag]:
    """Return the flags that a help lists, by each of their names."""
    found: dict[str, Flag] = {}
    for entry in _entries(text):
        removed = _REMOVED.search(entry.text)
        flag = Flag(
            bool(entry.metavar),
            *_values(entry),
            removed="" if removed is None else removed[1].strip() or "without a successor",
        )
        for name in entry.names:
            known = found.get(_plain(name))
            if known is None or known.removed:
                found[_plain(name)] = flag
    return found


def _entries(text: str) -> Iterator[_Entry]:
    """Yield what each flag of a help is: its names, what stands for its value, and its description."""
    entry: _Entry | None = None
    goes_on = False
    for line in text.splitlines():
        if _STARTS.match(line) and (goes_on or entry is None or not _inside(line, entry)):
            if not goes_on or entry is None:
                if entry is not None:
                    yield entry
                entry = _Entry()
            rest, goes_on = _names(line, entry)
            entry.text += f" {rest.strip()}"
        elif entry is not None:
            goes_on = False
            entry.text += f" {line.strip()}"
    if entry is not None:
        yield entry


def _inside(line: str, entry: _Entry) -> bool:
    """Return whether a line belongs to a description; flags stand further left than those."""
    return len(line) - len(line.lstrip()) > 6 and bool(entry.names)


def _names(line: str, entry: _Entry) -> tuple[str, bool]:
    """Take the flags that open a line; return the rest, and whether the list goes on in the next line."""
    at = 0
    while match := _FLAG.match(line, at):
        entry.names.append(match[1].rstrip("."))
        at = match.end()
        if value := _METAVAR.match(line, at):
            entry.metavar = value[1].rstrip(",")
            at = value.end()
            if value[1].endswith(","):
                at -= 1
        if line[at : at + 1] != ",":
            return line[at:], False
        at += 1
    return line[at:], not line[at:].strip()


def _values(entry: _Entry) -> tuple[tuple[str, ...], bool]:
    """Return the values that a flag may have, none where any may be, and whether they may be joined."""
    listed = _LISTED.fullmatch(entry.metavar)
    if listed is not None:
        words = listed[1] or listed[2] or listed[3]
        return tuple(part.strip() for part in re.split(r"[,|]", words)), listed[3] is not None
    allowed = _ALLOWED.search(entry.text)
    return (tuple(re.split(r", *", allowed[1])), False) if allowed else ((), False)


def check(argv: Sequence[str], known: Mapping[str, Flag]) -> Iterator[Wrong]:
    """Yield what a build would not take of its arguments; ``argv`` is without the program itself."""
    if not known:
        return
    is_value = False
    for index, word in enumerate(argv):
        if is_value or not _IS_FLAG.match(word):
            is_value = False
            continue
        name, equals, joined = word.partition("=")
        flag = known.get(_plain(name)) or known.get(_plain(name.partition(".")[0]))
        if flag is None or flag.removed:
            yield _unknown(name, flag, known)
            continue
        is_value = flag.takes_value and not equals
        value = joined if equals else argv[index + 1] if is_value and index + 1 < len(argv) else None
        if value is not None and not _may_be(value, flag):
            yield Wrong(name, f"{value!r} is no value of {name}", f"it takes: {', '.join(flag.values)}")


def _may_be(value: str, flag: Flag) -> bool:
    if not flag.values:
        return True
    parts = value.split(",") if flag.several else [value]
    return all(part in flag.values for part in parts)


def _unknown(name: str, flag: Flag | None, known: Mapping[str, Flag]) -> Wrong:
    if flag is not None:
        return Wrong(name, f"{name} has been removed", flag.removed)
    usable = [other for other, what in known.items() if not what.removed and other.startswith("--")]
    close = get_close_matches(_plain(name), usable, n=1, cutoff=0.6)
    return Wrong(name, f"there is no flag {name}", f"did you mean {close[0]}?" if close else "")
