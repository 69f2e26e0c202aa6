"""Completion of commands, options and host names in bash, zsh and fish.

Pressing Tab must be quick and silent, and must not run code: the file in the current directory may be a
stranger's. So names are read from the rack file's syntax tree (``Host("gpu-box", ...)``), never by executing
it, together with the names that the last real load of the same file left in the cache, for hosts that a loop
makes. Anything that goes wrong means no suggestions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import wiring
from labctl.cli import printer
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
_SETUP = {
    "bash": "echo 'eval \"$(labctl completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(labctl completion zsh)\"' >> ~/.zshrc",
    "fish": "labctl completion fish > ~/.config/fish/completions/labctl.fish",
}


def _memory(rack: Path) -> Path:
    return wiring.cache_home() / "names" / f"{sha256(str(rack).encode()).hexdigest()[:16]}.json"


def remember(rack: Path, names: Iterable[str]) -> None:
    """Keep the names of a rack that was really loaded; a cache that cannot be written is not worth a word."""
    target = _memory(rack)
    text = json.dumps(sorted(set(names)))
    try:
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            return
        wiring.private_dir(target.parent)
        target.write_text(text, encoding="utf-8")
    except (OSError, LabctlError):
        return


@dataclass(frozen=True, slots=True)
class Names:
    """What may be suggested: every name, which of them are known to be groups, and cards as ``HOST/GPU``."""

    names: tuple[str, ...] = ()
    groups: frozenset[str] = frozenset()
    cards: tuple[str, ...] = ()


def written_names(source: str) -> tuple[list[str], list[str]]:
    """Return the hosts and the groups that are written out in the text of a rack file, without running it.

    Raises:
        SyntaxError: the text is not Python.
        ValueError: the text holds a null byte.
    """
    import ast

    hosts: list[str] = []
    groups: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)):
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if called != "Host":
            continue
        by_keyword = {keyword.arg: keyword.value for keyword in node.keywords}
        name = by_keyword.get("name", node.args[0] if node.args else None)
        roles = by_keyword.get("roles")
        hosts += [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
        for role in ast.walk(roles) if roles else ():
            if isinstance(role, ast.Constant) and isinstance(role.value, str):
                groups.append(role.value.replace("-", "_"))
    return hosts, groups


def written_cards(source: str) -> list[str]:
    """Return ``HOST/SLOT`` for the cards that are written out in the text of a rack file, without running it.

    Raises:
        SyntaxError: the text is not Python.
        ValueError: the text holds a null byte.
    """
    import ast

    def word(call: ast.Call, name: str) -> str | None:
        for keyword in call.keywords:
            if keyword.arg == name and isinstance(keyword.value, ast.Constant):
                return str(keyword.value.value)
        return None

    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    hosts = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] == "Host"]
    return [
        f"{word(host, 'name')}/{slot}"
        for host in hosts
        for card in ast.walk(host)
        if isinstance(card, ast.Call) and word(host, "name") and (slot := word(card, "slot"))
    ]


def written_models(source: str) -> list[str]:
    """Return the ids of models that are written out in the text of a rack file, without running it.

    Raises:
        SyntaxError: the text is not Python.
        ValueError: the text holds a null byte.
    """
    import ast

    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        keyword.value.value
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] == "Model"
        for keyword in call.keywords
        if keyword.arg == "id" and isinstance(keyword.value, ast.Constant)
        if isinstance(keyword.value.value, str)
    ]


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suggest the ids of the rack's models, once."""
    from click.shell_completion import CompletionItem

    if ctx.params.get("words"):
        return []
    given = ctx.params.get("inventory")
    try:
        rack = wiring.find_inventory(given if isinstance(given, str) else None)
        names = sorted(set(written_models(rack.read_text(encoding="utf-8"))))
    except (LabctlError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _known_names(rack: Path) -> Names:
    source = rack.read_text(encoding="utf-8")
    hosts, groups = written_names(source)
    names = {*hosts, *groups, *written_cards(source)}
    memory = _memory(rack)
    if memory.is_file():
        names.update(str(name) for name in json.loads(memory.read_text(encoding="utf-8")))
    cards = {name for name in names if "/" in name}
    # Every rack has these, see Rack.groups; pyinfra makes one of the file's own name.
    every = frozenset({"all", "hosts", rack.stem, *groups})
    return Names(tuple(sorted(names - cards)), every, tuple(sorted(cards)))


def _names_for(given: object) -> Names:
    try:
        return _known_names(wiring.find_inventory(given if isinstance(given, str) else None))
    except (LabctlError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return Names()


def complete_hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suggest host and group names; in a comma-separated value, for its last part."""
    from click.shell_completion import CompletionItem

    begun, comma, last = incomplete.rpartition(",")
    # While an option still lacks its value, click leaves the arguments unassigned.
    names = _names_for(ctx.params.get("inventory") or next(iter(ctx.args), None)).names
    taken = set(begun.split(","))
    fitting = (name for name in names if name.startswith(last) and name not in taken)
    return [CompletionItem(begun + comma + name) for name in fitting]


def complete_hosts_alone(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suggest host names where no group may stand, without those that were given already."""
    from click.shell_completion import CompletionItem

    found = _names_for(ctx.params.get("inventory"))
    taken = {*(ctx.params.get("hosts") or ()), *found.groups}
    return [CompletionItem(name) for name in found.names if name.startswith(incomplete) and name not in taken]


def complete_cards(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suggest hosts and groups, and behind a slash the cards of that host; none of them twice."""
    from click.shell_completion import CompletionItem

    found = _names_for(ctx.params.get("inventory"))
    names = found.cards if "/" in incomplete else found.names
    taken = set(ctx.params.get("words") or ())
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name not in taken]


def complete_deploys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suggest the deploys that came with labctl; in a comma-separated value, for its last part."""
    from click.shell_completion import CompletionItem

    from labctl import content

    begun, comma, last = incomplete.rpartition(",")
    taken = {"site", *begun.split(",")}
    try:
        names = sorted(file.stem for file in content.deploys_dir().glob("[!_]*.py"))
    except (LabctlError, OSError):
        return []
    return [
        CompletionItem(begun + comma + name) for name in names if name.startswith(last) and name not in taken
    ]


@click.command(
    short_help="Print the completion script of a shell.",
    epilog="\b\nTurn it on:\n" + "\n".join(f"  {shell:<5} {line}" for shell, line in _SETUP.items()),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script that makes SHELL complete labctl's commands, options and host names.

    SHELL is bash, zsh or fish; when it is left out, it is the one that you log in with.
    """
    from click.shell_completion import get_completion_class

    from labctl.cli.main import cli

    chosen = shell or wiring.shell()
    maker = get_completion_class(chosen) if chosen in SHELLS else None
    if maker is None:
        raise LabctlError("which shell?", hint=f"say one of: {', '.join(SHELLS)}")
    printer.out(maker(cli, {}, "labctl", wiring.COMPLETION_VARIABLE).source())
