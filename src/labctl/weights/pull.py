"""Bring files to hosts: one download for the rack, then from host to host.

First every host is asked what it has. Then each is told from whom to take what, file by file, by the rules of
``domain.fanout``, which are asked again after everything that is heard. This module only carries messages
between the two, and knows nothing of the order in which things happen.

Each host that hands on does so on its own addresses in the rack, to the hosts of this run, against a key that
was made for this run and this host and travels by standard input.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from labctl.domain import fanout, parts
from labctl.domain.failures import Failure
from labctl.domain.fanout import Board, Copy
from labctl.domain.problem import LabctlError
from labctl.inventory import LoadedRack
from labctl.ports import Talker
from labctl.weights import places, survey
from labctl.weights.crew import Crew, Heard
from labctl.weights.news import Ended, Moved, News, Noted, Result, Wish
from labctl.weights.places import File
from labctl.weights.survey import Survey


def pull(loaded: LoadedRack, wish: Wish, talker: Talker, on_news: Callable[[News], None]) -> Result:
    """Bring the files of ``wish`` to their hosts, and return how it ended; Ctrl-C ends it early.

    Raises:
        LabctlError: the host of --from lacks something; nothing was changed.
    """
    crew_hosts = _involved(loaded, wish)
    result = Result(Board({}, download=wish.source is None), wish.hosts)
    with Crew(talker, {host: loaded.host_data[host] for host in crew_hosts}) as crew:
        run = _Run(loaded, wish, crew, result, on_news)
        try:
            run.gather()
            run.prepare()
            run.carry()
            run.dismiss()
        except KeyboardInterrupt:
            result.interrupted = True
    return result


def _involved(loaded: LoadedRack, wish: Wish) -> tuple[str, ...]:
    """Return the hosts to talk with: those that shall have something, and those that may have it already."""
    involved = set(wish.hosts)
    if wish.source is not None:
        involved.add(wish.source)
    else:
        paths = {file.path for file in wish.files}
        involved |= {host for file in places.files(loaded.rack) if file.path in paths for host in file.hosts}
    return tuple(host.name for host in loaded.rack.hosts if host.name in involved)


class _Run:
    """One pull while it goes."""

    def __init__(
        self,
        loaded: LoadedRack,
        wish: Wish,
        crew: Crew,
        result: Result,
        on_news: Callable[[News], None],
    ) -> None:
        self._rack, self._wish, self._crew = loaded.rack, wish, crew
        self._result, self._board, self._tell = result, result.board, on_news
        self._files = {file.path: file for file in wish.files}
        self._sizes: dict[str, int] = {f.path: f.placed.size for f in wish.files if f.placed.size is not None}
        self._surveys: dict[str, Survey] = {}
        self._all = _involved(loaded, wish)
        self._keys = {host: secrets.token_hex(32) for host in self._all}
        self._places: dict[str, list[list[Any]]] = {}
        self._awaited: set[tuple[str, str]] = set()
        self._orders: dict[tuple[str, str], int] = {}

    # --- before ---

    def gather(self) -> None:
        """Ask every host what it has, until all have answered or are lost."""
        look = survey.order(self._wish.files)
        while set(self._all) - set(self._surveys) - self._board.gone:
            heard = self._crew.hear()
            assert heard is not None
            if heard.event == "here":
                self._crew.tell(heard.host, look)
            elif heard.event == "looked" and heard.said is not None:
                self._surveys[heard.host] = survey.read(heard.host, heard.said)
            else:
                self._hear(heard)

    def prepare(self) -> None:
        """Set up the board, refuse what can't fit, and let those who have something hand it on."""
        for path, file in self._files.items():
            copies = self._board.files[path] = dict(self._copies(file))
            for copy in copies.values():
                if copy.state == "has":
                    self._measure(path, copy.there)
        self._require_source()
        for host in self._surveys:
            self._gate(host)
        if len(self._surveys) > 1:
            for host in self._surveys:
                self._awaited.add((host, ""))
                self._crew.tell(host, self._opening(host))
        for path, copies in self._board.files.items():
            for host, copy in copies.items():
                self._ready(host, path, copy)

    def _copies(self, file: File) -> Iterator[tuple[str, Copy]]:
        for host in self._all:
            if host not in self._surveys:
                continue
            there = self._surveys[host].files[file.path]
            wanted, from_here = host in file.hosts, self._wish.source in (None, host)
            if there.kind == "file" and there.vouched == file.placed.sha256:
                if wanted or from_here:
                    yield host, Copy("has", there.size)
            elif there.kind == "file" and (wanted or host == self._wish.source):
                yield host, Copy("checks")
            elif wanted:
                yield host, Copy("wants", there.part)

    def _require_source(self) -> None:
        source = self._wish.source
        if source is None:
            return
        if source in self._board.gone:
            raise LabctlError(f"it cannot be reached: {self._result.lost[source].reason}", host=source)
        for path, copies in self._board.files.items():
            if source not in copies or copies[source].state == "wants":
                raise LabctlError(
                    f"it has no {self._files[path].called}, so nobody can get it from there",
                    hint="leave --from out; labctl models ls shows who has it",
                    host=source,
                )

    def _gate(self, host: str) -> None:
        """Refuse, before the first byte, what all together would not fit on a host's disks."""
        missing: dict[int, int] = {}
        there = self._surveys[host].files
        board = self._board.files
        wanted = [path for path in self._sizes if host in board[path] and board[path][host].state == "wants"]
        for path in wanted:
            device = there[path].device
            missing[device] = missing.get(device, 0) + self._sizes[path] - there[path].part
        for path in wanted:
            disk = there[path]
            spare = parts.reserve(disk.total)
            if missing[disk.device] > disk.free - spare:
                needed = missing[disk.device]
                reason = (
                    f"its disk is too small: {needed} bytes are needed, {disk.free} free less {spare} spare"
                )
                self._failed(host, path, reason)

    def _opening(self, host: str) -> dict[str, Any]:
        """Return the order to hand on: at which addresses, to whom, against which key."""
        others = [name for name in self._surveys if name != host]
        guests = {self._crew.peers[name] for name in others}
        addresses = [self._crew.peers[host]]
        me = self._rack.host(host)
        near = [self._rack.host(name) for name in others if places.common_network(me, self._rack.host(name))]
        if near and me.private is not None:
            addresses.append(me.private.address)
            guests |= {other.private.address for other in near if other.private is not None}
        order = {"do": "open", "key": self._keys[host], "addresses": addresses}
        return {**order, "guests": sorted(guests)}

    def _ready(self, host: str, path: str, copy: Copy) -> None:
        """Let a host check what lies there, or hand on what it has."""
        file = self._files[path]
        if copy.state == "checks":
            size = self._surveys[host].files[path].size
            self._tell(Moved(host, path, 0, size))
            one = {"path": path, "sha256": file.placed.sha256}
            self._crew.tell(host, {"do": "verify", "files": [one]})
        elif copy.state == "has":
            if host in file.hosts:
                self._tell(Ended(host, path, has=True, size=copy.there))
            self._serve(host, path)

    def _serve(self, host: str, path: str) -> None:
        self._awaited.add((host, path))
        order = {"do": "serve", "file": path, "path": path, "sha256": self._files[path].placed.sha256}
        self._crew.tell(host, order)

    # --- while it goes ---

    def carry(self) -> None:
        """Give orders and hear news until nobody wants anything any more."""
        while not self._board.over():
            if not self._awaited:
                for order in fanout.orders(self._board):
                    self._order(order)
                if fanout.stands_still(self._board):
                    self._give_up()
                    continue
            heard = self._crew.hear()
            assert heard is not None
            self._hear(heard)

    def dismiss(self) -> None:
        """Let the programs end, and take note of how much each has sent."""
        for heard in self._crew.dismiss():
            if heard.event == "progress" and heard.said is not None:
                self._result.sent[heard.host] = int(heard.said["sent"])

    def _order(self, order: fanout.Order) -> None:
        file = self._files[order.file]
        told: dict[str, Any] = {
            "do": "fetch",
            "order": self._next_order(order.host, order.file),
            "file": order.file,
            "path": file.path,
            "sha256": file.placed.sha256,
            "size": self._sizes.get(order.file),
        }
        if order.supplier:
            told["supplier"] = {
                "name": order.supplier,
                "key": self._keys[order.supplier],
                "places": self._nearest(order.host, order.supplier),
            }
        else:
            told["urls"] = list(file.urls)
            token = self._wish.tokens.get(file.model.id)
            if token:
                told["token"] = token
        self._crew.tell(order.host, told)

    def _next_order(self, host: str, path: str) -> int:
        """Return the number of a new order; what a host says of an older one does not count any more."""
        self._orders[host, path] = self._orders.get((host, path), 0) + 1
        return self._orders[host, path]

    def _nearest(self, host: str, supplier: str) -> list[list[Any]]:
        """Return where a host reaches its supplier: over a network of their own first, where there is one."""
        one, other = self._rack.host(host), self._rack.host(supplier)
        near = other.private.address if places.common_network(one, other) and other.private else ""
        reachable = [
            place for place in self._places[supplier] if place[0] in (near, self._crew.peers[supplier])
        ]
        return sorted(reachable, key=lambda place: place[0] != near)

    def _give_up(self) -> None:
        before = {path: dict(copies) for path, copies in self._board.files.items()}
        fanout.give_up(self._board)
        for path in before:
            self._told_of(path, before[path])

    def _told_of(self, path: str, before: Mapping[str, Copy]) -> None:
        """Tell of every host whose copy failed since ``before``."""
        for host, copy in self._board.files[path].items():
            if copy.state == "failed" and before[host].state != "failed":
                self._tell(Ended(host, path, has=False, reason=copy.reason))

    def _measure(self, path: str, size: int) -> None:
        self._sizes.setdefault(path, size)
        self._board.measured.add(path)

    def _failed(self, host: str, path: str, reason: str) -> None:
        self._board.note(path, host, state="failed", supplier="", reason=reason)
        self._tell(Ended(host, path, has=False, reason=reason))

    # --- what is heard ---

    def _hear(self, heard: Heard) -> None:
        if heard.failure is not None:
            self._lost(heard.host, heard.failure)
            return
        said = heard.said or {}
        path = str(said.get("file") or said.get("path") or "")
        react = getattr(self, f"_on_{heard.event}", None)
        stale = "order" in said and said["order"] != self._orders.get((heard.host, path))
        if react is not None and not stale and (path in self._files or not path):
            react(heard.host, path, said)

    def _lost(self, host: str, failure: Failure) -> None:
        fanout.lost(self._board, host)
        self._result.lost[host] = failure
        self._awaited = {(who, what) for who, what in self._awaited if who != host}
        if host in self._wish.hosts:
            self._tell(Noted(host, failure.reason))

    def _on_ready(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._awaited.discard((host, ""))
        self._places[host] = list(said["places"])
        if said["places"]:
            self._board.serving.add(host)
        if said["why"]:
            self._tell(Noted(host, f"it may not be able to hand on: {said['why']}"))

    def _on_served(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._awaited.discard((host, path))
        self._measure(path, int(said["size"]))

    def _on_unserved(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._awaited.discard((host, path))
        if host in self._files[path].hosts:
            self._board.note(path, host, state="wants", there=0)
        else:
            del self._board.files[path][host]

    def _on_verified(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        file = self._files[path]
        if said["kind"] == "file" and said["sha256"] == file.placed.sha256:
            self._board.note(path, host, state="has", there=int(said["size"]))
            self._ready(host, path, self._board.files[path][host])
        elif host in file.hosts:
            self._board.note(path, host, state="wants", there=0)
            self._tell(Noted(host, f"what lies at {path} is another file, and is replaced"))
        else:
            del self._board.files[path][host]

    def _on_progress(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._result.sent[host] = int(said["sent"])
        copy = self._board.files.get(path, {}).get(host)
        if copy is None or copy.state not in ("gets", "checks"):
            return
        there = int(said["there"])
        if copy.state == "gets":
            self._board.note(path, host, there=there)
        size = self._surveys[host].files[path].size if copy.state == "checks" else self._sizes.get(path)
        self._tell(Moved(host, path, there, size, copy.supplier))

    def _on_begun(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._measure(path, int(said["size"]))
        self._board.note(path, host, there=int(said["there"]))
        supplier = self._board.files[path][host].supplier
        self._tell(Moved(host, path, int(said["there"]), int(said["size"]), supplier))

    def _on_done(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        size = int(said["size"])
        self._measure(path, size)
        self._result.came += 1
        self._board.note(path, host, state="has", there=size, supplier="")
        self._tell(Ended(host, path, has=True, size=size))

    def _on_stuck(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        fanout.stuck(self._board, path, host, str(said["reason"]))
        self._board.note(path, host, there=int(said["there"]))
        self._tell(Noted(host, f"{self._files[path].called}: {said['reason']}"))

    def _on_failed(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._failed(host, path, str(said["reason"]))

    def _on_wrong(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        before = dict(self._board.files[path])
        reason = str(said["reason"])
        fanout.wrong(self._board, path, host, reason)
        self._told_of(path, before)
        if before[host].supplier:
            self._tell(Noted(host, f"{self._files[path].called}: {reason}"))
            return
        self._drop(path, [other for other, copy in before.items() if other != host and copy.state != "has"])

    def _on_restarted(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        """What was handed on from there was wrong, or may have been: let nobody keep it."""
        others = [
            other
            for other, copy in self._board.files[path].items()
            if other != host and copy.state in ("gets", "wants")
        ]
        for other in others:
            self._board.note(path, other, state="drops", there=0, supplier="")
        self._drop(path, others)

    def _drop(self, path: str, hosts: Sequence[str]) -> None:
        for host in hosts:
            self._next_order(host, path)
            order = {"do": "drop", "file": path, "path": path, "sha256": self._files[path].placed.sha256}
            self._crew.tell(host, order)

    def _on_dropped(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        if self._board.files[path][host].state == "drops":
            self._board.note(path, host, state="wants", there=0)

    def _on_note(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._tell(Noted(host, f"{self._files[path].called}: {said['reason']}"))

    def _on_bug(self, host: str, path: str, said: Mapping[str, Any]) -> None:
        self._tell(Noted(host, f"a bug in labctl's program there: {said['reason']}"))
