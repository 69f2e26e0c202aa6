"""Shelly plugs: the first generation, and all later ones, told apart by what ``GET /shelly`` says.

Source: the makers' API documentation (shelly-api-docs.shelly.cloud). ``/shelly`` needs no password in either.

======== ===================================== =====================================================
         first                                 second and later ("gen" in /shelly)
======== ===================================== =====================================================
switch   ``/relay/N?turn=on``                  ``/rpc/Switch.Set?id=N&on=true``
state    ``/relay/N``: ``ison``                ``/rpc/Switch.GetStatus?id=N``: ``output``
watts    ``/meter/N``: ``power``               the same answer: ``apower``, where it has a meter
counter  (``total``, once a minute: not used)  the same: ``aenergy.total``, Wh with three decimals
password basic, any user                       digest with SHA-256 (RFC 7616), user always ``admin``
======== ===================================== =====================================================
"""

from __future__ import annotations

import json
from typing import Any

import httpx

from labctl.adapters.power.outlet import Login, Outlet, State, number
from labctl.adapters.power.web import Answer, Web, checked
from labctl.ports.power import PowerError

_ALWAYS = "admin"
_J_PER_WH = 3600.0


class Shelly(Outlet):
    """One outlet of a Shelly plug; which generation it is, is asked once."""

    _newer: bool | None = None

    def read(self, web: Web, login: Login | None) -> State:
        """Return whether the outlet is on, and what it gives."""
        if self._is_newer(web):
            told = self._asked(web, f"/rpc/Switch.GetStatus?id={self.outlet}", login)
            counter = told.get("aenergy")
            total = number(counter.get("total")) if isinstance(counter, dict) else None
            joules = None if total is None else total * _J_PER_WH
            return State(self._flag(told, "output"), number(told.get("apower")), joules)
        on = self._flag(self._asked(web, f"/relay/{self.outlet}", login), "ison")
        meter = web.ask("GET", f"/meter/{self.outlet}", **self._auth(login))
        if meter.status == 404:
            return State(on, None)
        told = checked(meter, self.who).document(self.who)
        # A meter that has not measured yet says so.
        return State(on, number(told.get("power")) if told.get("is_valid", True) else None)

    def write(self, web: Web, login: Login | None, *, on: bool) -> None:
        """Switch the outlet."""
        if self._is_newer(web):
            self._asked(web, f"/rpc/Switch.Set?id={self.outlet}&on={str(on).lower()}", login)
        else:
            self._asked(web, f"/relay/{self.outlet}?turn={'on' if on else 'off'}", login)

    def _is_newer(self, web: Web) -> bool:
        if self._newer is None:
            told = checked(web.ask("GET", "/shelly"), self.who).document(self.who)
            generation = told.get("gen", 1)
            if type(generation) is not int or "mac" not in told:
                raise PowerError("bad-answer", f"{self.who} is no Shelly plug", "is its `driver` right?")
            self._newer = generation >= 2
        return self._newer

    def _auth(self, login: Login | None) -> dict[str, Any]:
        if login is None:
            return {}
        if self._newer:
            return {"auth": httpx.DigestAuth(_ALWAYS, login.password)}
        return {"auth": httpx.BasicAuth(login.user, login.password)}

    def _asked(self, web: Web, path: str, login: Login | None) -> dict[str, Any]:
        answer = web.ask("GET", path, **self._auth(login))
        if answer.status == 404:
            self._newer = None  # another plug may have been put in its place
        return checked(self._no_such_outlet(answer), self.who).document(self.who)

    def _no_such_outlet(self, answer: Answer) -> Answer:
        """Return the answer; newer plugs say by 500 and a code that there is no such outlet."""
        if answer.status == 500:
            try:
                code = json.loads(answer.body)["code"]
            except (ValueError, LookupError, TypeError):
                return answer
            if code == -105:
                raise PowerError(
                    "unsupported", f"{self.who} has no outlet {self.outlet}", "they count from 0"
                )
        return answer

    def _flag(self, told: dict[str, Any], name: str) -> bool:
        if not isinstance(told.get(name), bool):
            raise PowerError("bad-answer", f"{self.who} does not say whether it is on", "renew its firmware")
        return bool(told[name])
