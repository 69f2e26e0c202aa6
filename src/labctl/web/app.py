"""The page's addresses: what each answers, and to whom.

``/`` the page, ``/stream`` its changes, ``/hosts/NAME`` why a host is so, ``/hosts/NAME/VERB`` a form that
asks back (GET) and the order itself (POST), ``/session`` the key, ``/metrics`` for Prometheus, ``/assets/``
scripts and style. Answers to htmx are the part that it puts into the page; all others get a whole page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from labctl.domain.problem import ExitCode, LabctlError
from labctl.domain.web_table import Table
from labctl.web import orders, view, writing
from labctl.web.guard import Guard, Refused, Sealed, Viewer, client
from labctl.web.metrics import Metrics
from labctl.web.metrics import Sources as MetricSources
from labctl.web.metrics.reading import items
from labctl.web.sessions import LASTS_S, Sessions
from labctl.web.sight import Seen, Sight, Sources
from labctl.web.stream import Streams

_STATUS = {ExitCode.BAD_INPUT: 409, ExitCode.UNREACHABLE: 503}


@dataclass(slots=True)
class _Written:
    """The live part of the last look, for those who act and those who do not."""

    seen: Seen | None = None
    parts: dict[bool, str] | None = None


class Desk:
    """Everything that the addresses answer from."""

    def __init__(self, table: Table, sources: Sources, streams: Streams) -> None:
        self._table = table
        self._ask = sources.ask
        self._sight = Sight(sources)
        self._streams = streams
        self._guard = Guard(table, Sessions(table.keys, sources.monotonic))
        self._metrics = Metrics(
            MetricSources(self._sight.status, sources.findings, sources.wall, table.meters)
        )
        self._written = _Written()

    def routes(self) -> list[Route | Mount]:
        """Return the addresses."""
        return [
            Route("/", self._answers(self._page)),
            Route("/stream", self._answers(self._stream)),
            Route("/hosts/{host}", self._answers(self._why)),
            Route("/hosts/{host}/{verb}", self._answers(self._asked_back)),
            Route("/hosts/{host}/{verb}", self._answers(self._order), methods=["POST"]),
            Route("/session", self._answers(self._enter, free=True)),
            Route("/session", self._answers(self._entered, free=True), methods=["POST"]),
            Route("/session/end", self._answers(self._leave), methods=["POST"]),
            Route("/metrics", self._answers(self._numbers)),
            Mount("/assets", _Assets(directory=writing.HERE / "assets")),
        ]

    def _answers(
        self, answer: Callable[[Request, Viewer], Any], *, free: bool = False
    ) -> Callable[[Request], Any]:
        """Return an endpoint: lets in who may look (everybody if ``free``), and words what goes wrong."""

        async def endpoint(request: Request) -> Response:
            viewer = self._guard.viewer(request)
            try:
                if not (viewer.looks or free):
                    raise Refused(401, "this needs a key")
                response: Response = await answer(request, viewer)
            except Refused as refused:
                return self._refusal(request, viewer, refused)
            except LabctlError as error:
                first = error.problems[0]
                status = _STATUS.get(error.code, 502)
                said = Refused(status, view.plain(first.reason), view.plain(first.hint))
                return self._refusal(request, viewer, said)
            return response

        return endpoint

    # -- looking

    async def _page(self, request: Request, viewer: Viewer) -> Response:
        seen = await run_in_threadpool(self._sight.look)
        live = self._live(seen, viewer)
        return self._html("page.html", viewer, live=live, title=self._table.rack)

    async def _stream(self, request: Request, viewer: Viewer) -> Response:
        if self._streams.full:
            raise Refused(503, "too many look at once", "close a page that is open elsewhere")

        async def now() -> str | None:
            who = self._guard.viewer(request)
            return self._live(await run_in_threadpool(self._sight.look), who) if who.looks else None

        return StreamingResponse(self._streams.lines(now), media_type="text/event-stream")

    async def _why(self, request: Request, viewer: Viewer) -> Response:
        host = self._host(request)
        said = await run_in_threadpool(self._ask, "explain", "", {"hosts": [host]})
        told: Mapping[str, Any] = next(items(said[-1].get("hosts")), {}) if said else {}
        listed = told.get("lines")
        lines = (
            [view.plain(line) for line in listed if isinstance(line, str)] if isinstance(listed, list) else []
        )
        return self._part(request, viewer, "why.html", host=host, lines=lines)

    async def _numbers(self, request: Request, viewer: Viewer) -> Response:
        page, kind = await run_in_threadpool(self._metrics.page, request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": kind})

    def _live(self, seen: Seen, viewer: Viewer) -> str:
        if self._written.seen is not seen or self._written.parts is None:
            self._written = _Written(seen, {})
        assert self._written.parts is not None
        if viewer.acts not in self._written.parts:
            page = view.page(self._table, seen)
            self._written.parts[viewer.acts] = writing.page("live.html", page=page, acts=viewer.acts)
        return self._written.parts[viewer.acts]

    # -- orders

    async def _asked_back(self, request: Request, viewer: Viewer) -> Response:
        order, host = self._of(request), self._host(request)
        if not viewer.acts:
            self._guard.order(viewer, {})
        seen = await run_in_threadpool(self._sight.look)
        page = view.page(self._table, seen)
        status = next((one for one in page.hosts if one.name == host), None)
        if status is None and not page.trouble:
            raise Refused(404, f"the rack has no host {host}")
        return self._part(
            request,
            viewer,
            "ask.html",
            host=host,
            order=order,
            status=status,
            hours=orders.HOURS,
            hold=request.query_params.get("hold", "all"),
        )

    async def _order(self, request: Request, viewer: Viewer) -> Response:
        order, host = self._of(request), self._host(request)
        fields = await self._guard.form(request)
        key = self._guard.order(viewer, fields)
        asked = {"hosts": [host], **order.request(fields)}
        said = await run_in_threadpool(self._ask, order.verb, key.name, asked)
        self._sight.forget()
        answer = orders.told(host, order.verb, said[-1] if said else {})
        return self._part(request, viewer, "said.html", said=answer, hint="", wrong=False)

    def _of(self, request: Request) -> orders.Order:
        verb = request.path_params["verb"]
        if verb not in orders.ORDERS:
            raise Refused(404, "there is no such order")
        return orders.ORDERS[verb]

    def _host(self, request: Request) -> str:
        host = request.path_params["host"]
        if not host.isprintable() or len(host) > 63:
            raise Refused(404, "there is no such host")
        return str(host)

    # -- sessions

    async def _enter(self, request: Request, viewer: Viewer) -> Response:
        return self._part(request, viewer, "key.html", wrong="")

    async def _entered(self, request: Request, viewer: Viewer) -> Response:
        fields = await self._guard.form(request)
        address = client(request)
        sessions = self._guard.sessions
        if not sessions.may_try(address):
            raise Refused(429, "too many wrong keys", "wait a minute")
        key = sessions.key_of(fields.get("key", "").strip())
        if key is None:
            sessions.missed(address)
            around = self._around(viewer, part=False)
            return HTMLResponse(writing.page("key.html", **around, wrong="This is no key of this page."), 401)
        sessions.close(request.cookies.get(self._guard.cookie, ""))
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._guard.cookie,
            sessions.open(key),
            max_age=int(LASTS_S),
            secure=bool(self._table.certificate),
            httponly=True,
            samesite="strict",
        )
        return response

    async def _leave(self, request: Request, viewer: Viewer) -> Response:
        fields = await self._guard.form(request)
        if fields.get("token") != viewer.token or not viewer.token:
            raise Refused(403, "this form is from another session", "load the page again")
        self._guard.sessions.close(request.cookies.get(self._guard.cookie, ""))
        response = RedirectResponse("/", 303)
        response.delete_cookie(self._guard.cookie, secure=bool(self._table.certificate), httponly=True)
        return response

    # -- writing

    def _around(self, viewer: Viewer, *, part: bool) -> dict[str, object]:
        return {"viewer": viewer, "rack": self._table.rack, "part": part, "keys": bool(self._table.keys)}

    def _html(self, template: str, viewer: Viewer, **context: object) -> Response:
        return HTMLResponse(writing.page(template, **self._around(viewer, part=False), **context))

    def _part(self, request: Request, viewer: Viewer, template: str, **context: object) -> Response:
        part = request.headers.get("hx-request") == "true"
        return HTMLResponse(writing.page(template, **self._around(viewer, part=part), **context))

    def _refusal(self, request: Request, viewer: Viewer, refused: Refused) -> Response:
        accepts = request.headers.get("accept", "")
        headers = {"WWW-Authenticate": 'Bearer realm="labctl"'} if refused.status == 401 else {}
        if "text/html" not in accepts and request.headers.get("hx-request") != "true":
            hint = f"\n  {refused.hint}" if refused.hint else ""
            return Response(f"{refused.reason}{hint}\n", refused.status, headers, "text/plain")
        part = request.headers.get("hx-request") == "true"
        around = self._around(viewer, part=part)
        if refused.status == 401:
            page = writing.page("key.html", **around, wrong="")
        else:
            page = writing.page("said.html", **around, said=refused.reason, hint=refused.hint, wrong=True)
        return HTMLResponse(page, refused.status, headers)


class _Assets(StaticFiles):
    """Scripts and style: browsers may keep them, and ask each time whether they changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def make(table: Table, sources: Sources, streams: Streams) -> Sealed:
    """Return the application, for whoever serves ASGI."""
    app = Starlette(routes=Desk(table, sources, streams).routes())
    return Sealed(app)
