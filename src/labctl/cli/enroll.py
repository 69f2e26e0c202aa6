"""``labctl enroll``: pin the host keys of hosts, once, before anything connects to them.

What is decided, and by which rule, is in ``domain.enrolment``; here the hosts are asked, a person is shown
what they said, and what was approved is written. Nobody is trusted silently: a key is pinned because its
fingerprint was given, because a person said yes to it, or because ``--yes`` accepts what is there now.
A host that fails or is refused never keeps the others from being enrolled; a wrong command line, or a
question that nobody is there to answer, writes nothing at all.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl.cli import completion, printer
from labctl.domain.enrolment import HostKey, Judgement, Standing, judge, twins
from labctl.domain.problem import ExitCode, LabctlError, Problem

if TYPE_CHECKING:
    from labctl.adapters.hostkeys import Answer, Endpoint
    from labctl.inventory import LoadedRack
    from labctl.inventory.known_hosts import KnownHost

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_ON_CONSOLE = "for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done"


@dataclass(frozen=True, slots=True)
class Wish:
    """The command line, as click read it."""

    hosts: tuple[str, ...]
    every: bool
    inventory: str | None
    fingerprints: tuple[str, ...]
    replace: bool
    yes: bool
    as_json: bool


@dataclass(slots=True)
class Case:
    """One host on its way through the command; ``declined`` is a person's no."""

    name: str
    endpoint: Endpoint
    answer: Answer
    judgement: Judgement | None = None
    declined: bool = False

    @property
    def outcome(self) -> str:
        """Return the one word for this host, as ``--json`` shows it."""
        if self.judgement is None:
            return "unreachable"
        if self.declined:
            return "declined"
        if self.judgement.refused:
            return "refused"
        return "enrolled" if self.judgement.standing is Standing.NEW else self.judgement.standing.value

    @property
    def to_write(self) -> bool:
        """Return whether this host's keys are approved and not yet in the file."""
        return self.judgement is not None and self.judgement.writes and not self.declined


_EXAMPLES = f"""\
\b
On the host's console:
  {_ON_CONSOLE}
\b
Examples:
  labctl enroll --all                                   ask about every new host
  labctl enroll nas --fingerprint SHA256:...            no question: the fingerprint answers it
  labctl enroll nas --replace --fingerprint SHA256:...  after nas was reinstalled
"""


@click.command("enroll", short_help="Pin the SSH host keys of new hosts.", epilog=_EXAMPLES)
@click.argument("hosts", nargs=-1, metavar="[HOST]...", shell_complete=completion.complete_hosts_alone)
@click.option("--all", "every", is_flag=True, help="Every host of the rack.")
@click.option(
    "--inventory", metavar="PATH", type=click.Path(), help="The rack file. [default: inventory/rack.py]"
)
@click.option(
    "--fingerprint",
    "fingerprints",
    multiple=True,
    metavar="[HOST=]SHA256:...",
    help="Pin only the key that has this fingerprint, without a question. For several hosts, give it "
    "once for each: HOST=SHA256:...",
)
@click.option("--replace", is_flag=True, help="Replace a pinned key. Needs --fingerprint.")
@click.option("--yes", "-y", is_flag=True, help="Trust the keys that new hosts show now. Never replaces any.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; ask nothing.")
def enroll(**given: Any) -> None:
    """Fetch the SSH host keys of HOSTs, show their fingerprints, and pin them in known_hosts.

    labctl connects to no host whose key is not pinned. Compare each fingerprint with what ssh-keygen -lf
    prints on the host's own console. A host that shows another key than the pinned one is refused; --yes
    does not change that. The file is known_hosts beside the rack file, and only this command writes it.

    Exit codes: 0 all enrolled, 1 a host was refused or declined, 2 bad input (nothing written), 3 no host
    could be reached, 4 some could not.
    """
    from labctl import wiring
    from labctl.adapters import hostkeys
    from labctl.inventory import known_hosts, load_rack

    wish = Wish(**given)
    loaded = load_rack(wiring.find_inventory(wish.inventory))
    names = _names(wish, tuple(host.name for host in loaded.rack.hosts))
    expected = _expected(wish, names)
    endpoints = {name: _endpoint(loaded, name) for name in names}
    entries = known_hosts.load(loaded.known_hosts)
    answers = hostkeys.fetch_all(endpoints.values())
    cases = [Case(name, endpoint, answers[endpoint]) for name, endpoint in endpoints.items()]
    for case in cases:
        if not case.answer.failure:
            case.judgement = _judge(case, entries, expected, wish)
    if not wish.as_json:
        _show(cases)
        _warn_of_twins(cases, loaded, entries)
    _approve(cases, wish)
    _write(cases, loaded.known_hosts, expected, wish)
    _report(cases, loaded.known_hosts, wish)


def _names(wish: Wish, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the hosts to enroll, each once, or raise with everything that is wrong with the names."""
    if wish.every:
        if wish.hosts:
            raise LabctlError("--all and host names exclude each other", hint="leave one of them out")
        return known
    if not wish.hosts:
        hint = f"name hosts, or all of them with --all; this rack has: {', '.join(known)}"
        raise LabctlError("no host was named", hint=hint)
    problems = [_unknown(name, known) for name in wish.hosts if name not in known]
    if problems:
        raise LabctlError(problems)
    return tuple(dict.fromkeys(wish.hosts))


def _unknown(name: str, known: tuple[str, ...]) -> Problem:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"this rack has: {', '.join(known)}"
    return Problem(f"there is no host {name!r} in the rack", hint=hint)


def _expected(wish: Wish, names: tuple[str, ...]) -> dict[str, str]:
    """Return the fingerprint given for each host, or raise with everything that is wrong with them."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for text in wish.fingerprints:
        host, _, value = text.strip().rstrip("=").rpartition("=")
        host = host or (names[0] if len(names) == 1 else "")
        if not _FINGERPRINT.fullmatch(value):
            hint = f"SHA256: and 43 characters, as this prints on the host's console: {_ON_CONSOLE}"
            problems.append(Problem(f"--fingerprint: {value!r} is no fingerprint", hint=hint))
        elif not host:
            hint = "say which host it is of: --fingerprint HOST=SHA256:..."
            problems.append(Problem("--fingerprint: several hosts are enrolled", hint=hint))
        elif host not in names:
            problems.append(Problem(f"--fingerprint: {host!r} is none of the hosts to enroll"))
        elif found.setdefault(host, value) != value:
            problems.append(Problem("--fingerprint: two different ones were given", host=host))
    if wish.replace and not problems:
        reason = "--replace needs the fingerprint of the new key, as the host's own console shows it"
        hint = f"on its console: {_ON_CONSOLE}; then add --fingerprint SHA256:..."
        problems += [Problem(reason, hint=hint, host=name) for name in names if name not in found]
    if problems:
        raise LabctlError(problems)
    return found


def _endpoint(loaded: LoadedRack, name: str) -> Endpoint:
    """Return where labctl will connect to the host later, so that just this is pinned."""
    from labctl.adapters.hostkeys import Endpoint

    data = loaded.host_data[name]
    return Endpoint(str(data["ssh_hostname"]), int(data["ssh_port"]))


def _judge(case: Case, entries: tuple[KnownHost, ...], expected: Mapping[str, str], wish: Wish) -> Judgement:
    from labctl.adapters.known_hosts import pinned

    known = pinned(entries, case.endpoint.address, case.endpoint.port)
    return judge(known, case.answer.keys, expected.get(case.name), replace=wish.replace)


def _show(cases: list[Case]) -> None:
    """Show the keys of every host that something is to be decided for, and who shares a key."""
    for case in cases:
        if case.judgement is None or case.judgement.standing is Standing.UNCHANGED:
            continue
        printer.out(f"{case.name} ({case.endpoint.address} port {case.endpoint.port}) shows:")
        for key in case.answer.keys:
            printer.out(f"  {key.keytype:<20} {key.fingerprint}")


def _warn_of_twins(cases: list[Case], loaded: LoadedRack, entries: tuple[KnownHost, ...]) -> None:
    """Warn of hosts that show a key which another host of the rack has, too."""
    from labctl.adapters.known_hosts import pinned

    shown = {case.name: case.answer.keys for case in cases if not case.answer.failure}
    others = {}
    for host in loaded.rack.hosts:
        if host.name not in shown:
            endpoint = _endpoint(loaded, host.name)
            others[host.name] = pinned(entries, endpoint.address, endpoint.port)
    for one, other, key in twins({**others, **shown}):
        if other in shown:
            reason = f"it has the same {key.keytype} key as {one}, so each can pose as the other"
            hint = "a cloned disk? give it keys of its own: sudo rm /etc/ssh/ssh_host_*; sudo ssh-keygen -A"
            printer.show_problems([Problem(reason, hint=hint, host=other)], severity="warning")


def _approve(cases: list[Case], wish: Wish) -> None:
    """Ask a person about every key that nothing vouches for; without one, refuse all of them."""
    open_cases = [case for case in cases if case.to_write and case.judgement and not case.judgement.vouched]
    if wish.yes or not open_cases:
        return
    if wish.as_json or not printer.can_ask():
        hint = "give the fingerprint (--fingerprint SHA256:...), or trust what is there now (--yes)"
        reason = "nobody is here to confirm its key, so nothing was written"
        raise LabctlError([Problem(reason, hint=hint, host=case.name) for case in open_cases])
    printer.out(f"Compare with what each host's own console prints: {_ON_CONSOLE}")
    for case in open_cases:
        case.declined = not printer.confirm(f"Pin these keys of {case.name}?")


def _write(cases: list[Case], path: Path, expected: Mapping[str, str], wish: Wish) -> None:
    """Write what was approved, unless another labctl changed what the approval rested on."""
    from labctl.adapters.known_hosts import pin
    from labctl.inventory.known_hosts import name_for

    approved = [case for case in cases if case.to_write]

    def choose(entries: tuple[KnownHost, ...]) -> dict[str, tuple[HostKey, ...]]:
        chosen = {}
        for case in approved:
            now = _judge(case, entries, expected, wish)
            if now.standing is Standing.UNCHANGED:
                continue
            if now != case.judgement:
                reason = "another labctl pinned other keys for it at the same time, so nothing was written"
                raise LabctlError(reason, hint="run the command again", host=case.name)
            chosen[name_for(case.endpoint.address, case.endpoint.port)] = now.pin
        return chosen

    if approved:
        pin(path, choose)


def _report(cases: list[Case], path: Path, wish: Wish) -> None:
    """Say what became of every host; raise when some could not be enrolled."""
    if wish.as_json:
        printer.emit_json({"known_hosts": str(path), "hosts": [_as_json(case) for case in cases]})
    problems: list[Problem] = []
    for case in cases:
        found = case.judgement
        if found is None:
            problems.append(Problem(case.answer.failure, hint=case.answer.hint, host=case.name))
        elif case.declined:
            problems.append(Problem("you did not confirm its key; nothing was pinned", host=case.name))
        elif found.refused:
            _alarm(case, found, path, wish)
            problems.append(Problem(f"refused: {found.because}", host=case.name))
        elif not wish.as_json:
            printer.out(f"{case.name}: {case.outcome}: {_kept(found)}")
    if problems:
        raise LabctlError(problems, code=_code(cases))


def _kept(found: Judgement) -> str:
    if found.standing is Standing.UNCHANGED:
        return found.because
    types = ", ".join(key.keytype for key in found.pin)
    return f"{found.because}; pinned {types}"


def _code(cases: list[Case]) -> ExitCode:
    """Return the exit code for a run in which not every host was enrolled."""
    unreachable = [case for case in cases if case.judgement is None]
    if len(unreachable) == len(cases):
        return ExitCode.UNREACHABLE
    if any(case.outcome in ("refused", "declined") for case in cases):
        return ExitCode.HOST_FAILED
    return ExitCode.PARTIAL


def _alarm(case: Case, found: Judgement, path: Path, wish: Wish) -> None:
    """Explain a refusal loudly, on stderr, with what to do next."""
    changed = found.standing is Standing.CHANGED
    again = f"labctl enroll {case.name}" + (
        f" --inventory {shlex.quote(wish.inventory)}" if wish.inventory else ""
    )
    title = "HAS ANOTHER KEY THAN THE PINNED ONE" if changed else "DOES NOT HAVE THE GIVEN FINGERPRINT"
    lines = ["", f"!!! {case.name.upper()} {title}. Nothing was written for it. !!!"]
    lines += [f"  pinned:  {key}   ({path})" for key in found.was]
    lines += [f"  shown:   {key}" for key in found.now]
    lines += [
        "It may have been reinstalled or been given new keys, its address may now belong to another machine,",
        "or somebody between you and it answers in its name. labctl cannot tell these apart, and connects to",
        "nothing that shows this key. Look at the host's own console (never through this network):",
        f"  {_ON_CONSOLE}",
        "and only if a fingerprint there equals one shown above, type that one here:",
        f"  {again}{' --replace' if found.was else ''} --fingerprint SHA256:...",
        "",
    ]
    printer.err("\n".join(lines))


def _as_json(case: Case) -> dict[str, object]:
    """Return what ``--json`` says about one host."""
    found = case.judgement
    kept = found.pin if found and not found.refused and not case.declined else ()
    return {
        "host": case.name,
        "address": case.endpoint.address,
        "port": case.endpoint.port,
        "outcome": case.outcome,
        "because": found.because if found else case.answer.failure,
        "keys": [
            {"type": key.keytype, "fingerprint": key.fingerprint, "pinned": key in kept}
            for key in case.answer.keys
        ],
        "pinned_before": [
            {"type": key.keytype, "fingerprint": key.fingerprint} for key in (found.was if found else ())
        ],
    }
