"""``vllm serve``'s command line: the same flags, help and refusals as vllm/utils/argparse_utils.py.

Plain ``--help`` lists groups only; ``--help=all`` lists all flags, ``--help=GROUP`` and ``--help=WORD`` some.
``_`` and ``-`` are one within a flag. An unknown flag ends in exit status 2.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from .options import VLLM, Kind

COMMANDS = ("chat", "complete", "serve", "bench", "collect-env", "run-batch")
DESCRIPTION = (
    "Launch a local OpenAI-compatible API server to serve LLM completions via HTTP. (A double of it.)"
)
EPILOG = """\
For full list:            vllm serve --help=all
For a section:            vllm serve --help=ModelConfig
For a flag:               vllm serve --help=max-model-len
"""
_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "json": json.loads}


class ServeParser(argparse.ArgumentParser):
    """The parser of ``vllm serve``; ``keyword`` is what was asked for by ``--help=``."""

    keyword: str | None = None

    def format_help(self) -> str:
        """Return the help: groups alone, everything, one group, or what matches."""
        if self.keyword == "all":
            return super().format_help()
        groups = [group for group in self._action_groups if group._group_actions]
        formatter = self._get_formatter()
        if self.keyword is None:
            formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
            formatter.add_text(self.description)
            formatter.start_section("Config Groups")
            width = max(len(group.title or "") for group in groups) + 1
            lines = (f"{group.title or '': <{width}}{group.description or ''}" for group in groups)
            formatter.add_text("\n".join(lines))
            formatter.end_section()
            formatter.add_text(self.epilog)
            return formatter.format_help()
        for group in groups:
            if (group.title or "").lower() == self.keyword:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
                return formatter.format_help()
        matching = [a for a in self._actions if any(self.keyword in name for name in a.option_strings)]
        if matching:
            formatter.start_section(f"Arguments matching '{self.keyword}'")
            formatter.add_arguments(matching)
            formatter.end_section()
            return formatter.format_help()
        return (
            f"No group or arguments matching '{self.keyword}'.\nUse '--help' to see available groups or "
            "'--help=all' to see all available parameters.\n"
        )


class _Raw(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width)


def _add(group: argparse._ArgumentGroup, names: list[str], kind: Kind, text: str) -> None:
    if kind == "flag":
        group.add_argument(*names, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif kind == "switch":
        group.add_argument(*names, action="store_true", help=text)
    elif kind == "many":
        group.add_argument(*names, nargs="+", default=None, help=text)
    elif isinstance(kind, tuple):
        group.add_argument(*names, choices=kind, default=None, help=text)
    else:
        group.add_argument(*names, type=_TYPES[kind], default=None, help=text)


def _parsers() -> tuple[argparse.ArgumentParser, ServeParser]:
    whole = argparse.ArgumentParser(prog="vllm", description="vLLM CLI (a double of it)")
    whole.add_argument("-v", "--version", action="store_true", help="show the version and exit")
    commands = whole.add_subparsers(dest="subparser", parser_class=ServeParser)
    for name in COMMANDS:
        if name != "serve":
            commands.add_parser(name)
    serve = commands.add_parser(
        "serve",
        description=DESCRIPTION,
        usage="vllm serve [model_tag] [options]",
        epilog=EPILOG,
        formatter_class=_Raw,
        allow_abbrev=False,
    )
    serve.add_argument(
        "model_tag", nargs="?", help="The model tag to serve (optional if specified in config)"
    )
    for title, (description, rows) in VLLM.items():
        group = serve.add_argument_group(title, description)
        for names, kind, text in rows:
            _add(group, names.split(), kind, text)
    return whole, serve


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for, ``model`` and ``subparser`` among it; leaves by ``SystemExit`` as vLLM."""
    whole, serve = _parsers()
    words = []
    for word in argv:
        if word.startswith("--help="):
            serve.keyword = word.partition("=")[2].lower().replace("_", "-")
            words.append("--help")
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(re.sub(r"^[^.]*", lambda found: found[0].replace("_", "-"), name) + equals + value)
        else:
            words.append(word)
    asked = whole.parse_args(words)
    if asked.subparser == "serve":
        asked.model = asked.model_tag or asked.model
        if asked.model is None:
            serve.error("a model is needed: vllm serve MODEL")
    elif asked.subparser is None and not asked.version:
        whole.print_help()
        sys.exit(1)
    return asked


def tokens(text: str | None) -> int | None:
    """Return a context length such as ``32768``, ``32k`` (thousands) or ``32K`` (1024s); None for ``auto``.

    Raises:
        ValueError: it is none.
    """
    if text is None or text in ("auto", "-1"):
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no number of tokens")
    return int(float(found[1]) * {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20}[found[2]])
