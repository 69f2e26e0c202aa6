"""Get one file: from another host part by part, or from its addresses, the first that gives the right one.

Every part that was checked is handed on at once. How it ended is said in one of four words, by which the
operator's side decides what happens next:

- ``done``: the file is in its place and vouched for.
- ``stuck``: whoever was to give it did not; what came is kept, and somebody else may go on.
- ``wrong``: all of it came, and it is another file; it was thrown away.
- ``failed``: this host cannot have it, whoever gives it (a full disk, a folder that is not safe).
"""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from labctl.weights.host.incoming import CHUNK, HostFault, Incoming, Part
from labctl.weights.host.shelf import DIGEST_BYTES, Held, Shelf
from labctl.weights.host.source import Source, SourceError

CONNECT_S = 5.0
SILENCE_S = 30.0
_TRIES = 3
Say = Callable[..., None]


class CancelledError(Exception):
    """The operator's side wants nothing more of this file now."""


class StuckError(Exception):
    """Whoever was to give the file did not."""


@dataclass
class Fetch:
    """One file on its way to this host; lives over several suppliers."""

    file: str
    incoming: Incoming
    shelf: Shelf
    say: Say
    cancelled: threading.Event = field(default_factory=threading.Event)
    part: Part | None = None
    checking: int = 0
    order: int = 0

    @property
    def there(self) -> int:
        """Return how many bytes are here, those of an unfinished part included."""
        part = self.part
        return max(self.checking, self.incoming.there + (part.filled if part is not None else 0))

    def run(self, order: dict[str, Any]) -> None:
        """Get the file as ordered, and say how that ended."""
        self.order = order["order"]
        try:
            if self.incoming.fileno() < 0:
                self.incoming.open(self._checked)
                self.checking = 0
            if self.incoming.size is not None:
                self._begin()
            if "supplier" in order:
                self._from_host(order["supplier"])
            else:
                self._from_addresses(order["urls"], order.get("token", ""))
        except CancelledError:
            return
        except HostFault as fault:
            self._end()
            self.say("failed", file=self.file, code=fault.code, reason=str(fault))
        except StuckError as error:
            self.say("stuck", file=self.file, order=self.order, reason=str(error), there=self.incoming.there)
        except OSError as error:
            self._end()
            self.say("failed", file=self.file, code="op-failed", reason=str(error))
        finally:
            self.part = None

    def _checked(self, there: int) -> None:
        self.checking = there
        if self.cancelled.is_set():
            raise CancelledError

    def _begin(self) -> None:
        """Look for room, and hand on what is here."""
        self.incoming.require_room()
        size = self.incoming.size
        assert size is not None
        descriptor = os.dup(self.incoming.fileno())
        self.shelf.put(self.incoming.sha256, Held(descriptor, size, self.incoming.digests, whole=False))
        self.say("begun", file=self.file, order=self.order, size=size, there=self.incoming.there)

    def drop(self) -> None:
        """Throw away what came."""
        self.shelf.take_away(self.incoming.sha256)
        if self.incoming.fileno() >= 0:
            self.incoming.restart()
        self._end()

    def _end(self) -> None:
        self.shelf.take_away(self.incoming.sha256)
        self.incoming.close()

    def _done(self) -> None:
        incoming = self.incoming
        incoming.commit()
        assert incoming.size is not None
        descriptor = os.open(incoming.path, os.O_RDONLY | os.O_CLOEXEC)
        self.shelf.put(incoming.sha256, Held(descriptor, incoming.size, incoming.digests, whole=True))
        incoming.close()
        self.say("done", file=self.file, size=incoming.size)

    def _fill(self, part: Part, read: Callable[[int], bytes], expected: Callable[[], bytes | None]) -> bool:
        """Fill a part and keep it; return False where it is another than was expected, or was cut."""
        self.part = part
        try:
            while part.missing:
                if self.cancelled.is_set():
                    raise CancelledError
                chunk = read(min(CHUNK, part.missing))
                if not chunk:
                    part.drop()
                    return False
                part.add(chunk)
            if not part.keep(expected()):
                return False
        except (OSError, http.client.HTTPException, SourceError, CancelledError):
            part.drop()
            raise
        finally:
            self.part = None
        self.shelf.grew(self.incoming.sha256, self.incoming.digests[-1])
        return True

    # --- from another host ---

    def _from_host(self, supplier: dict[str, Any]) -> None:
        incoming, tries = self.incoming, 0
        name = supplier["name"]
        while incoming.there < (incoming.size or 0):
            index = len(incoming.digests)
            try:
                connection = _connect(supplier["places"])
                try:
                    while incoming.there < (incoming.size or 0):
                        index = len(incoming.digests)
                        if self._one_part(connection, name, index, supplier["key"]):
                            tries = 0
                finally:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                tries += 1
                if tries == _TRIES - 1:
                    why = str(error) or type(error).__name__
                    raise StuckError(f"{name} gave no part {index} of it: {why}") from None
        if not incoming.is_right():
            self._wrong(f"what {name} gave is another file than sha256 {incoming.sha256}")
            return
        self._done()

    def _one_part(self, connection: http.client.HTTPConnection, name: str, index: int, key: str) -> bool:
        """Get one part; return False where it is not there yet."""
        if self.cancelled.is_set():
            raise CancelledError
        headers = {"Authorization": f"Bearer {key}"}
        connection.request("GET", f"/{self.incoming.sha256}/{index}", headers=headers)
        answer = connection.getresponse()
        if answer.status == 503:
            answer.read()
            return False
        if answer.status != 200:
            raise StuckError(f"{name} answered {answer.status} for part {index}")
        part = self.incoming.part()
        if answer.length != part.length + DIGEST_BYTES:
            raise StuckError(f"{name} has another size of it than {self.incoming.size} bytes")
        if not self._fill(part, answer.read, lambda: answer.read(DIGEST_BYTES)):
            raise OSError(f"part {index} came damaged or was cut")
        return True

    def _wrong(self, reason: str) -> None:
        self.drop()
        self.say("wrong", file=self.file, order=self.order, reason=reason)

    # --- from an address ---

    def _from_addresses(self, urls: list[str], token: str) -> None:
        notes: list[str] = []
        refused = False
        for url in urls:
            own = url == urls[-1]
            refused = False
            try:
                if self._download(url, token if own else ""):
                    if notes:
                        self.say("note", file=self.file, reason=f"{'; '.join(notes)}; it came from {url}")
                    self._done()
                    return
                refused = True
                notes.append(f"refused: {url} is not what sha256 {self.incoming.sha256} says")
                if not own:
                    self._restart()
            except SourceError as error:
                notes.append(str(error))
        if refused:
            self._wrong("; ".join(notes))
        else:
            raise StuckError("; ".join(notes))

    def _restart(self) -> None:
        """Begin anew; whoever got parts from here has to throw them away."""
        self.incoming.restart()
        self.shelf.take_away(self.incoming.sha256)
        self.say("restarted", file=self.file, order=self.order)

    def _download(self, url: str, token: str) -> bool:
        """Return whether the address gave the right file; raise ``SourceError`` if it gave none."""
        tries = 0
        while True:
            before = self.incoming.there
            try:
                self._read_source(url, token)
            except SourceError as error:
                tries = 0 if self.incoming.there > before else tries + 1
                if error.final or tries == _TRIES:
                    raise
                if self.cancelled.wait(max(tries, error.after_s)):
                    raise CancelledError from None
                continue
            if self.incoming.is_right():
                return True
            if not self.incoming.resumed:
                return False
            self._restart()  # what was here before may have been wrong

    def _read_source(self, url: str, token: str) -> None:
        incoming = self.incoming
        if incoming.is_full():
            return  # cut before it was renamed; a server has nothing behind the end to give
        source = Source(url, token, incoming.there)
        try:
            if incoming.size is None and source.size is not None:
                incoming.knows_size(source.size)
                self._begin()
                if incoming.is_full():
                    return
                if incoming.there:
                    source.close()
                    source = Source(url, token, incoming.there)
            if source.size not in (None, incoming.size):
                reason = f"refused: {url} has {source.size} bytes, and {incoming.size} are expected"
                raise SourceError(reason, final=True)
            if incoming.size is None:
                self._read_unmeasured(source)
                return
            if not incoming.there:
                self._begin()
            while incoming.there < incoming.size:
                if not self._fill(incoming.part(), source.read, lambda: None):
                    raise SourceError(f"{url} broke off at byte {incoming.there}")
        finally:
            source.close()

    def _read_unmeasured(self, source: Source) -> None:
        """Read from a server that tells no size: nothing can be handed on, or resumed, before the end."""
        offset = 0
        self.incoming.restart()
        try:
            while chunk := source.read(CHUNK):
                if self.cancelled.is_set():
                    raise CancelledError
                self.incoming.require_spare()
                self.incoming.add(chunk, offset)
                offset += len(chunk)
                self.checking = offset
        except HostFault:
            self.incoming.restart()  # it may never end, so what came is not worth the disk
            raise
        self.incoming.size = self.incoming.there = offset


def _connect(places: list[list[Any]]) -> http.client.HTTPConnection:
    """Return a connection to the first of a host's places that answers."""
    refused: OSError = OSError("it has no place where it hands on")
    for address, port in places:
        connection = http.client.HTTPConnection(address, port, timeout=CONNECT_S)
        try:
            connection.connect()
        except OSError as error:
            refused = OSError(f"{address}:{port} {error.strerror or error or type(error).__name__}")
            continue
        connection.sock.settimeout(SILENCE_S)
        return connection
    raise refused
