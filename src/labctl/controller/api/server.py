"""Keep the door: take connections on a unix socket, check who is there, hear requests, say answers.

Nobody can hold up anybody else. Each client has a thread of its own; a line must be whole ``LINE_S`` after
its first byte, an answer must be taken within ``SEND_S``, a client that says nothing is let go after
``IDLE_S``, and there are bounds for all clients and for those of one user, root's share being kept free.
Who may not come in is told so before a thread is spent on him.

Whatever the bytes, a request is answered by lines of which the last is ``done`` or one ``error``. A fault of
ours is such an error too ("internal"); its traceback goes to the log and never to a client.

One process keeps a socket: it holds a lock beside it, which dies with it, so a socket file that is there when
the lock is free is stale and is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.controller.api import LONGEST_LINE, VERSION, words
from labctl.controller.api.peers import Allowed, Peer, peer_of
from labctl.controller.api.words import Request, SaidError
from labctl.domain.problem import LabctlError
from labctl.ports.store import StoreError

MOST_CLIENTS = 64
MOST_OF_A_USER = 32
LINE_S = 10.0
SEND_S = 10.0
IDLE_S = 120.0
_BACKLOG = 64
_CHUNK = 16384
_FULL_S = 0.2
_STOP_S = 10.0

Gone = Callable[[float], bool]
"""Waits up to so many seconds, and says whether the client hung up or the server stops."""

Answer = Callable[[Request, Peer, Gone], Iterator[Mapping[str, Any]]]
"""Carries a request out: yields its lines, of which the last has ``done``; raises ``SaidError``."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a server needs: where, for whom, what it says first, and where faults of ours are told."""

    path: Path
    allowed: Allowed
    greeting: Mapping[str, Any]
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many clients, and how long each may take, in seconds; for tests smaller than what is usual."""

    clients: int = MOST_CLIENTS
    of_a_user: int = MOST_OF_A_USER
    line_s: float = LINE_S
    send_s: float = SEND_S
    idle_s: float = IDLE_S


class Server:
    """The door, open from ``start`` to ``stop``; both may be called from any thread."""

    def __init__(self, door: Door, answer: Answer, bounds: Bounds | None = None) -> None:
        self._door = door
        self._answer = answer
        self._bounds = bounds or Bounds()
        self._guard = threading.Lock()
        self._clients: dict[socket.socket, Peer] = {}
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._waker, self._woken = os.pipe()
        self._listener: socket.socket | None = None
        self._lock: int | None = None

    def start(self) -> None:
        """Open the door.

        Raises:
            LabctlError: another controller keeps it, or the place cannot be used.
        """
        try:
            self._lock = _take(self._door.path)
            self._listener = _listen(self._door.path)
        except OSError as error:
            raise LabctlError(
                f"{self._door.path}: the controller cannot listen there: {error.strerror or error}",
                hint="its folder must be there and belong to the user that runs the controller",
            ) from error
        thread = threading.Thread(target=self._accept, name="control api", daemon=True)
        self._threads.add(thread)
        thread.start()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the door and every connection; wait for the threads. Harmless when done twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        os.close(self._woken)
        with self._guard:
            for sock in self._clients:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            threads = set(self._threads)
        for thread in threads - {threading.current_thread()}:
            thread.join(_STOP_S)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                self._door.path.unlink()
        if self._lock is not None:
            os.close(self._lock)
        os.close(self._waker)

    # -- connections

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stopping.is_set():
            ready, _, _ = select.select([self._listener.fileno(), self._waker], [], [])
            if self._waker in ready:
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                continue  # it went away in between
            except OSError:
                self._stopping.wait(_FULL_S)  # no descriptors are left: those who are here will go
                continue
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        """Give a client its thread, or say why not; never waits."""
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return
        refusal = self._refusal(peer)
        if refusal is not None:
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.send(words.encode(words.error(refusal)))
            sock.close()
            return
        thread = threading.Thread(target=self._client, args=(sock, peer), name="control client", daemon=True)
        with self._guard:
            if self._stopping.is_set():
                sock.close()
                return
            try:
                thread.start()
            except RuntimeError:  # no more threads are to be had: this one goes, the door stays open
                sock.close()
                return
            self._clients[sock] = peer
            self._threads = {one for one in self._threads if one.is_alive()} | {thread}

    def _refusal(self, peer: Peer) -> SaidError | None:
        if peer not in self._door.allowed:
            return _not_allowed(peer, "may give no orders to this controller")
        with self._guard:
            total = len(self._clients)
            own = sum(one.uid == peer.uid for one in self._clients.values())
        full = total >= self._bounds.clients or (peer.uid != 0 and own >= self._bounds.of_a_user)
        return SaidError("busy", f"{total} clients are connected already", "try again") if full else None

    def _client(self, sock: socket.socket, peer: Peer) -> None:
        line = _Line(sock, self._bounds, self._waker)
        try:
            line.say(self._door.greeting)
            while (said := line.hear()) is not None:
                if not self._attend(line, peer, said):
                    return
        except SaidError as refusal:
            with contextlib.suppress(OSError):
                line.say(words.error(refusal))
        except OSError:
            return  # it hung up, or took no answer in time
        finally:
            with self._guard:
                self._clients.pop(sock, None)
            sock.close()

    def _attend(self, line: _Line, peer: Peer, said: bytes) -> bool:
        """Answer one request; return whether the connection goes on."""
        last: Mapping[str, Any] = {}
        with contextlib.closing(self._answers(line, peer, said)) as answers:
            for last in answers:
                line.say(last)
        return last.get("error", {}).get("code") not in words.FATAL and not self._stopping.is_set()

    def _answers(self, line: _Line, peer: Peer, said: bytes) -> Generator[Mapping[str, Any]]:
        """Yield what answers a request; whatever goes wrong is the last of it."""
        try:
            request = words.request(said)
            if refused := self._door.allowed.refusal(peer, request.do, request.fields):
                raise _not_allowed(peer, refused)
            yield from self._answer(request, peer, self._gone_from(line))
        except SaidError as refusal:
            yield words.error(refusal)
        except Exception as fault:
            yield words.error(self._excuse(fault))

    def _excuse(self, fault: Exception) -> SaidError:
        if isinstance(fault, LabctlError):
            first = fault.problems[0]
            code = "store" if isinstance(fault, StoreError) else "refused"
            return SaidError(code, first.reason, first.hint)
        self._door.log("control api: " + "".join(traceback.format_exception(fault)))
        kind = type(fault).__name__
        return SaidError("internal", f"this is a bug in labctl: {kind}", "the controller's log says more")

    def _gone_from(self, line: _Line) -> Gone:
        return lambda wait_s: self._stopping.is_set() or line.hung_up(wait_s) or self._stopping.is_set()


class _Line:
    """One connection: whole lines in, whole lines out, each with its deadline."""

    def __init__(self, sock: socket.socket, bounds: Bounds, waker: int) -> None:
        self._sock = sock
        self._bounds = bounds
        self._waker = waker
        self._rest = bytearray()

    def say(self, said: Mapping[str, Any]) -> None:
        """Send a line; raise ``OSError`` if it is not taken in time."""
        self._sock.settimeout(self._bounds.send_s)
        self._sock.sendall(words.encode(said))

    def hear(self) -> bytes | None:
        """Return the next line, or None when the client has no more to say.

        Raises:
            SaidError: it is too long or takes too long.
        """
        begun = time.monotonic()
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) >= LONGEST_LINE:
                raise SaidError("too-long", f"a request has at most {LONGEST_LINE} bytes")
            patience = self._bounds.line_s if self._rest else self._bounds.idle_s
            self._sock.settimeout(max(0.001, begun + patience - time.monotonic()))
            try:
                chunk = self._sock.recv(_CHUNK)
            except TimeoutError:
                raise SaidError("too-slow", "nothing more was said in time") from None
            if not chunk:
                return None  # what was begun is no request
            if not self._rest:
                begun = time.monotonic()
            self._rest += chunk
        found = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return found

    def hung_up(self, wait_s: float) -> bool:
        """Wait up to ``wait_s`` seconds for the client to hang up; return whether it did.

        One that only has no more to say (``shutdown``) still listens.
        """
        poll = select.poll()
        poll.register(self._sock, 0)
        poll.register(self._waker, 0)
        return bool(poll.poll(max(0.0, wait_s) * 1000))


def _not_allowed(peer: Peer, what: str) -> SaidError:
    hint = "use root, or name the user in Controller(operators=...) of the rack file"
    return SaidError("not-allowed", f"{peer.user} {what}", hint)


def _take(path: Path) -> int:
    """Return a descriptor that holds the socket's lock; it ends with the process."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LabctlError(
            f"another controller listens on {path}", hint="look with: systemctl status labctl-controller"
        ) from None
    return lock


def _listen(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LabctlError(f"{path} is there and is no socket", hint="remove it, then start again")
        path.unlink()  # we have the lock, so whoever made it is gone
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        # Everybody may knock: who may not come in gets a clear word instead of "permission denied".
        path.chmod(0o666)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def greeting(rack: str, version: str) -> dict[str, Any]:
    """Return the first line of every connection."""
    return {"v": VERSION, "rack": rack, "labctl": version}
