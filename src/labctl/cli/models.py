"""``labctl models``: which files of models are where; bring them, check them, remove what is left over.

Every verb asks the hosts themselves, by a small program that lives as long as the command. What is decided
about files is in ``labctl.weights`` and ``labctl.domain``; here it is only asked for and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labctl import wiring
from labctl.cli import completion, printer
from labctl.domain.outcome import Status, counted, judge
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.domain.failures import Failure
    from labctl.domain.unreferred import Verdict
    from labctl.inventory import LoadedRack
    from labctl.weights.places import File
    from labctl.weights.survey import Survey

_F = TypeVar("_F", bound=Callable[..., Any])
_CODES = """\
\b
Exit codes:
  0  everything is as wanted            4    some hosts are done, others unreachable
  1  a host or a file failed            130  interrupted, or answered with no
  2  bad input; nothing was changed
  3  no host could be reached
"""
_RACK = click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
_HOST = click.option(
    "--host",
    "hosts",
    metavar="HOST,GROUP",
    multiple=True,
    shell_complete=completion.complete_hosts,
    help="Only these hosts and groups. May be given again.",
)


@click.group()
def models() -> None:
    """Bring the files of models to hosts, see where they are, check them, and remove what is left over."""


@models.command(
    epilog="\b\nExamples:\n  labctl models ls            every file of every model\n"
    "  labctl models ls gpu-box    what this host has and lacks\n" + _CODES
)
@click.argument("hosts", nargs=-1, metavar="[HOST]...", shell_complete=completion.complete_hosts_alone)
@_RACK
@_JSON
def ls(hosts: tuple[str, ...], inventory: str | None, as_json: bool) -> int:  # noqa: FBT001
    """Show every file of every model: who wants it, who has it, and what no model refers to."""
    from labctl.cli import models_view
    from labctl.weights import places, survey

    loaded, chosen = _aim(inventory, hosts)
    files = places.files(loaded.rack)
    with models_view.Counting("asking hosts", 0 if as_json else len(chosen)) as counting:
        answers = survey.ask(loaded, chosen, files, wiring.talker(), counting.one)
    outcome = judge({host: _answered(answer) for host, answer in answers.items()})
    verdicts = _verdicts(loaded, answers)
    if as_json:
        printer.emit_json(models_view.ls_document(loaded.rack.name, files, answers, verdicts, outcome))
        return outcome.code
    models_view.show_files(files, answers)
    models_view.show_others(verdicts)
    models_view.say_unreachable(answers)
    return outcome.code


@models.command(
    epilog="\b\nExamples:\n  labctl models pull                        all that hosts need and lack\n"
    "  labctl models pull qwen3-8b --host rig    this model to this host\n"
    "  labctl models pull --from nas             from a host that has it, not from the net\n" + _CODES
)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@_HOST
@click.option("--from", "source", metavar="HOST", help="Take the files from this host and download nothing.")
@_RACK
@_JSON
def pull(
    names: tuple[str, ...],
    hosts: tuple[str, ...],
    source: str | None,
    inventory: str | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Bring files of models to the hosts that need them.

    Each file is downloaded once for the rack, by one host, and goes from host to host while it comes in. What
    was begun is resumed, and a file takes its place only after its sha256 was found right. Without MODEL, all
    that services need; a MODEL with --host goes there even if nothing there serves it.
    """
    from labctl.cli import models_view
    from labctl.weights import places
    from labctl.weights.news import Wish
    from labctl.weights.pull import pull as bring

    loaded, _ = _aim(inventory, ())
    files = places.to_pull(loaded, names, hosts)
    if source is not None:
        (source,) = _one_host(loaded, source)
    wish = Wish(files, source, {} if source else _tokens(loaded, files))
    _require_enrolled(loaded, wish.hosts)
    clock = wiring.clock()
    started = clock.monotonic()
    with models_view.Transfers(files, quiet=as_json) as view:
        result = bring(loaded, wish, wiring.talker(), view.on_news)
    statuses = {host: result.status(host) for host in result.hosts}
    outcome = judge(statuses, interrupted=result.interrupted)
    seconds = clock.monotonic() - started
    if as_json:
        printer.emit_json(models_view.pull_document(loaded.rack.name, files, result, outcome, seconds))
    else:
        models_view.show_pull(result, outcome, seconds)
    return outcome.code


@models.command(
    epilog="\b\nExamples:\n  labctl models verify                 every file on every host that needs it\n"
    "  labctl models verify --host rig      all models of one host\n" + _CODES
)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@_HOST
@_RACK
@_JSON
def verify(
    names: tuple[str, ...],
    hosts: tuple[str, ...],
    inventory: str | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Read files of models on hosts anew and compare them with their sha256.

    Nothing is changed; all hosts read at once. A byte that flipped is named by its host, file and part.
    """
    from labctl.cli import models_view
    from labctl.weights import places
    from labctl.weights.verify import verify as read

    loaded, chosen = _aim(inventory, hosts)
    ids = {model.id for model in places.chosen_models(loaded.rack, names)}
    files = tuple(file for file in places.files(loaded.rack) if file.model.id in ids)
    chosen = tuple(host for host in chosen if any(host in file.hosts for file in files))
    if not chosen:
        raise LabctlError("no service of these hosts serves such a model", hint="labctl models ls")
    with models_view.Transfers(files, quiet=as_json) as view:
        result = read(loaded, files, chosen, wiring.talker(), view.on_news)
    bad = {one.host for one in result.checked if one.verdict not in ("ok", "unpinned")}
    statuses: dict[str, Status] = {
        host: "failed" if host in bad else _lost(result.lost[host]) if host in result.lost else "ok"
        for host in chosen
    }
    outcome = judge(statuses, interrupted=result.interrupted)
    if as_json:
        printer.emit_json(models_view.verify_document(loaded.rack.name, result, outcome))
    else:
        models_view.show_verify(result, outcome)
    return outcome.code


@models.command(
    epilog="\b\nExamples:\n  labctl models gc --dry-run    show what would go\n"
    "  labctl models gc              ask, then remove it\n" + _CODES
)
@_HOST
@click.option("--dry-run", is_flag=True, help="Show what would be removed; change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_RACK
@_JSON
def gc(
    hosts: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001
    yes: bool,  # noqa: FBT001
    inventory: str | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Remove files of models that labctl put there and that no model of the inventory refers to any more.

    Only below /srv/models and the folders of models' paths. What somebody else put there, what changed, and
    what a process has open stays.
    """
    from labctl.cli import models_view
    from labctl.weights import collect, places, survey

    if as_json and not (dry_run or yes):
        raise LabctlError("--json cannot ask", hint="add --yes to remove, or --dry-run to look")
    loaded, chosen = _aim(inventory, hosts)
    talker = wiring.talker()
    answers = survey.ask(loaded, chosen, places.files(loaded.rack), talker)
    verdicts = _verdicts(loaded, answers)
    doomed = {host: [one for one in its if one.goes] for host, its in verdicts.items()}
    doomed = {host: its for host, its in doomed.items() if its}
    if not as_json:
        models_view.show_others(verdicts)
        models_view.say_unreachable(answers)
    if doomed and not (dry_run or yes) and not _confirmed(doomed):
        printer.out("Nothing was removed.")
        return ExitCode.INTERRUPTED
    done = collect.collect(loaded, doomed, wiring.talker(), really=not dry_run) if doomed else {}
    statuses = {host: _answered(done.get(host, answer)) for host, answer in answers.items()}
    outcome = judge(statuses)
    if as_json:
        printer.emit_json(models_view.gc_document(loaded.rack.name, done, verdicts, outcome, dry_run=dry_run))
    else:
        models_view.show_gc(done, outcome, dry_run=dry_run)
    return outcome.code


def _aim(inventory: str | None, hosts: Sequence[str]) -> tuple[LoadedRack, tuple[str, ...]]:
    """Load the rack and return it with the hosts that are meant; each of them has a pinned key."""
    from labctl.inventory import load_rack
    from labctl.weights import places

    rack = wiring.find_inventory(inventory)
    loaded = load_rack(rack)
    completion.remember(rack, (*loaded.host_data, *loaded.groups))
    chosen = places.chosen_hosts(loaded, hosts)
    if hosts:
        _require_enrolled(loaded, chosen)
    return loaded, chosen


def _one_host(loaded: LoadedRack, word: str) -> tuple[str]:
    from labctl.weights import places

    found = places.chosen_hosts(loaded, (word,))
    if len(found) != 1:
        raise LabctlError(f"--from names {counted(len(found), 'host')}", hint="name one host")
    return (found[0],)


def _require_enrolled(loaded: LoadedRack, hosts: Sequence[str]) -> None:
    from labctl.fleet.sessions import require_enrolled

    require_enrolled({host: loaded.host_data[host] for host in hosts})


def _tokens(loaded: LoadedRack, files: Sequence[File]) -> dict[str, str]:
    """Return the tokens of gated repositories by model.

    Raises:
        LabctlError: one is not there, or would travel where others can read it.
    """
    from labctl.inventory import mirrors

    found = {}
    for file in files:
        model = file.model
        if model.token is None or model.id in found or file.placed.url.startswith("file:"):
            continue
        if not mirrors.takes_token(file.placed.url):
            raise LabctlError(
                f"the token of {model.id} would travel in the clear to {file.placed.url}",
                hint="give the model an https:// address, or no token",
            )
        found[model.id] = wiring.secret(model.token, loaded.folder)
    return found


def _verdicts(loaded: LoadedRack, answers: Mapping[str, Survey | Failure]) -> dict[str, tuple[Verdict, ...]]:
    from labctl.weights import collect
    from labctl.weights.survey import Survey

    return {
        host: collect.judge(loaded.rack, answer)
        for host, answer in answers.items()
        if isinstance(answer, Survey)
    }


def _answered(answer: object) -> Status:
    """Return the status of a host by its answer."""
    from labctl.domain.failures import Failure

    return _lost(answer) if isinstance(answer, Failure) else "ok"


def _lost(failure: Failure) -> Status:
    return "unreachable" if failure.unreachable else "failed"


def _confirmed(doomed: Mapping[str, Sequence[Verdict]]) -> bool:
    from labctl.cli import models_view

    count = sum(len(its) for its in doomed.values())
    size = models_view.bytes_text(sum(one.file.size for its in doomed.values() for one in its))
    what = f"{counted(count, 'file')} of {size} on {counted(len(doomed), 'host')}"
    if not printer.can_ask():
        raise LabctlError(
            f"nothing was removed: {what} need a yes, and there is no terminal to ask on",
            hint="read the list above, then run it again with --yes",
        )
    return printer.confirm(f"Remove {what}?")
