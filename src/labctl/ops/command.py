"""Turn a script and its arguments into the one command by which an operation changes a host.

Each change is one constant script from ``scripts/``, sent with ``sh -c``; whatever varies travels as quoted
positional arguments, and content by standard input, so that no shell text is ever built from data and no
content is ever on a command line. The sha256 of the content goes first on standard input, not on the command
line either: the hash of a short secret would give it away. What a person sees of a command (plan, log, debug
output) is its name and arguments, never the script's text.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import ParamSpec

from pyinfra.api.arguments_typed import PyinfraOperation
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.operation import operation as _operation
from typing_extensions import override

P = ParamSpec("P")
Commands = Generator[StringCommand, None, None]
SCRIPTS = Path(__file__).parent / "scripts"


def operation(function: Callable[P, Generator[object, None, None]]) -> PyinfraOperation[P]:
    """Make a pyinfra operation of a generator function, keeping its parameters' types."""
    made: PyinfraOperation[P] = _operation()(function)
    return made


@cache
def text(name: str) -> str:
    """Return the script ``scripts/NAME.sh`` behind the shared part, without comment lines."""
    lines = [
        line
        for file in ("lib", name)
        for line in (SCRIPTS / f"{file}.sh").read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return "\n".join(lines) + "\n"


class Script(StringCommand):
    """A script of ours with its arguments; shown as ``labctl-NAME ARGUMENT...``."""

    def __init__(self, name: str, *argv: str, stdin: str = "", timeout_s: int = 0) -> None:
        self.name = name
        self.argv = argv
        self.stdin = stdin
        self.timeout_s = timeout_s
        super().__init__("sh", "-c", *map(QuoteString, (text(name), f"labctl-{name}", *argv)))
        # Set only when given: an entry here overrules what the operation was called with.
        if stdin:
            self.connector_arguments["_stdin"] = stdin
        if timeout_s:
            self.connector_arguments["_timeout"] = timeout_s

    @override
    def get_masked_value(self) -> str:
        """Return the name and arguments; the script itself says nothing about this change."""
        shown = ("(script)" if "\n" in word else word for word in self.argv)
        return shlex.join((f"labctl-{self.name}", *shown))


def content_on_stdin(content: bytes) -> str:
    """Return what ``stage`` in lib.sh reads: the sha256 in hexadecimal, then the content in base64."""
    return f"{hashlib.sha256(content).hexdigest()}\n{base64.encodebytes(content).decode('ascii')}"
