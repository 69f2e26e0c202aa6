"""Macros and command lines, as llama-swap reads them.

``${env.X}`` is replaced in the file's text, everything else in the values: the macros declared last come
first, so that one may contain those before it; a value that is nothing but a macro keeps the macro's type.
Then a command is split as a shell would, without any expansion. Lines of a command that begin with # are no
part of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_ENV = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")
_MACRO = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
Macros = list[tuple[str, Any]]


class BadConfig(Exception):
    """The configuration is refused; says why in llama-swap's words."""


def environment() -> dict[str, str]:
    """Return the variables that this program was started with."""
    pairs = Path("/proc/self/environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def with_variables(text: str) -> str:
    """Return the file's text with its variables replaced; those in comments alone do not count."""
    try:
        seen = yaml.safe_dump(yaml.safe_load(text), allow_unicode=True, width=2**31)
    except yaml.YAMLError:
        seen = text
    variables = environment()
    for name in _ENV.findall(seen):
        if name not in variables:
            raise BadConfig(f"environment variable '{name}' is not set")
        value = variables[name].replace("\\", "\\\\").replace('"', '\\"')
        text = text.replace(f"${{env.{name}}}", value)
    return text


def declared(where: str, given: Any) -> Macros:
    """Return the macros of a block in their order, each found fit."""
    if given is None:
        return []
    if not isinstance(given, dict):
        raise BadConfig("macros must be a mapping")
    for name, value in given.items():
        if len(str(name)) >= 64:
            raise BadConfig(f"{where}macro name '{name}' exceeds maximum length of 63 characters")
        if not _NAME.fullmatch(str(name)):
            raise BadConfig(
                f"{where}macro name '{name}' contains invalid characters, must match pattern ^[a-zA-Z0-9_-]+$"
            )
        if not isinstance(value, (str, int, float, bool)):
            raise BadConfig(
                f"{where}macro '{name}' has invalid type, must be a scalar type (string, int, float, or bool)"
            )
        if f"${{{name}}}" in str(value):
            raise BadConfig(f"{where}macro '{name}' contains self-reference")
        if name in ("PID", "PORT", "MODEL_ID"):
            raise BadConfig(f"{where}macro name '{name}' is reserved")
    return list(given.items())


def replaced(value: Any, macros: Macros) -> Any:
    """Return a value with its macros replaced, however deep they are."""
    for name, put in reversed(macros):
        value = _one(value, f"${{{name}}}", put)
    return value


def _one(value: Any, slug: str, put: Any) -> Any:
    if isinstance(value, str):
        shown = str(put).lower() if isinstance(put, bool) else str(put)
        return put if value == slug else value.replace(slug, shown)
    if isinstance(value, dict):
        return {name: _one(inner, slug, put) for name, inner in value.items()}
    return [_one(inner, slug, put) for inner in value] if isinstance(value, list) else value


def unresolved(value: Any, *, pid: bool = False) -> str:
    """Return the first macro that is left somewhere in a value, or ""."""
    if isinstance(value, str):
        return next((name for name in _MACRO.findall(value) if not (pid and name == "PID")), "")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((name for one in inner if (name := unresolved(one, pid=pid))), "")


def without_comments(command: str) -> str:
    """Return a command without the lines that begin with #."""
    return "\n".join(line for line in command.split("\n") if not line.strip().startswith("#"))


def split(command: str) -> list[str]:
    """Return a command's words; a backslash at the end of a line joins it with the next."""
    lines = without_comments(command).split("\n")
    text = "\n".join(line.rstrip()[:-1] + " " if line.rstrip().endswith("\\") else line for line in lines)
    return list(_words(text))


def _words(text: str) -> list[str]:
    found: list[str] = []
    word: list[str] | None = None
    quote, place = "", 0
    while place < len(text):
        char, after = text[place], text[place + 1 : place + 2]
        place += 1
        if char == "\\" and (quote == "" or (quote == '"' and after in ("$", "`", '"', "\\", "\n", ""))):
            place += 1
            if after not in ("", "\n"):
                word = [*(word or []), after]
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = [*(word or []), char]
        elif char in "\"'":
            quote, word = char, word or []
        elif char in " \t\n":
            if word is not None:
                found.append("".join(word))
            word = None
        else:
            word = [*(word or []), char]
    if word is not None:
        found.append("".join(word))
    return found
