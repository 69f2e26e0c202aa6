"""The agent's door: a fixed table of orders, and no other way in.

An order is a verb and flags out of the table, in lower-case ASCII, single spaces between. It is matched as
a whole before anything is looked at in part, so quotes, separators, redirections, newlines, other alphabets
and paths have no meaning to refuse: they simply are no order. No shell ever sees it. What is refused ends
with 126 and one line, which does not repeat what was asked: who reads logs should not read a stranger's text.

The controller's key may ask for a part of the table only. What changes a host's caps by somebody's numbers
(``caps --order``, JSON on standard input) is the operator's, by sudo: a stolen controller's key can at most
lower caps for a while (``caps --step``) and put them back to what the inventory wants. Verbs for root, asked
for at the door, the agent asks of itself by ``sudo -n`` with exactly the command line that sudoers names.
``sleep``, which does what ``suspend`` agreed on, is systemd's alone to start: no key opens it, and by hand it
only obeys an order that root wrote down.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .. import __version__

FAILED = 1
REFUSED = 126
BAD_USAGE = 2
DEADLINE_S = 10.0
SUDO = "/usr/bin/sudo"
AGENT = "/usr/local/lib/labctl/agent.pyz"
_MAX_LENGTH = 100
_SHAPE = re.compile(r"[a-z]+(?: --[a-z]+)*", re.ASCII)


class Order(NamedTuple):
    """A verb that may be asked for, the flags that it takes, and what does it.

    ``run`` gives the text to print (None: it speaks for itself) and the exit status. ``inside`` are flags
    that the controller's key does not open, and a verb that is ``inner`` it does not open at all;
    ``exclusive`` flags are alone, of ``choice`` ones there must be one; of a verb ``as_root`` the door asks
    sudo.
    """

    flags: frozenset[str]
    run: Callable[[frozenset[str]], tuple[str | None, int]]
    help: str
    inside: frozenset[str] = frozenset()
    exclusive: bool = False
    as_root: bool = False
    choice: bool = False
    inner: bool = False


def _report(flags: frozenset[str]) -> tuple[str, int]:
    if "--watch" in flags:
        from . import watch

        watch.watch()
    from . import report  # only when asked: a refusal should cost nothing

    return report.as_json(report.collect(DEADLINE_S), pretty="--pretty" in flags), 0


def _signals(flags: frozenset[str]) -> tuple[str, int]:
    from . import looking

    return looking.crontabs() if "--crontabs" in flags else looking.once()


def _version(flags: frozenset[str]) -> tuple[str, int]:
    return f"labctl-agent {__version__}", 0


def _caps(flags: frozenset[str]) -> tuple[str, int]:
    from . import caps, orders

    if "--order" in flags:
        answer = orders.answered(sys.stdin.buffer)
    elif "--step" in flags:
        from . import capsteps

        answer = orders.answered(sys.stdin.buffer, capsteps.step)
    elif "--show" in flags:
        answer = caps.show()
    else:
        answer = caps.apply()
        # For the journal of the unit, which people read; the answer itself is one long line.
        sys.stderr.writelines(f"{line}\n" for line in caps.complaints(answer))
    return json.dumps(answer), caps.exit_code(answer)


def _relay(flags: frozenset[str]) -> tuple[str, int]:
    from . import relay

    answer = relay.answered(sys.stdin.fileno())
    return json.dumps(answer), 0 if "sent" in answer else 1


def _health(flags: frozenset[str]) -> tuple[str, int]:
    from . import health, report

    return report.as_json(health.collect()), 0


def _suspend(flags: frozenset[str]) -> tuple[None, int]:
    from . import suspend

    return None, suspend.converse(sys.stdin.buffer, lambda line: _say(json.dumps(line)))


def _sleep(flags: frozenset[str]) -> tuple[None, int]:
    from . import sleeper, sleepfiles

    if "--over" in flags:
        return None, sleeper.over()
    return None, sleeper.obey(path=sleepfiles.UNLOAD if "--unload" in flags else sleepfiles.ORDER)


def _gate(flags: frozenset[str]) -> tuple[str, int]:
    from . import gate

    answer = gate.passed()
    return json.dumps(answer), 1 if answer["broken"] else 0


def _mend(flags: frozenset[str]) -> tuple[str, int]:
    from . import mend

    answer = mend.mended(next(iter(flags)).lstrip("-"))
    return json.dumps(answer), 0 if answer["ok"] else 1


ORDERS: dict[str, Order] = {
    "report": Order(
        frozenset({"--pretty", "--watch"}),
        _report,
        "print what this host is and how it is, as JSON; or say again and again whether it is in use",
        exclusive=True,
    ),
    "signals": Order(
        frozenset({"--crontabs"}),
        _signals,
        "print what counts as use of this host now; or when the users' crontabs run something",
        inner=True,
    ),
    "caps": Order(
        frozenset({"--show", "--order", "--step"}),
        _caps,
        "give each card its cap; or show what that would be; or do an order, or step down (JSON on stdin)",
        inside=frozenset({"--order"}),
        exclusive=True,
        as_root=True,
    ),
    "relay": Order(frozenset(), _relay, "send a magic packet into a network of this host (JSON on stdin)"),
    "suspend": Order(
        frozenset(), _suspend, "put this host to sleep, if nothing is against it (JSON lines)", as_root=True
    ),
    "health": Order(
        frozenset(), _health, "print all that this host can say of its health, as JSON", as_root=True
    ),
    "gate": Order(frozenset(), _gate, "look whether everything works after a wake, as JSON", as_root=True),
    "mend": Order(
        frozenset({"--engines", "--driver", "--reboot"}),
        _mend,
        "restart the engines; or reload the driver's part for computing; or reboot",
        exclusive=True,
        as_root=True,
        choice=True,
    ),
    "sleep": Order(
        frozenset({"--over", "--unload"}),
        _sleep,
        "do what suspend agreed on; systemd starts it",
        exclusive=True,
        inner=True,
    ),
    "version": Order(frozenset(), _version, "print the agent's version"),
}


class Refusal(Exception):
    """What was asked for is not in the table."""


def parse(line: str, *, forced: bool = False) -> tuple[Order, frozenset[str]]:
    """Return the order that the line is, with its flags.

    Args:
        line: verb and flags.
        forced: it comes from the controller's key.

    Raises:
        Refusal: it is none.
    """
    if len(line) > _MAX_LENGTH or not _SHAPE.fullmatch(line):
        raise Refusal
    verb, *flags = line.split(" ")
    order = ORDERS.get(verb)
    if order is None or not order.flags.issuperset(flags) or len(set(flags)) != len(flags):
        raise Refusal
    if (forced and (order.inner or order.inside & set(flags))) or (order.exclusive and len(flags) > 1):
        raise Refusal
    if order.choice and not flags:
        raise Refusal
    return order, frozenset(flags)


def usage() -> str:
    """Return the table of orders for a person."""
    lines = ["labctl-agent: what labctl runs on this host. It does one of these:"]
    for verb, order in ORDERS.items():
        words = " ".join([verb, *(f"[{flag}]" for flag in sorted(order.flags))])
        lines.append(f"  {words:<20} {order.help}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line, or with ``--forced`` the other end of the SSH session, asks for."""
    args: list[str] = list(sys.argv[1:] if argv is None else argv)
    forced = args[:1] == ["--forced"]
    if not forced and args in ([], ["-h"], ["--help"]):
        _say(usage())
        return 0
    if not forced and args == ["--version"]:
        args = ["version"]
    line = os.environ.get("SSH_ORIGINAL_COMMAND", "") if args == ["--forced"] else " ".join(args)
    try:
        order, flags = parse(line, forced=forced)
    except Refusal:
        known = ", ".join(verb for verb, order in ORDERS.items() if not order.inner)
        sys.stderr.write(
            f"labctl-agent: refused: this key may ask for: {known}\n" if forced else usage() + "\n"
        )
        return REFUSED if forced else BAD_USAGE
    if forced and order.as_root and os.geteuid() != 0:
        # This process becomes sudo's: what is said and how it ended is the agent's own, run as root.
        return _become_root(line)
    try:
        text, status = order.run(flags)
    except OSError as error:
        # Such as a full disk: what is known of it is all in the error.
        sys.stderr.write(f"labctl-agent: {line.partition(' ')[0]}: {error}\n")
        return FAILED
    if text is not None:
        _say(text)
    return status


def _become_root(line: str) -> int:
    """Become sudo, which runs the same line as root; return only where there is none."""
    try:
        os.execv(SUDO, [SUDO, "-n", AGENT, *line.split(" ")])
    except OSError as error:
        sys.stderr.write(f"labctl-agent: {SUDO} cannot be run ({error.strerror}): run labctl apply\n")
    return FAILED


def _say(text: str) -> None:
    """Write the answer; a caller that went away is no concern of ours."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
