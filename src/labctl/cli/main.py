"""The door: find the command, run it, turn whatever happens into words and an exit code.

Commands are looked up in ``COMMANDS`` and imported only when they run, so that ``labctl --help`` costs as
much as starting Python and click. Every way to end is decided here and nowhere else:

- a ``LabctlError`` is expected: its problems are printed and its code is the exit code;
- a wrong command line is exit 2, Ctrl-C is 130, and a reader that went away (``| head``) is silent;
- a full disk here is said as such;
- anything else is a bug of ours: one sentence, the path of a file that holds the traceback, exit 70.
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from labctl import __version__, wiring
from labctl.cli import printer
from labctl.domain.problem import ExitCode, LabctlError, Problem

_BROKEN_PIPE = 141  # what a shell shows for a program that SIGPIPE ended


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: where it is, under which heading help shows it, and what it does in a few words."""

    target: str
    section: str
    help: str


_RACK, _HOSTS, _TRY, _SHELL = "Describe your rack", "Provision it", "Try it", "Your shell"
_WATTS, _MODELS, _USE, _SLEEP = "Watts", "Models", "Use it", "Sleep and wake"

COMMANDS: dict[str, Entry] = {
    "init": Entry("labctl.cli.inventory:init", _RACK, "Start a new rack in a directory."),
    "validate": Entry("labctl.cli.inventory:validate", _RACK, "Check the rack file; show every error."),
    "schema": Entry("labctl.cli.inventory:schema", _RACK, "Print the JSON Schema of the rack file."),
    "enroll": Entry("labctl.cli.enroll:enroll", _HOSTS, "Pin the SSH host keys of new hosts."),
    "plan": Entry("labctl.cli.provision:plan", _HOSTS, "Show what apply would change, and change nothing."),
    "apply": Entry("labctl.cli.provision:apply", _HOSTS, "Make the hosts what the rack file says."),
    "status": Entry("labctl.cli.status:status", _HOSTS, "Show each host's state, why, and what is wrong."),
    "health": Entry("labctl.cli.health:health", _HOSTS, "Say whether the rack is well, and what to do."),
    "bundle": Entry("labctl.cli.bundle:bundle", _HOSTS, "Pack what is known of the rack, without secrets."),
    "fit": Entry(
        "labctl.cli.fit:fit",
        _MODELS,
        "Show whether models fit, and how fast they can be.",
    ),
    "models": Entry(
        "labctl.cli.models:models", _MODELS, "Bring models to hosts, check them, remove what is left over."
    ),
    "power": Entry(
        "labctl.cli.power:power", _WATTS, "Show what supplies and circuits bear, and what cards draw."
    ),
    "powercap": Entry(
        "labctl.cli.powercap:powercap", _WATTS, "Show or set the power caps of graphics cards."
    ),
    "energy": Entry(
        "labctl.cli.energy:energy", _WATTS, "Show what hosts used, what it cost, what sleep saved."
    ),
    "wake": Entry("labctl.cli.wake:wake", _SLEEP, "Wake hosts, and see them come up."),
    "suspend": Entry("labctl.cli.wake:suspend", _SLEEP, "Put hosts to sleep, unless something holds them."),
    "explain": Entry("labctl.cli.explain:explain", _SLEEP, "Say what holds a host awake, and what is next."),
    "hold": Entry("labctl.cli.hold:hold", _SLEEP, "Keep a host awake for some time."),
    "release": Entry("labctl.cli.hold:release", _SLEEP, "End holds, and take wishes back."),
    "pause": Entry("labctl.cli.hold:pause", _SLEEP, "Hands off: neither wake nor sleep until resume."),
    "resume": Entry("labctl.cli.hold:resume", _SLEEP, "End a pause, or the quarantine of a host."),
    "events": Entry(
        "labctl.cli.explain:events", _SLEEP, "Show what happened to hosts, and go on as it happens."
    ),
    "sleep-test": Entry("labctl.cli.sleep_test:sleep_test", _SLEEP, "Prove that a host sleeps and wakes."),
    "controller": Entry("labctl.cli.controller:controller", _SLEEP, "Run the controller, or look at it."),
    "gateway": Entry("labctl.cli.gateway:gateway", _USE, "Run the gateway, look at it, make keys for it."),
    "web": Entry("labctl.cli.web:web", _USE, "Run the web page of the rack, with its metrics."),
    "clients": Entry("labctl.cli.clients:clients", _USE, "Print what a client needs to use the models."),
    "monitoring": Entry(
        "labctl.cli.monitoring:monitoring", _USE, "Write what Prometheus and Grafana need to watch the rack."
    ),
    "lab": Entry("labctl.cli.lab:lab", _TRY, "Run a virtual rack of real Debian hosts on this machine."),
    "completion": Entry(
        "labctl.cli.completion:completion", _SHELL, "Print the completion script of a shell."
    ),
}

_EXAMPLES = """\
\b
Examples:
  labctl init my-rack                  write a commented rack file to start from
  labctl plan                          what would change on ./inventory/rack.py
  labctl apply --limit gpu-box,nas     change these two hosts, after a question
  labctl apply --only base --yes       one deploy, without a question
  labctl COMMAND --help                everything about one command
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, never for the list of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or nothing when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one names the likely one.

        Raises:
            LabctlError: there is no such command.
        """
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            raise LabctlError(
                f"there is no command {args[0]!r}",
                hint=f"did you mean: labctl {close[0]}" if close else "see: labctl --help",
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete the names from the table, without importing what they name."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        fitting = ((name, entry) for name, entry in COMMANDS.items() if name.startswith(incomplete))
        return [CompletionItem(name, help=entry.help) for name, entry in fitting]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        width = max(len(name) for name in COMMANDS)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


@click.group(
    cls=LazyGroup,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="labctl %(version)s")
def cli() -> None:
    """Provision and run a rack of GPU machines from one file, inventory/rack.py."""


def _explain_usage(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "labctl"
    printer.show_problems([Problem(error.format_message(), hint=f"see: {command} --help")])


def _report_bug(error: Exception) -> int:
    import traceback

    moment = wiring.clock().now()
    try:
        log = wiring.private_dir(wiring.state_home() / "logs") / f"bug-{moment:%Y%m%d-%H%M%S-%f}.log"
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = f"the details are in {log}; please report it with that file"
    except (OSError, LabctlError) as unwritable:
        where = f"the details could not be written ({unwritable})"
    printer.show_problems(
        [Problem(f"this is a bug in labctl: {type(error).__name__}: {error}", hint=where)],
    )
    return ExitCode.INTERNAL


def _run(args: list[str]) -> object:
    if wiring.completing():
        # The shell asks for words; click answers it and exits.
        cli.main(args, prog_name="labctl", complete_var=wiring.COMPLETION_VARIABLE)
    try:
        # Not cli.main(), which would end the process by itself when the reader of stdout went away.
        with cli.make_context("labctl", args) as context:
            result: object = cli.invoke(context)
    except click.exceptions.Exit as end:
        result = end.exit_code
    sys.stdout.flush()
    return result


def _explain_full(error: OSError) -> int:
    printer.close_quietly()
    place = error.filename or "where labctl's output goes"
    printer.show_problems(
        [Problem(f"no space is left for {place}", hint="make room, then run it again; it resumes")]
    )
    return ExitCode.BAD_INPUT


def main(argv: Sequence[str] | None = None) -> int:
    """Run labctl and return its exit code."""
    printer.open_missing()
    try:
        result = _run(list(sys.argv[1:] if argv is None else argv))
    except LabctlError as error:
        printer.show_problems(error.problems)
        return error.code
    except click.exceptions.NoArgsIsHelpError as error:
        printer.out(error.format_message())
        return ExitCode.OK
    except click.ClickException as error:
        _explain_usage(error)
        return ExitCode.BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        printer.err("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        printer.close_quietly()
        return _BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _explain_full(error)
        return _report_bug(error)
    return result if isinstance(result, int) else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
