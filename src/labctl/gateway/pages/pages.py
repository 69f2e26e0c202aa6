"""``Pages``: one door to all that the gateway answers by itself; see the package's text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

import labctl
from labctl.domain.gateway.table import Key, Table
from labctl.gateway.desk import reasons
from labctl.gateway.meters.text import CONTENT_TYPE, labels
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Access, Answer, Ask, Books, Meters, Reading

from . import prewake, routes
from .documents import Health, ModelStatus, Status
from .lists import Lists, may_ask_for
from .outlook import Outlook
from .routes import Page

NO_STORE = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Around:
    """What pages need from the other parts.

    ``wall`` and ``mono`` are clocks. ``loaded`` tells what an upstream (by its name) has loaded as far as is
    known without asking it, in the names that it knows its models by (``Served.asked_as``). ``draining`` says
    that this process takes nothing new. ``gauges`` are the desk's numbers of now, for ``Meters.text``.
    ``wanted`` is the desk's own count of who waits for each host, where we count ourselves in and out: only
    the first of all counts as a wake.
    """

    books: Books
    access: Access
    meters: Meters
    wall: Callable[[], float]
    mono: Callable[[], float]
    loaded: Callable[[str], Collection[str]] = lambda upstream: ()
    draining: Callable[[], bool] = lambda: False
    gauges: Callable[[], Mapping[str, Mapping[str, float]]] = dict
    wanted: Callable[[], dict[str, int]] = dict


class OwnPages:
    """``Pages`` of one process; everything is called in the event loop."""

    def __init__(self, table: Table, around: Around) -> None:
        """Read the one file that is shown, so that nothing has to be read later."""
        self._table = table
        self._around = around
        self._outlook = Outlook(table, lambda: around.books.world, around.loaded)
        self._lists = Lists(table.rack, self._outlook, around.wall())
        self._prewaker = prewake.Prewaker(
            table,
            self._outlook,
            prewake.Around(
                around.books, around.access, around.meters, around.wall, around.mono, around.wanted
            ),
        )
        self._front = _front(Path(__file__).with_name("front.html").read_text())
        self._openapi = b""

    def page(self, ask: Ask) -> Reading | None:
        """Return how the body of a request to one of our own paths is read, or None for any other path.

        Every OPTIONS is ours, whatever its path: browsers ask with it before they ask anything else.
        """
        page = routes.page_of(ask)
        if page is None:
            return None
        return Reading.WHOLE if page is Page.PREWAKE and ask.method == "POST" else Reading.NONE

    def open_to_all(self, ask: Ask) -> bool:
        """Return whether a page needs no key."""
        return routes.page_of(ask) in routes.OPEN

    def answer(self, ask: Ask, key: Key | None) -> Answer:
        """Answer it; ``key`` is None where it showed none, which only pages open to all are given."""
        return self._answer(ask, key or self._table.anonymous)

    def close(self) -> None:
        """Wait for no host any more."""
        self._prewaker.close()

    def _answer(self, ask: Ask, key: Key) -> Answer:
        page = routes.page_of(ask)
        if page is None:
            return problem(404, "no-such-page", "There is nothing at this path")
        if refusal := routes.wrong_method(ask, page):
            return refusal
        if page in routes.NEEDS_SIGHT and not key.sees:
            return problem(403, "may-not-see", f"The key {key.name} may not see the state of hosts")
        match page:
            case Page.OPTIONS:
                return routes.preflight(ask)
            case Page.FRONT:
                return self._front
            case Page.HEALTH:
                return self._health()
            case Page.METRICS:
                return Answer(200, self._metrics(), CONTENT_TYPE, NO_STORE)
            case Page.OPENAPI:
                return Answer(200, self._described())
            case Page.PREWAKE:
                return self._prewaker.answer(ask, key)
            case Page.STATUS:
                return _json(self._status(key))
            case Page.MODELS:
                return _json(self._lists.all(ask, key))
            case Page.MODEL:
                return self._one(ask, key)

    def _one(self, ask: Ask, key: Key) -> Answer:
        found = self._lists.one(ask, key, routes.model_asked(ask))
        if found is None:
            return reasons.no_such_model(routes.model_asked(ask), ())
        return _json(found)

    def _health(self) -> Answer:
        draining = self._around.draining()
        trouble = self._around.books.world.trouble
        told = Health("draining" if draining else "ok", "unusable" if trouble else "ok")
        return Answer(503 if draining else 200, msgspec.json.encode(told), headers=NO_STORE)

    def _status(self, key: Key) -> Status:
        world, mono = self._around.books.world, self._around.mono()

        def may(model: str) -> bool:
            return may_ask_for(key, model)

        return Status(
            rack=self._table.rack,
            at=self._around.wall(),
            seen_s=max(mono - world.at, 0.0),
            trouble=world.trouble,
            paused=world.paused,
            draining=self._around.draining(),
            hosts=tuple(self._outlook.host_status(host, may) for host in self._table.hosts),
            models=tuple(
                ModelStatus(model.id, self._outlook.model_now(model, outside=key.outside))
                for model in self._table.models
                if may(model.id)
            ),
        )

    def _metrics(self) -> bytes:
        world = self._around.books.world
        hosts = [self._outlook.now(host) for host in self._table.hosts]
        own: dict[str, Mapping[str, float]] = {
            "host_mode": {labels(host=host.name, mode=host.mode): 1.0 for host in hosts},
            "host_leases": {labels(host=host.name): float(host.leases) for host in hosts},
            "store_usable": {"": 0.0 if world.trouble else 1.0},
            "draining": {"": 1.0 if self._around.draining() else 0.0},
        }
        return self._around.meters.text({**own, **self._around.gauges()})

    def _described(self) -> bytes:
        if not self._openapi:
            from . import openapi  # few ask for it, and it is not small

            self._openapi = msgspec.json.encode(openapi.document(labctl.__version__))
        return self._openapi


def _json(document: msgspec.Struct) -> Answer:
    return Answer(200, msgspec.json.encode(document), headers=NO_STORE)


def _front(html: str) -> Answer:
    """Return the page for people; it may run what stands in it, ask this gateway, and nothing else."""

    def sums(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {sums('script')}; style-src {sums('style')}; img-src data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
    )
    return Answer(200, html.encode(), "text/html; charset=utf-8", headers)
