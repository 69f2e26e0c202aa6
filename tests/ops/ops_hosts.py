"""Two hosts for operations: one that answers facts from a case file, and this machine below a directory.

Both are put where pyinfra keeps the current host and state, and operations are evaluated through ``_inner``,
as pyinfra does; so what is tested is the generator that runs in production.
"""

from __future__ import annotations

import base64
import grp
import logging
import os
import pwd
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra.api.command import StringCommand

from labctl.ops.command import Script

ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name


@dataclass
class Canned:
    """A host whose facts print what a case file says."""

    said: Mapping[str, list[str]]
    name: str = "gpu-box"
    current_op_global_arguments: dict[str, Any] = field(default_factory=lambda: {"name": "a case"})
    noops: list[str] = field(default_factory=list)

    def get_fact(self, cls: type[Any], **kwargs: Any) -> Any:
        fact = cls()
        command = fact.command(**kwargs)
        text = command.get_raw_value() if isinstance(command, StringCommand) else command
        assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0, text
        lines = self.said[cls.__name__]
        return fact.process(lines) if lines else fact.default()

    def noop(self, description: str) -> None:
        self.noops.append(description)


@dataclass
class Done:
    """One command that was run here."""

    shown: str
    status: int
    stdout: str
    stderr: str


class Here:
    """This machine; ``bin`` comes first on its PATH, for stand-ins of programs that must not really run."""

    name = "here"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.current_op_global_arguments = {"name": "a change"}
        self.prefix = ""
        self.asked: list[Done] = []

    def stand_in(self, program: str, script: str) -> None:
        path = self.bin / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def shell(self, text: str, stdin: str | None = None) -> Done:
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        # pyinfra ends what it sends by a newline.
        given = None if stdin is None else (stdin if stdin.endswith("\n") else f"{stdin}\n")
        ran = subprocess.run(
            ["sh", "-c", self.prefix + text],
            **({"stdin": subprocess.DEVNULL} if given is None else {"input": given}),
            capture_output=True,
            text=True,
            env=environment,
            cwd="/",
            timeout=60,
            check=False,
        )
        return Done(text, ran.returncode, ran.stdout, ran.stderr)

    def get_fact(self, cls: type[Any], **kwargs: Any) -> Any:
        fact = cls()
        command = fact.command(**kwargs)
        ran = self.shell(command.get_raw_value() if isinstance(command, StringCommand) else command)
        self.asked.append(ran)
        assert (ran.status, ran.stderr) == (0, ""), ran
        lines = ran.stdout.splitlines()
        return fact.process(lines) if lines else fact.default()

    def noop(self, description: str) -> None:
        """Nothing is to be done; pyinfra would log it."""

    def run(self, command: Script, stdin: str | None = None) -> Done:
        assert command.connector_arguments.get("_stdin", "") == command.stdin
        ran = self.shell(command.get_raw_value(), (command.stdin or None) if stdin is None else stdin)
        return Done(str(command), ran.status, ran.stdout, ran.stderr)

    def plan(self, operation: Any, **kwargs: Any) -> list[Script]:
        return list(operation._inner(**kwargs))

    def apply(self, operation: Any, **kwargs: Any) -> list[Done]:
        """Run an operation's commands until one fails; as pyinfra does, one at a time."""
        done = []
        for command in operation._inner(**kwargs):
            done.append(self.run(command))
            if done[-1].status:
                break
        return done

    def must(self, operation: Any, **kwargs: Any) -> list[Done]:
        """Apply, expecting success, and expect the second time to change nothing."""
        done = self.apply(operation, **kwargs)
        assert [ran for ran in done if ran.status] == []
        assert self.plan(operation, **kwargs) == []
        return done


class Diffs(logging.Handler):
    """What was logged behind the marker."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        marker, _, text = record.getMessage().partition("\n")
        if marker == "labctl-diff:":
            self.texts.append(text)


def described(command: Script) -> dict[str, Any]:
    """Return a command of ours as a case file states it: script, argv, and the content sent by stdin."""
    shell, flag, script, name, *argv = shlex.split(command.get_raw_value())
    assert (shell, flag) == ("sh", "-c")
    assert subprocess.run(["dash", "-n", "-c", script], check=False).returncode == 0
    described: dict[str, Any] = {
        "script": name.removeprefix("labctl-"),
        "argv": ["(script)" if "\n" in word else word for word in argv],
    }
    if stdin := command.stdin:
        described["stdin"] = base64.b64decode(stdin.partition("\n")[2]).decode()
    return described
