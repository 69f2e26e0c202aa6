"""Who is logged in: over the network, and at the screen.

A session of logind says who; the connections to sshd say it once more, since a session may be missing: sshd
may be frozen, the other end half gone, PAM without logind. So each connection needs a session that explains
it, and one that has none is somebody.

Not counted is labctl itself: the sessions of the agent's own user (its key can do nothing else than ask), and
sessions of the operator in which nothing runs but the agent, which is how questions are asked. A session that
is closed but left processes behind counts: somebody left something to be done. So does what somebody who is
not logged in any more had their own service manager run, where it outlives the session.

Somebody who is logged in at the screen counts however long nothing was typed; the reason says how long. So
does typing where nobody is logged in yet, but for the first minute and a half after a boot: that a terminal
was touched then is what the program that asks for a name does to it.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from . import logind, processes
from .logind import Session
from .processes import Processes
from .sockets import Sockets, address
from .terms import AGENT_PATH, Host, Signal, Unreadable, Verdict, lasting, plain, read, times

_SSHD = ("sshd", "sshd-session", "sshd-auth")
_TYPED_WITHIN_S = 120.0
_BOOTS_S = 90.0
_CONSOLES = (*(f"tty{number}" for number in range(1, 7)), "ttyS0", "ttyS1", "ttyAMA0", "hvc0")


class Sessions(Signal):
    """Somebody is logged in by SSH."""

    name = "sessions"

    def __init__(self, host: Host, sockets: Sockets, running: Processes, ports: tuple[int, ...]) -> None:
        self._host = host
        self._sockets = sockets
        self._running = running
        self._ports = ports

    def look(self) -> Verdict:
        """Return busy where a session or a connection is not labctl's own."""
        ours: Counter[str] = Counter()
        questions: Counter[str] = Counter()
        sessions = logind.sessions(self._host.root)
        for session in sessions:
            if session.uid == self._host.agent_uid:
                ours[session.remote_host] += 1
            elif not session.is_persons or (not session.by_ssh and (session.seat or session.tty)):
                continue
            elif session.by_ssh and session.state != "closing" and self._asks(session):
                questions[session.remote_host] += 1
            else:
                return Verdict(True, self._who(session))
        here = {self._host.agent_uid, *(one.uid for one in sessions if one.is_persons)}
        for uid, pid in processes.left_with_managers(self._host.root):
            if uid not in here:
                name = processes.name_of(self._host.root, pid) or "something"
                return Verdict(True, plain(f"{self._user(uid)} is not logged in and left {name} running"))
        return self._unexplained(ours, questions)

    def _who(self, session: Session) -> str:
        place = f" from {session.remote_host}" if session.remote_host else ""
        if session.state != "closing":
            return plain(f"{session.user} is logged in{place}")
        left = [processes.name_of(self._host.root, pid) for pid in self._members(session)]
        names = ", ".join(sorted({name for name in left if name})) or "something"
        return plain(f"{session.user} logged out{place} and left {names} running")

    def _user(self, uid: int) -> str:
        for line in (read(self._host.root / "etc/passwd") or "").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(uid):
                return fields[0]
        return f"user {uid}"

    def _members(self, session: Session) -> list[int]:
        group = f"user.slice/user-{session.uid}.slice/{session.scope}"
        return (processes.members(self._host.root, group) or []) if session.scope else []

    def _asks(self, session: Session) -> bool:
        """Return whether nothing runs in a session but a question of labctl's."""
        asked = False
        for pid in self._members(session):
            words = processes.words_of(self._host.root, pid)
            if AGENT_PATH in words or (len(words) > 2 and words[1] == "-c" and f" {AGENT_PATH} " in words[2]):
                asked = True
            elif processes.name_of(self._host.root, pid) not in _SSHD and not processes.is_asking(
                self._host.root, pid
            ):
                return False
        return asked

    def _unexplained(self, ours: Counter[str], questions: Counter[str]) -> Verdict:
        own = self._own_connections()
        ports = {*self._ports, *(port for _, _, port in own)}
        there = [one for one in self._sockets.connections() if one.port in ports]
        known = Counter(one.there for one in there if (one.there, one.from_port, one.port) in own)
        for peer, count in Counter(one.there for one in there).items():
            more = count - max(known[peer], ours[peer]) - questions[peer]
            if more > 0:
                return Verdict(True, f"{times(more, 'SSH connection')} from {peer} without a session")
        return Verdict(False, "nobody is logged in by SSH")

    def _own_connections(self) -> set[tuple[str, int, int]]:
        """Return the connections that carry the agent's own processes: peer, its port, our port."""
        mine = {process.pid for process in self._running.all() if process.uid == self._host.agent_uid}
        pid = os.getpid()
        while pid > 1 and len(mine) < 10_000:
            mine.add(pid)
            pid = processes.parent_of(self._host.root, pid)
        found = set()
        for one in mine:
            words = processes.environment_of(self._host.root, one).get("SSH_CONNECTION", "").split()
            if len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                found.add((address(words[0]), int(words[1]), int(words[3])))
        return found


class Console(Signal):
    """Somebody is logged in at the screen or a serial line."""

    name = "console"

    def __init__(self, host: Host) -> None:
        self._host = host

    def look(self) -> Verdict:
        """Return busy where a person has a session there, or somebody has just typed."""
        for session in logind.sessions(self._host.root):
            if session.is_persons and not session.by_ssh and (session.seat or session.tty):
                place = session.tty or session.seat
                idle = self._idle_s(session.tty)
                since = f", idle for {lasting(idle)}" if idle is not None and idle >= 60 else ""
                return Verdict(True, plain(f"{session.user} is logged in at {place}{since}"))
        for tty in _CONSOLES:
            idle = self._idle_s(tty)
            if idle is not None and 0 <= idle < min(_TYPED_WITHIN_S, self._up_s() - _BOOTS_S):
                return Verdict(True, f"somebody typed at {tty} {lasting(idle)} ago")
        return Verdict(False, "nobody is at the console")

    def _up_s(self) -> float:
        """Return how long the host is up; where nobody knows, for ever."""
        up = (read(self._host.root / "proc/uptime") or "").partition(" ")[0]
        try:
            return float(up)
        except ValueError:
            return float("inf")

    def _idle_s(self, tty: str) -> float | None:
        """Return how long ago something was typed at a terminal, or None where that is not known."""
        if not tty or "/" in tty.replace("pts/", "", 1):
            return None
        try:
            return time.time() - (self._host.root / "dev" / tty).stat().st_atime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"/dev/{tty} cannot be looked at: {error.strerror}") from None


class Inhibitors(Signal):
    """A program keeps the host from sleeping."""

    name = "inhibitors"
    _AGAINST = ("sleep", "shutdown", "idle")

    def __init__(self, host: Host) -> None:
        self._host = host

    def look(self) -> Verdict:
        """Return busy where somebody else than labctl blocks; a delay only delays."""
        for one in logind.inhibitors(self._host.root):
            what = [kind for kind in one.what if kind in self._AGAINST]
            if not what or not one.mode.startswith("block") or one.who.startswith(AGENT_WHO):
                continue
            why = f": {one.why}" if one.why else ""
            return Verdict(True, plain(f"{one.who or f'process {one.pid}'} blocks {', '.join(what)}{why}"))
        return Verdict(False, "nothing blocks sleep")


AGENT_WHO = "labctl-agent"
"""Name by which an inhibitor of the agent's own is known."""
