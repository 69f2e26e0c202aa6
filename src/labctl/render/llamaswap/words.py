"""Command lines as llama-swap reads them, so that every argument arrives byte for byte.

llama-swap first replaces macros, ``${NAME}``, in the text of a command, then splits it as a POSIX shell does,
without expanding anything else (billziss-gh/golib, shlex.Posix). There is no escape for a macro, but quotes
are taken away only after macros were replaced: so a dollar sign that is meant as such gets quotes of its own,
and what follows it gets others. Environment variables are not split, hence cannot be protected that way; one
whose value looks like a macro is set by ``/usr/bin/env`` in the command line instead, which the program
replaces at once.

YAML, too, has words that are no text to one reader or another (``no``, ``1e3``), so all but the plainest
texts are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

PORT = "${PORT}"
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_PLAIN_TEXT = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*[A-Za-z0-9_]|[A-Za-z]")
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
    text: str = yaml.dump(dict(value), Dumper=_Emitter, sort_keys=False, allow_unicode=True, width=10**9)
    return text


class _Emitter(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """libyaml's emitter where PyYAML has it, which is ten times as fast."""

    def ignore_aliases(self, data: object) -> bool:
        """Return True: equal parts are written out, since a reader should not have to look for them."""
        return True


def _text(emitter: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN_TEXT.fullmatch(text) and text.lower() not in _NO_TEXT
    return emitter.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Emitter.add_representer(str, _text)
