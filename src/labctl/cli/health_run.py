"""What ``labctl health`` acts through: the rack, the controller's word, hosts over SSH, files, and notifiers.

On the controller's host the rack is data (``inventory.data``), hosts are asked with a key that opens the
agent's door alone, and the files lie below ``inventory.health.HOME``. Everywhere else it is the operator's
rack file and key, and files lie among labctl's own state.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labctl import wiring
from labctl.cli import asking, completion, notifiers, printer
from labctl.cli.asking import Aim
from labctl.domain.failures import Failure
from labctl.domain.health.results import Finding, Findings, document_of, results_of
from labctl.domain.health.terms import Level
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from labctl.health.looking import Looked, Memory, Told
    from labctl.inventory import Health, LoadedRack

_SPARE = Path("/run/labctl-health")
_RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Desk:
    """One rack, the hosts that are meant, and where things lie; ``deployed``: on the controller's host."""

    loaded: LoadedRack
    hosts: tuple[str, ...]
    deployed: bool
    folder: Path

    def look(self, deadline_s: float) -> Findings:
        """Look once, for somebody who asks; tells nobody.

        Raises:
            KeyboardInterrupt: it was ended before all had answered.
        """
        from labctl.adapters.keepsake import Keepsake, alone
        from labctl.health import memory
        from labctl.health.looking import Memory

        looks = Keepsake(self.folder, None, "looks.json")
        with suppress(OSError), alone(self.folder / "lock") as mine:
            before = memory.looks_of(looks)
            looked = self._look(before, deadline_s)
            if mine:
                with suppress(OSError):  # it only helps
                    looks.save(memory.looks_shown(looked.memory))
            return self._dated(looked)
        return self._dated(self._look(Memory(), deadline_s))

    def cron(self, deadline_s: float) -> Level:
        """Do a whole run; where another one is under way, say so and return what was known last.

        Raises:
            LabctlError: what earlier runs left cannot be used.
        """
        from labctl.adapters.keepsake import alone
        from labctl.health import running

        cron = self._cron()
        couriers = [way.courier for way in cron.ways.values()]
        unusable = [one for one in couriers if isinstance(one, notifiers.Unusable)]
        for one in unusable:
            printer.show_problems(one.problems)
        try:
            with alone(self.folder / "lock") as mine:
                if mine:
                    level = running.run(cron, lambda before: self._look(before, deadline_s))
                    return Level.UNKNOWN if unusable else level
        except OSError as error:
            raise LabctlError(
                f"{error.filename or self.folder}: {error.strerror}", hint="is it of another user?"
            ) from None
        printer.err("another run of labctl health is still under way; this one looked at nothing")
        known = self._published()
        return Level.UNKNOWN if known is None else known.level

    def test_notify(self) -> dict[str, str]:
        """Send a letter by every notifier; return for each what went wrong, empty: nothing.

        Raises:
            LabctlError: the rack file names none.
        """
        import uuid

        from labctl.domain.health.terms import Level
        from labctl.ports.letters import CourierError, Letter

        text = "A test of labctl health; nothing is wrong."
        letter = Letter(uuid.uuid4().hex[:24], f"{self.loaded.rack.name}: test", text, Level.OK, well=True)
        ways = self._ways()
        if not ways:
            raise LabctlError(
                "the rack file names no notifier",
                hint="Rack(health=Health(notify=[...])), see docs/alerts.md",
            )
        failures = {}
        for name, way in ways.items():
            try:
                way.courier.send(letter)
                failures[name] = ""
            except CourierError as error:
                failures[name] = error.reason
        return failures

    def _look(self, before: Memory, deadline_s: float) -> Looked:
        from labctl.health import looking, rules

        judging, wanted = rules.of(self.loaded, self.hosts)

        def ask(hosts: Sequence[str]) -> Mapping[str, Mapping[str, Any] | Failure]:
            return _ask(self.loaded, hosts, deadline_s, deployed=self.deployed)

        wall = _wall()
        return looking.look(wanted, lambda: self._told(deadline_s), ask, judging, before, wall)

    def _told(self, deadline_s: float) -> Told:
        """Return what the controller says; one that hangs has said nothing within the deadline."""
        from threading import Thread

        from labctl.health.looking import Told

        late = f"it did not answer within {deadline_s:g} s"
        told = [Told(declared=True, away=late)]
        asker = Thread(target=lambda: told.append(self._asked()), daemon=True, name="ask the controller")
        asker.start()
        asker.join(deadline_s)
        return told[-1]

    def _asked(self) -> Told:
        from labctl.health.looking import Told

        if self.loaded.rack.controller is None:
            return Told()
        if self.deployed and not wiring.controller_is_here():
            return Told(declared=True, away=f"nothing listens at {wiring.controller_socket()}")
        try:
            with asking.controller(Aim(self.loaded, self.hosts)) as controller:
                return Told(declared=True, status=controller.tell("status"))
        except LabctlError as error:
            return Told(declared=True, away=asking.text(error.problems[0].reason))

    def _dated(self, looked: Looked) -> Findings:
        """Return what was found, with the times that the last whole run knows."""
        known = self._published()
        since = (
            {} if known is None else {(one.result.key, one.result.level): one.since for one in known.findings}
        )
        found = (Finding(one, since.get((one.key, one.level), looked.at)) for one in looked.results)
        return Findings(looked.at, tuple(found))

    def _published(self) -> Findings | None:
        import json

        try:
            return results_of(json.loads((self.folder / _RESULTS).read_bytes()))
        except (OSError, ValueError, RecursionError):
            return None

    def _cron(self) -> Any:
        from labctl.adapters.keepsake import Keepsake
        from labctl.domain.health.flaps import Policy
        from labctl.health.running import Cron

        wanted = self._wanted()
        spare = _SPARE if self.deployed else None
        ping = None
        if wanted.ping is not None:
            try:
                ping = (notifiers.dead_man(wanted.ping, self.loaded.folder), wanted.ping_fail)
            except LabctlError as error:  # whoever misses it tells somebody
                printer.show_problems(error.problems)
        return Cron(
            rack=self.loaded.rack.name,
            policy=Policy(wanted.looks, wanted.remind.total_seconds()),
            state=Keepsake(self.folder, spare, "state.json"),
            looks=Keepsake(self.folder, None, "looks.json"),
            publish=lambda found: self._publish(found, wanted.textfile),
            ways=self._ways(),
            ping=ping,
            wall=_wall(),
            say=lambda words: printer.out(printer.safe(words)),
            warn=lambda words: printer.err(printer.safe(words)),
        )

    def _publish(self, found: Findings, textfile: str | None) -> None:
        import json

        from labctl.adapters.keepsake import replace

        data = json.dumps(document_of(found), separators=(",", ":")).encode()
        replace(self.folder / _RESULTS, data, 0o644)
        if textfile is not None:
            _expose(textfile, found)

    def _ways(self) -> dict[str, Any]:
        from labctl.health.sending import Way

        return {
            one.name: Way(notifiers.courier(one, self.loaded.folder), one.least)
            for one in self._wanted().notify
        }

    def _wanted(self) -> Health:
        from labctl.inventory import Health

        return self.loaded.rack.health or Health()


def desk(inventory: str | None, words: Sequence[str]) -> Desk:
    """Return the rack that is meant, and its hosts that the words name (none: all of them).

    Raises:
        LabctlError: it cannot be found or read, or a name fits no host.
    """
    from labctl.controller.api import PROGRAM
    from labctl.domain import limits
    from labctl.inventory import load_rack
    from labctl.inventory.data import load_data
    from labctl.inventory.health import HOME, USER

    path = wiring.find_inventory(inventory)
    deployed = path.suffix == ".json"
    loaded = load_data(path) if deployed else load_rack(path)
    chosen = limits.select(tuple(loaded.host_data), loaded.groups, words)
    if not deployed:
        completion.remember(path, (*loaded.host_data, *loaded.groups))
    home = Path(HOME) if deployed else wiring.state_home() / "health" / loaded.rack.name
    if deployed and wiring.is_root() and home.is_dir() and home.stat().st_uid != 0:
        # What root left there, its own user could not read any more, and would tell nobody anything.
        program = " ".join(PROGRAM)
        raise LabctlError(
            f"{home} is not root's", hint=f"runuser -u {USER} -- {program} health --inventory {path}"
        )
    if not deployed:
        with suppress(LabctlError):  # a look needs no memory, and a run of --cron says what it lacks
            wiring.private_dir(home)
    return Desk(loaded, chosen, deployed, home)


def write_exposition(path: str, found: Findings) -> None:
    """Write findings for node_exporter's textfile collector, at once or not at all; ``-`` prints them.

    Raises:
        LabctlError: the file cannot be written.
    """
    try:
        _expose(path, found)
    except OSError as error:
        raise LabctlError(f"{path}: cannot be written: {error.strerror}") from None


def _expose(path: str, found: Findings) -> None:
    from labctl.adapters.keepsake import replace
    from labctl.domain.health.formats import exposition

    text = exposition(found.findings, found.at)
    if path == "-":
        printer.out(text.rstrip())
        return
    place = Path(os.path.realpath(path))  # where a link leads, which stays
    if place.exists() and not place.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    replace(place, text.encode(), 0o644)


def _wall() -> Callable[[], float]:
    clock = wiring.clock()
    return lambda: clock.now().timestamp()


def _ask(
    loaded: LoadedRack, hosts: Sequence[str], deadline_s: float, *, deployed: bool
) -> Mapping[str, Mapping[str, Any] | Failure]:
    """Ask hosts for their health documents; Ctrl-C ends it.

    Raises:
        KeyboardInterrupt: it was ended.
    """
    from labctl.fleet import reports, sessions
    from labctl.inventory.controlling import agent_data
    from labctl.render.agent_bundle import PATH as AGENT_PATH

    data = {name: loaded.host_data[name] for name in hosts}
    if deployed:
        data = {name: agent_data(one, loaded.folder) for name, one in data.items()}
    question = sessions.Question((AGENT_PATH, "health"), root=not deployed)
    answers = sessions.ask(data, question, wiring.remote(), deadline_s=deadline_s)
    found = {name: reports.document_of(answer) for name, answer in answers.items()}
    if any(isinstance(one, Failure) and one.code == sessions.INTERRUPTED for one in found.values()):
        raise KeyboardInterrupt
    return found
