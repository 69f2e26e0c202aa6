"""Command lines as llama-swap reads them, so that every argument arrives byte for byte.

llama-swap first replaces macros, ``${NAME}``, in the text of a command, then splits it as a POSIX shell does,
without expanding anything else (billziss-gh/golib, shlex.Posix). There is no escape for a macro, but quotes
are taken away only after macros were replaced: so a dollar sign that is meant as such gets quotes of its own,
and what follows it gets others. Environment variables are not split, hence cannot be protected that way; one
whose value looks like a macro is set by ``/usr/bin/env`` in the command line instead, which the program
replaces at once.

YAML, too, has words that are no text to one reader or another (``no``, ``1e3``), so all but the plainest
texts are quoted. It is written here, not by PyYAML, whose emitter takes seconds for a rack of many hosts;
tests hold it to what PyYAML reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

PORT = "${PORT}"
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_PLAIN_TEXT = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*[A-Za-z0-9_]|[A-Za-z]")
_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
_NO_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}


def command(argv: Sequence[str]) -> str:
    """Return ``argv`` as the value of ``cmd``; ``${PORT}`` in it stays the macro."""
    return " ".join(map(_word, argv))


def _word(word: str) -> str:
    return PORT.join(map(_quoted, word.split(PORT))) if word else "''"


def _quoted(text: str) -> str:
    if not text or _PLAIN_WORD.fullmatch(text):
        return text
    inside = text.replace("'", "'\\''").replace("${", "$''{")
    return f"'{inside}'"


def with_environment(argv: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the arguments and the ``env`` of a model; what ``env`` could not hold is in the arguments."""
    hidden = {name: value for name, value in env.items() if "${" in value}
    plain = [f"{name}={value}" for name, value in sorted(env.items()) if name not in hidden]
    if not hidden:
        return list(argv), plain
    return ["/usr/bin/env", *(f"{name}={value}" for name, value in sorted(hidden.items())), *argv], plain


def document(value: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, its keys in their order and every text on one line."""
    return "".join(f"{line}\n" for line in _mapping(value)) if value else "{}\n"


def _mapping(value: Mapping[Any, Any]) -> Iterator[str]:
    for name, inner in value.items():
        yield from _under(f"{_scalar(name)}:", inner)


def _under(head: str, inner: object) -> Iterator[str]:
    """Yield what stands behind the name of a key, or below it."""
    if isinstance(inner, Mapping):
        yield head if inner else f"{head} {{}}"
        yield from (f"  {line}" for line in _mapping(inner))
    elif isinstance(inner, (list, tuple)):
        yield head if inner else f"{head} []"
        for item in inner:
            first, *rest = _item(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield f"{head} {_scalar(inner)}"


def _item(item: object) -> list[str]:
    """Return the lines of an entry of a list."""
    if isinstance(item, Mapping):
        return list(_mapping(item)) or ["{}"]
    if isinstance(item, (list, tuple)):
        return [json.dumps(item)] if not item else ["!!seq", *_nested(item)]
    return [_scalar(item)]


def _nested(item: Sequence[object]) -> Iterator[str]:
    for inner in item:
        first, *rest = _item(inner)
        yield f"- {first}"
        yield from (f"  {line}" for line in rest)


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    text = str(value)
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _NO_TEXT:
        return text
    # JSON's quotes are YAML's, except that YAML has no pairs of surrogates and wants this one escaped, too.
    quoted = json.dumps(text).replace("\x7f", "\\x7f")
    return _PAIR.sub(lambda pair: f"\\U{ord(json.loads(f'{chr(34)}{pair[0]}{chr(34)}')):08X}", quoted)


def _number(value: float) -> str:
    """Return a number that readers of YAML 1.1 take for one, too: they want a dot in it."""
    if value != value or value in (inf, -inf):
        return ".nan" if value != value else ".inf" if value > 0 else "-.inf"
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{exponent}{power}"
