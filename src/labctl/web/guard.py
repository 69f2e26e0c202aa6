"""Who may look and who may act, and what is sent with every answer so that browsers help to keep it so.

- On loopback, called by a name that only means this machine, by its address, or by one of ``Table.names``,
  anybody looks.
  Elsewhere, and under any other name, a session or a key in ``Authorization: Bearer`` is needed: another
  site's script can have a browser call us under the site's own name, and would read what we answer.
- An order is a POST of a form of ours: from our origin (``Origin``, else ``Sec-Fetch-Site``), with a session
  that acts and with that session's token. A bearer key gives no orders, since nothing asks back there.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labctl.domain.web_table import Key, Table
from labctl.web.sessions import Sessions

LONGEST_FORM = 8192
FORM_S = 10.0
"""How long a form may take to arrive."""
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": browsers would then hide the origin of our own forms from us.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: whose key (None: nobody's), the token of the session, and what is allowed."""

    key: Key | None = None
    token: str = ""
    looks: bool = False

    @property
    def acts(self) -> bool:
        """Return whether it may give orders."""
        return self.key is not None and self.key.acts and bool(self.token)


class Refused(Exception):
    """A request that is not done: the status, why, and what to do."""

    def __init__(self, status: int, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.hint = hint


class Guard:
    """Decides for one table and its sessions."""

    def __init__(self, table: Table, sessions: Sessions) -> None:
        self._loopback = ip_address(table.listen).is_loopback
        self._names = frozenset((*_LOCAL_NAMES, table.listen, *(name.lower() for name in table.names)))
        self._tls = bool(table.certificate)
        self.sessions = sessions

    @property
    def cookie(self) -> str:
        """Return the name of the cookie; with TLS browsers hold it to this host and to TLS."""
        return "__Host-labctl" if self._tls else "labctl"

    def viewer(self, request: Request) -> Viewer:
        """Return who asks."""
        session = self.sessions.find(request.cookies.get(self.cookie, ""))
        if session is not None:
            return Viewer(session.key, session.token, looks=True)
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and (key := self._bearer(request, shown.strip())):
            return Viewer(key, looks=True)
        return Viewer(looks=self._loopback and _name(request) in self._names)

    def _bearer(self, request: Request, shown: str) -> Key | None:
        address = client(request)
        if not self.sessions.may_try(address):
            return None
        key = self.sessions.key_of(shown)
        if key is None:
            self.sessions.missed(address)
        return key

    async def form(self, request: Request) -> Mapping[str, str]:
        """Return the fields of a form of ours, each once.

        Raises:
            Refused: it comes from another site, is no form, is too long, or takes too long.
        """
        if not self._is_ours(request):
            raise Refused(403, "this was not sent by a page of ours", "open the page itself and try again")
        if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            raise Refused(415, "this is no form")
        try:
            async with asyncio.timeout(FORM_S):
                data = await _whole(request)
        except TimeoutError:
            raise Refused(408, "the form did not arrive in time", "try again") from None
        try:
            found = parse_qs(data.decode("ascii"), strict_parsing=bool(data), max_num_fields=20,
                             keep_blank_values=True, errors="strict")  # fmt: skip
        except ValueError:
            raise Refused(400, "this is no form") from None
        return {name: values[-1] for name, values in found.items()}

    def order(self, viewer: Viewer, fields: Mapping[str, str]) -> Key:
        """Return the key by which an order is given.

        Raises:
            Refused: this viewer gives none, or the form is not one of this session.
        """
        if viewer.key is None or not viewer.token:
            raise Refused(401, "orders need a key", "enter it, then try again")
        if not viewer.key.acts:
            raise Refused(403, f"the key {viewer.key.name} may only look", "WebKey(acts=True) may act")
        if not hmac.compare_digest(fields.get("token", "").encode(), viewer.token.encode()):
            raise Refused(403, "this form is from another session", "load the page again")
        return viewer.key

    def _is_ours(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        if origin is None:
            return request.headers.get("sec-fetch-site") == "same-origin"
        host = request.headers.get("host", "")
        schemes = ["https"] if self._tls else ["http"]
        if not self._tls and _name(request) not in _LOCAL_NAMES:
            schemes.append("https")  # a proxy that speaks TLS for us, and passes the name on
        return origin in [f"{scheme}://{host}" for scheme in schemes]


async def _whole(request: Request) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > LONGEST_FORM:
            raise Refused(413, f"a form has at most {LONGEST_FORM} bytes")
    return data


def client(request: Request) -> str:
    """Return the address of whoever asks."""
    return request.client.host if request.client is not None else ""


def _name(request: Request) -> str:
    """Return the name by which we are called, without its port."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


class Sealed:
    """Sends ``_HEADERS`` with everything that an application answers; pages are kept by nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, sealed if scope["type"] == "http" else send)
