"""Models that Ollama serves: made known to its server from the files where they lie.

Ollama keeps a store of its own, so it is asked whether it knows a model, and a stamp on the host says of
which file and weights that was. What is not known, or not of these, is created anew; others are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops import diff
from labctl.ops.command import Commands, Script, operation, text

STAMPS = "/var/lib/labctl/ollama"
_CREATE_S = 2 * 3600


@dataclass(frozen=True, slots=True)
class Served:
    """A model as Ollama shall know it: its name, the file that describes it, and what marks its content."""

    name: str
    file: str
    mark: str


class Unknown(FactBase[tuple[str, ...]]):
    """Names of the models that Ollama's server does not know as they are declared."""

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return none."""
        return ()

    @override
    def command(self, program: str, address: str, words: tuple[str, ...]) -> StringCommand:
        """Return the command that asks; ``words`` are name, file and mark of each model."""
        arguments = [QuoteString(word) for word in ("list", program, address, STAMPS, *words)]
        return StringCommand(
            "sh", "-c", QuoteString(text("ollama-models")), "labctl-ollama-models", *arguments
        )

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Read one name a line."""
        return tuple(output)


@operation
def models(program: str, address: str, served: tuple[Served, ...]) -> Commands:
    """Have Ollama's server at ``address`` know these models; ``program`` is Ollama itself."""
    words = tuple(word for one in served for word in (one.name, one.file, one.mark))
    unknown = host.get_fact(Unknown, program=program, address=address, words=words)
    made = [one for one in served if one.name in unknown]
    if not made:
        return
    diff.show(STAMPS, b"", b"", notes=[f"makes {one.name} known from {one.file}" for one in made])
    argv = tuple(word for one in made for word in (one.name, one.file, one.mark))
    yield Script("ollama-models", "create", program, address, STAMPS, *argv, timeout_s=_CREATE_S)
