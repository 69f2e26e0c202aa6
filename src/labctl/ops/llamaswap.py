"""llama-swap: a configuration that the program itself took, in force, and nothing stopped without a word.

Hazards, each seen: llama-swap has no check of a configuration, so it is started with the new one for a
moment, as nobody, in a network of its own, without preloads. It reloads on SIGHUP, and then stops **all**
models, changed or not; the plan says which are loaded. A bad configuration is only logged, the old one
stays, and the API shows nothing of it; so after a reload the list of models and what is loaded are read
back and compared. Each listed model bears the digest of its configuration, by which one that was never
taken up is found, also by a later plan. A note below /run says that a reload is owed, from before the file
changes until it was seen; it names the run of the unit that it is for, since any later one has read the file.

An unchanged configuration is not touched, and no model is stopped.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyinfra import logger
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops import diff
from labctl.ops.command import Commands, Script, content_on_stdin, operation, text
from labctl.ops.facts import HASH, Look, PathInfo, look, look_command, parse_look
from labctl.ops.facts_systemd import Unit, UnitInfo
from labctl.ops.files import Wanted, absolute, full_unit_name
from labctl.ops.systemd import DIRECTORY

RELOADS = "/run/labctl/reload"
TRIAL_S = 60
# The old configuration may answer until requests in flight have ended, at most half a minute.
READ_BACK_S = 60


@dataclass(frozen=True, slots=True)
class Swap:
    """A llama-swap as it shall be.

    ``trial`` is the configuration without what would act, ``url`` where it answers on its own host. ``keys``
    are files of variables with the sha256 that each shall have, the one that clients' key is in first if
    ``keyed``. ``env`` are its other variables. ``listed``, ``digest`` and ``commands`` are what it must show.
    ``sleeps``: it has engines that outlive a reload, so it is restarted instead.
    """

    unit: str
    unit_content: str
    path: str
    content: str
    trial: str
    program: str
    url: str
    digest: str
    listed: tuple[str, ...]
    commands: Mapping[str, str]
    keys: tuple[tuple[str, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = False
    sleeps: bool = False

    @property
    def note(self) -> str:
        """Return the path of the note that a reload is owed."""
        return f"{RELOADS}/{full_unit_name(self.unit)}"

    @property
    def key_file(self) -> str:
        """Return the file that holds the key of clients, or "" where none is asked for."""
        return self.keys[0][0] if self.keyed else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a host says of a llama-swap; ``models`` and ``loaded`` are None where it does not answer."""

    file: PathInfo = field(default_factory=PathInfo)
    active: str = ""
    owed: bool = False
    models: Mapping[str, str] | None = None
    loaded: Mapping[str, tuple[str, str]] | None = None

    @property
    def states(self) -> str:
        """Return the loaded models with their states, for people; "" for none."""
        return ", ".join(f"{name} ({state})" for name, (state, _) in sorted((self.loaded or {}).items()))


class Live(FactBase[Seen]):
    """The configuration that lies on a host, whether a reload is owed, and what is served there."""

    @override
    @staticmethod
    def default() -> Seen:
        """Return that there is nothing."""
        return Seen()

    def command(self, unit: str, path: str, against: str, url: str, key_file: str) -> str:
        """Return the command; it never fails."""
        words = (
            "sh",
            "-c",
            text("llamaswap"),
            "labctl-llamaswap",
            "look",
            unit,
            f"{RELOADS}/{unit}",
            url,
            key_file,
        )
        return f"{look_command([Look(path, against)])}\n{shlex.join(words)} || true"

    @override
    def process(self, output: list[str]) -> Seen:
        """Read the file's line, then ``key value`` lines."""
        said = dict(line.partition(" ")[::2] for line in output[1:])
        try:
            live = json.loads(said.get("live", ""))
            models = {str(name): str(mark) for name, mark in live["models"].items()}
            loaded = {str(name): (str(one[0]), str(one[1])) for name, one in live["running"].items()}
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
            return Seen(parse_look(output[0]), said.get("active", ""), "owed" in said)
        return Seen(parse_look(output[0]), said.get("active", ""), "owed" in said, models, loaded)


def _ask(swap: Swap, against: str) -> Seen:
    unit = full_unit_name(swap.unit)
    seen: Seen = host.get_fact(
        Live, unit=unit, path=swap.path, against=against, url=swap.url, key_file=swap.key_file
    )
    return seen


def _wanted(swap: Swap) -> Wanted:
    return Wanted(absolute(swap.path), swap.content.encode())


@operation
def configured(swap: Swap) -> Commands:
    """Have this configuration at its path, if the program itself takes it; the old one stays otherwise."""
    wanted = _wanted(swap)
    (info,) = look(wanted.question())
    if info.kind == "file" and info.sha256 == wanted.sha256:
        host.noop(f"{swap.path} is as rendered")
        return
    notes = [f"is a symbolic link to {info.target}, which is replaced"] if info.kind == "link" else []
    old = None if info.kind != "file" else info.size if info.content is None else info.content
    diff.show(wanted.dest, old, wanted.content, notes=notes)
    words = [f"-pEnvironmentFile={path}" for path, _ in swap.keys]
    words += [f"--setenv={name}={value}" for name, value in sorted(swap.env.items())]
    trial = base64.b64encode(swap.trial.encode()).decode("ascii")
    stdin = f"{trial}\n{content_on_stdin(wanted.content)}"
    target = (wanted.dest, swap.note, swap.program, str(TRIAL_S))
    yield Script("llamaswap-put", *target, *words, stdin=stdin, timeout_s=TRIAL_S + 30)


@operation
def serving(swap: Swap) -> Commands:
    """Have a llama-swap serve the configuration at its path: reload it if need be, and look.

    Comes after the operation on its unit, whose start or restart takes the configuration up, too.
    """
    wanted, unit = _wanted(swap), full_unit_name(swap.unit)
    of_unit = Wanted(f"{DIRECTORY}/{unit}", swap.unit_content.encode())
    state: UnitInfo = host.get_fact(Unit, unit=unit, path=of_unit.dest, against=of_unit.question().against)
    seen = _ask(swap, wanted.question().against)
    act, reason = _act(swap, seen, state, of_unit)
    if not reason:
        host.noop(f"{unit} serves what was rendered")
        return
    verb = act or "restart"
    notes = [reason]
    if seen.states:
        told = f"the {verb} stops the loaded models: {seen.states}"
        notes.append(told)
        logger.warning(f"{host.name}: {unit}: {told}")
    diff.show(unit, b"", b"", notes=notes)
    want = {"listed": sorted(swap.listed), "digest": swap.digest, "commands": dict(swap.commands)}
    arguments = ("serve", unit, swap.note, swap.url, swap.key_file, act, str(READ_BACK_S))
    yield Script("llamaswap", *arguments, stdin=json.dumps(want), timeout_s=READ_BACK_S + 60)


def _act(swap: Swap, seen: Seen, state: UnitInfo, unit: Wanted) -> tuple[str, str]:
    """Return what is left to do ("" where the unit's own operation does it), and why; no reason: nothing."""
    read_again = "restart" if swap.sleeps else "reload"
    if not state.is_running:
        return "", "starts with its new configuration"
    if state.stale or state.needs_reload or state.file.kind != "file" or state.file.sha256 != unit.sha256:
        return "", "restarts, since its unit changed"
    looks = [Look(path, HASH) for path, _ in swap.keys]
    for info, (path, sha256) in zip(look(*looks) if looks else [], swap.keys, strict=True):
        if info.sha256 != sha256:
            return "", f"restarts, since {path.rpartition('/')[2]} changed"
    if seen.owed or seen.file.sha256 != _wanted(swap).sha256:
        return read_again, "its configuration changed"
    if seen.models is None:
        # Nothing is stopped on a doubt: it is asked again, and the run fails if it stays silent.
        return "", "it runs and did not answer"
    return (read_again, why) if (why := _differs(swap, seen.models)) else ("", "")


def _differs(swap: Swap, models: Mapping[str, Any]) -> str:
    if sorted(models) != sorted(swap.listed):
        return "it does not list the models that were rendered"
    strange = [mark for mark in models.values() if mark and mark != swap.digest]
    return "it serves another configuration than the one that lies there" if strange else ""
