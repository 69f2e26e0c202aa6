"""``labctl powercap``: what cards are capped at, and another cap for now, until a time, or for good.

The cards' own word counts, so the table shows what was read back and not what was ordered. What can be known
to be wrong without asking a host is refused before any is contacted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import click

from labctl import wiring
from labctl.cli import completion, printer
from labctl.domain import cap_json
from labctl.domain.capping import RESET, Order
from labctl.domain.gpus import CapReason
from labctl.domain.outcome import Outcome
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.fleet.cap_answers import HostCaps
    from labctl.fleet.cap_budget import Excess
    from labctl.fleet.selection import Target

_NUMBER = re.compile(r"[-+]?[0-9][0-9._]*(?:[eE][-+]?[0-9]+)?[wW]?", re.ASCII)
_WATTS = re.compile(r"([0-9]{1,6})[wW]?", re.ASCII)
_CLOCKS = re.compile(r"([0-9]{3,5})\s*[,-]\s*([0-9]{3,5})", re.ASCII)
_MHZ = range(cap_json.MHZ[0], cap_json.MHZ[1] + 1)
_LOCAL = "this host"

_HELP = """\b
Examples:
  labctl powercap                          what every card is capped at now
  labctl powercap 200                      every card, until the next boot
  labctl powercap 200 gpu-box --until 7:00           quiet nights
  labctl powercap 300 gpu-box/slot0 --persist --reason efficiency
  labctl powercap --lock-clocks 210,1400 rig/slot2   where no cap is low enough
  labctl powercap --reset gpu-box          back to what rack.py says
  sudo labctl powercap 200 --local         on the host itself, by itself
\b
Exit codes:
  0  every card is as ordered           3    no host could be reached
  1  a host or a card failed            4    some cards are done, others are not
  2  refused; nothing was changed       130  interrupted
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, as it was typed."""

    words: tuple[str, ...]
    inventory: str | None
    reason: str | None
    until: str | None
    persist: bool
    reset: bool
    lock_clocks: str | None
    unlock_clocks: bool
    override: str | None
    dry_run: bool
    as_json: bool
    local: bool
    yes: bool


@click.command(short_help="Show or set the power caps of graphics cards.", epilog=_HELP)
@click.argument(
    "words", metavar="[WATTS] [HOST[/GPU]]...", nargs=-1, shell_complete=completion.complete_cards
)
@click.option(
    "--inventory", "-i", metavar="FILE", type=click.Path(), help="The rack file; found as by labctl plan."
)
@click.option(
    "--reason", type=click.Choice(get_args(CapReason)), help="Why; kept with --until and --persist."
)
@click.option("--until", metavar="T", help="Hold it until 18:00, for 2h, or until a date with time.")
@click.option("--persist", is_flag=True, help="Hold it over reboots, until --reset.")
@click.option("--reset", is_flag=True, help="Drop what was set by hand: back to the inventory's cap.")
@click.option("--lock-clocks", metavar="MIN,MAX", help="Lock graphics clocks to this range in MHz (NVIDIA).")
@click.option("--unlock-clocks", is_flag=True, help="Let the clocks run free again.")
@click.option("--override", metavar="WORDS", help="Go above what protects a circuit or PSU, and say why.")
@click.option("--dry-run", is_flag=True, help="Ask the cards, show what would change, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("--local", is_flag=True, help="This machine's own cards, as root, without inventory or SSH.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --override goes above what protects.")
def powercap(**given: Any) -> int:
    """Show what graphics cards are capped at, or cap them at WATTS.

    HOST is a host, group or pattern of the rack; HOST/GPU one card by its slot, UUID or PCI address. Without
    any, all cards of the rack are meant (with --local those of this machine, and GPU stands alone). Every
    card's limit is read back. Without --until and --persist it holds until the next boot or apply. What would
    take a power supply or circuit of the rack file over its limit is refused, unless --override says why.
    """
    options = Options(**given)
    watts, targets = _split(options.words)
    order = _order(options, watts)
    if options.local:
        if options.inventory is not None:
            raise LabctlError("--local and --inventory exclude each other", hint="--local needs no rack file")
        return _local(order, targets, as_json=options.as_json)
    return _fleet(order, targets, options)


def _split(words: Sequence[str]) -> tuple[int | None, tuple[str, ...]]:
    """Return the watts, if the first word is a number, and the rest.

    Raises:
        LabctlError: the number is no cap, or stands behind the cards.
    """
    if not words or not _NUMBER.fullmatch(words[0]):
        late = next((word for word in words if _NUMBER.fullmatch(word)), None)
        if late is not None:
            others = " ".join(word for word in words if word != late)
            raise LabctlError("the watts stand first", hint=f"labctl powercap {late} {others}")
        return None, tuple(words)
    found = _WATTS.fullmatch(words[0])
    watts = int(found[1]) if found else 0
    if not 1 <= watts <= cap_json.WATTS_MAX:
        raise LabctlError(
            f"{words[0]} is no cap for a card",
            hint=f"whole watts from 1 to {cap_json.WATTS_MAX}, such as 200",
        )
    return watts, tuple(words[1:])


def _order(options: Options, watts: int | None) -> Order | None:
    """Return what is wanted, or None where the person only wants to see.

    Raises:
        LabctlError: options exclude each other, or lack what they are about.
    """
    if options.lock_clocks is not None and options.unlock_clocks:
        raise LabctlError("--lock-clocks and --unlock-clocks exclude each other")
    clocks = RESET if options.unlock_clocks else _clocks(options.lock_clocks)
    wants = watts is not None or clocks is not None
    if options.until is not None and options.persist:
        raise LabctlError("--until and --persist exclude each other", hint="--persist has no end")
    if options.reset and (wants or _given(options, "reason", "until", "persist", "override")):
        raise LabctlError("--reset stands alone", hint="labctl powercap --reset [HOST[/GPU]]...")
    if not wants and not options.reset:
        if lost := _given(options, "reason", "until", "persist", "override", "dry_run"):
            raise LabctlError(
                f"--{lost[0].replace('_', '-')} of what?", hint="give WATTS, --lock-clocks or --reset"
            )
        return None
    until = None
    if options.until is not None:
        from labctl.fleet import moments

        until = int(moments.until(options.until, wiring.clock().now()).timestamp())
    return Order(
        watts=watts,
        clocks_mhz=clocks,
        reset=options.reset,
        reason=options.reason,
        until=until,
        persist=options.persist,
        override=_words(options.override),
        dry_run=options.dry_run,
        by=wiring.who(),
    )


def _given(options: Options, *names: str) -> list[str]:
    """Return which of the options were given, also those that were given as nothing ("")."""
    return [name for name in names if getattr(options, name) not in (None, False)]


def _words(text: str | None) -> str | None:
    """Return why somebody goes above what protects, in one line."""
    if text is None:
        return None
    if not text.strip():
        raise LabctlError(
            "--override needs words that say why", hint='such as --override "rig has its own fuse"'
        )
    if not text.isprintable() or len(text) > cap_json.TEXT_MAX:
        raise LabctlError(
            "--override: the words are no plain line of text",
            hint=f"at most {cap_json.TEXT_MAX} characters, no line breaks, no colours",
        )
    return text.strip()


def _clocks(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _CLOCKS.fullmatch(text.strip())
    if not found or not (int(found[1]) in _MHZ and int(found[2]) in _MHZ and int(found[1]) <= int(found[2])):
        raise LabctlError(
            f"--lock-clocks: {text!r} is no range", hint="the lowest and the highest MHz, such as 210,1400"
        )
    return int(found[1]), int(found[2])


def _fleet(order: Order | None, words: Sequence[str], options: Options) -> int:
    """Show or order caps on hosts of the rack."""
    from labctl.cli import cap_view
    from labctl.fleet import cap_answers, cap_budget, caps, selection, sessions
    from labctl.inventory import load_rack
    from labctl.render import caps as declared

    rack = wiring.find_inventory(options.inventory)
    loaded = load_rack(rack)
    completion.remember(rack, (*loaded.host_data, *loaded.groups, *selection.card_names(loaded.rack)))
    targets = selection.choose(loaded, words)
    excess = None
    if order is None:
        plan = caps.Plan({target.host.name: caps.SHOW for target in targets})
    else:
        plan = caps.plan(order, targets)
        excess = cap_budget.excess(order, plan.cards, loaded.rack)
        if excess is not None and not order.override:
            raise LabctlError(excess.problems())
    chosen = {name: loaded.host_data[name] for name in plan.questions}
    sessions.require_enrolled(chosen)
    if order is not None:
        _confirm(order, targets, excess, options)
    with cap_view.Waiting(0 if options.as_json else len(chosen)) as waiting:
        answers = sessions.ask(
            chosen,
            lambda host: plan.questions[host],
            wiring.remote(),
            deadline_s=caps.DEADLINE_S,
            on_answer=waiting.on_answer,
        )
    hosts = []
    for target in targets:
        if target.host.name in answers:
            found = cap_answers.read(answers[target.host.name])
            if target.host.name in plan.whole:
                found = cap_answers.with_missing(found, declared.cards(target.host))
            hosts.append(_only(found, target) if order is None and target.named else found)
    return _tell(order, hosts, plan.left_out, as_json=options.as_json)


def _only(host: HostCaps, target: Target) -> HostCaps:
    """Return what a host said of the cards that were named, and the orders that last about those."""
    from labctl.domain.capping import same, same_address

    def is_about(one: Mapping[str, Any], uuid: str | None, pci: str | None) -> bool:
        return same(uuid, one.get("uuid")) or same_address(pci, one.get("pci"))

    wanted = tuple(
        card
        for card in host.cards
        if any(
            is_about(card, gpu.uuid, gpu.pci) or (gpu.slot is not None and gpu.slot == card.get("slot"))
            for gpu in target.gpus
        )
    )
    lasting, steps = (
        tuple(one for one in all_ if any(is_about(one, card.get("uuid"), card.get("pci")) for card in wanted))
        for all_ in (host.overrides, host.steps)
    )
    return replace(host, cards=wanted, overrides=lasting, steps=steps)


def _confirm(order: Order, targets: Sequence[Target], excess: Excess | None, options: Options) -> None:
    """Have a person who is there confirm what goes above a protecting cap or a limit.

    For a script its words alone do; what they take over a limit is said all the same.
    """
    from labctl.fleet import caps

    cards, meters = list(caps.raised(order, targets)), []
    if excess is not None:
        printer.show_problems((replace(one, hint="") for one in excess.problems()), severity="warning")
        meters = [line.meter.title for line in excess.lines]
    if not cards and not meters:
        return
    if options.yes or options.dry_run or options.as_json or not printer.can_ask():
        return
    above = [f"the cap that protects circuit or PSU on {', '.join(cards)}"] if cards else []
    above += [f"what {', '.join(meters)} can bear"] if meters else []
    if not printer.confirm(f"Go above {' and '.join(above)}?"):
        raise LabctlError("nothing was changed", code=ExitCode.INTERRUPTED)


def _local(order: Order | None, words: Sequence[str], *, as_json: bool) -> int:
    """Show or order caps on this machine."""
    from labctl.fleet import cap_answers, local

    if order is not None and not order.dry_run and not wiring.is_root():
        raise LabctlError("only root may change limits of cards", hint="the same again with sudo in front")
    document = local.order(order, tuple(words)) if order is not None else local.show()
    host = cap_answers.of_document(_LOCAL, document)
    return _tell(order, [host], (), as_json=as_json)


def _tell(order: Order | None, hosts: list[HostCaps], left_out: Sequence[str], *, as_json: bool) -> int:
    from labctl.cli import cap_view
    from labctl.fleet import cap_answers

    outcome = cap_answers.judge(hosts) if order is not None else cap_answers.judge_shown(hosts)
    if as_json:
        printer.emit_json(
            {
                "hosts": [host.as_json() for host in hosts],
                "left_out": list(left_out),
                "dry_run": order is not None and order.dry_run,
                "until": order.until if order is not None else None,
                "exit_code": int(outcome.code),
                "because": outcome.because,
            }
        )
        return outcome.code
    if order is None:
        cap_view.show_caps(hosts)
        return outcome.code
    cap_view.show_outcome(hosts, clocks=order.clocks_mhz is not None or order.reset)
    cap_view.say_left_out(left_out)
    _conclude(order, outcome, [host.host for host in hosts if host.forgets])
    return outcome.code


def _conclude(order: Order, outcome: Outcome, forgetful: Sequence[str]) -> None:
    from labctl.cli import cap_view

    tone = "green" if outcome.code is ExitCode.OK else "bold red"
    kind = "Dry run" if order.dry_run else "Result"
    printer.out(printer.style(f"{kind}: {printer.safe(outcome.because)}", tone))
    if order.dry_run or outcome.code not in (ExitCode.OK, ExitCode.PARTIAL) or order.reset:
        return
    if order.until is not None:
        printer.out(f"It holds until {cap_view.moment(order.until)}, over reboots too.")
    elif order.persist:
        printer.out("It holds over reboots and applies, until: labctl powercap --reset")
    else:
        printer.out("It holds until the next boot or apply; --persist keeps it, --until T for a time.")
    if order.lasts and forgetful:
        names = printer.safe(", ".join(forgetful))
        printer.out(
            f"But not on {names}, where it is not recorded: there it ends with the next boot or apply."
        )
