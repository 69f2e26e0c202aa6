"""A BMC that speaks Redfish (DSP0266 and DSP2046 of DMTF) switches a host.

The system's resource says how it can be reset: the address for that and which kinds it allows are read from
it each time, nothing is guessed. Where the path of the inventory does not exist and the BMC has exactly one
system, that is it; of several the error names all.

Login is HTTP Basic, which every service has by the standard; where it is switched off, a session, which is
given back. A password that Basic refuses is not tried a second time where the service says that it takes
Basic: BMCs lock a user out after a few.

PowerState is "On" of a host that sleeps to memory, and no kind of reset wakes one. It starts a host that is
off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from labctl.adapters.power import secret
from labctl.adapters.power.web import Answer, Web, checked, trust
from labctl.inventory.wake import Redfish
from labctl.ports.power import Power, PowerError

DEADLINE_S = 15.0
_SYSTEMS = "/redfish/v1/Systems"
_SESSIONS = "/redfish/v1/SessionService/Sessions"
_RESET = "#ComputerSystem.Reset"
_ALLOWED = "ResetType@Redfish.AllowableValues"
_ON = ("On", "ForceOn", "PushPowerButton")  # the button only of a system that is off
_OFF = ("ForceOff",)
_SHOWN = 200


class RedfishSwitch:
    """The port ``Switch`` for a BMC that speaks Redfish."""

    kind = "redfish"
    can_cut = True
    has_meter = False

    def __init__(self, bmc: Redfish, folder: Path, *, deadline_s: float = DEADLINE_S) -> None:
        """Ask for nothing yet; ``folder`` is the rack file's."""
        self._bmc = bmc
        self._folder = folder
        self._deadline_s = deadline_s

    def wake(self) -> None:
        """Switch it on, if it is off."""
        with self._service() as service:
            system = service.system(self._bmc.system)
            if system.get("PowerState") != "On":
                service.reset(system, _ON if system.get("PowerState") == "Off" else _ON[:2])

    def power(self) -> Power:
        """Return what the BMC says; see above of hosts that sleep to memory."""
        with self._service() as service:
            state = service.system(self._bmc.system).get("PowerState")
        return "on" if state == "On" else "off" if state == "Off" else "unclear"

    def cut(self) -> None:
        """Switch it off at once."""
        with self._service() as service:
            system = service.system(self._bmc.system)
            if system.get("PowerState") != "Off":
                service.reset(system, _OFF)

    @contextmanager
    def _service(self) -> Iterator[_Service]:
        bmc = self._bmc
        password = secret.read(self._folder / bmc.password_file.expanduser())
        ca_file = None if bmc.ca_file is None else self._folder / bmc.ca_file.expanduser()
        host = f"[{bmc.address}]" if ":" in bmc.address else bmc.address
        with Web(
            f"the BMC at {bmc.address}",
            f"https://{host}:{bmc.port}",
            trust=trust(ca_file),
            deadline_s=self._deadline_s,
        ) as web:
            service = _Service(web, bmc.user, password)
            try:
                yield service
            finally:
                service.log_out()


class _Service:
    """A conversation with a service: logs in when it must, and asks."""

    def __init__(self, web: Web, user: str, password: str) -> None:
        self._web = web
        self._user, self._password = user, password
        self._basic: httpx.BasicAuth | None = httpx.BasicAuth(user, password)
        self._session: str | None = None
        self._token: dict[str, str] = {}

    def system(self, path: str) -> dict[str, Any]:
        """Return the resource of the system, found by itself where there is only one."""
        answer = self._ask("GET", path)
        if answer.status != 404:
            return self._document(answer)
        members = self._document(self._ask("GET", _SYSTEMS)).get("Members")
        paths = [
            found
            for member in (members if isinstance(members, list) else [])
            if isinstance(member, dict) and isinstance(found := member.get("@odata.id"), str)
        ]
        if len(paths) != 1:
            has = f"has {', '.join(paths[:8])}" if paths else "names none"
            raise PowerError(
                "unsupported", f"{self._web.who} has no {path}; it {has}", "give `system` in the inventory"
            )
        return self._document(self._ask("GET", self._path(paths[0])))

    def reset(self, system: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
        """Reset the system by the first of these kinds that it allows."""
        actions = system.get("Actions")
        action = actions.get(_RESET) if isinstance(actions, dict) else None
        target = action.get("target") if isinstance(action, dict) else None
        if not isinstance(action, dict) or not isinstance(target, str):
            raise PowerError(
                "unsupported",
                f"{self._web.who} offers no way to switch this system",
                "does this user have the role Operator?",
            )
        allowed = self._allowed(action)
        kind = next((kind for kind in kinds if kind in allowed), None) if allowed else kinds[0]
        if kind is None:
            raise PowerError(
                "unsupported",
                f"{self._web.who} allows {', '.join(allowed)}, and not {' or '.join(kinds)}",
                "renew its firmware, or give the host another `wake` or `power`",
            )
        answer = self._ask("POST", self._path(target), json={"ResetType": kind})
        checked(answer, self._web.who, said=_their_words(answer))

    def _allowed(self, action: Mapping[str, Any]) -> list[str]:
        """Return the kinds of reset that are allowed; empty: the service does not say."""
        values = action.get(_ALLOWED)
        info = action.get("@Redfish.ActionInfo")
        if values is None and isinstance(info, str):
            parameters = self._document(self._ask("GET", self._path(info))).get("Parameters")
            for parameter in parameters if isinstance(parameters, list) else []:
                if isinstance(parameter, dict) and parameter.get("Name") == "ResetType":
                    values = parameter.get("AllowableValues")
        return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []

    def log_out(self) -> None:
        """Give the session back: BMCs have few, and end them only after a while."""
        if self._session is not None:
            path, self._session = self._session, None
            with suppress(PowerError):  # what was asked for is done, or has failed already
                self._web.ask("DELETE", path, headers=self._token)

    def _ask(self, method: str, path: str, **how: Any) -> Answer:
        answer = self._sent(method, path, **how)
        if answer.status != 401 or self._basic is None:
            return answer
        if "basic" in answer.headers.get("www-authenticate", "").lower():
            return answer  # it knows Basic: so user or password is wrong
        self._basic = None
        self._log_in()
        return self._sent(method, path, **how)

    def _sent(self, method: str, path: str, **how: Any) -> Answer:
        return self._web.ask(
            method, path, auth=self._basic, headers={"accept": "application/json", **self._token}, **how
        )

    def _log_in(self) -> None:
        words = {"UserName": self._user, "Password": self._password}
        answer = checked(self._web.ask("POST", _SESSIONS, json=words), self._web.who)
        token = answer.headers.get("x-auth-token")
        if not token:
            raise PowerError(
                "bad-answer", f"{self._web.who} gives a session without a token", "renew its firmware"
            )
        self._token = {"x-auth-token": token}
        place = urlsplit(answer.headers.get("location", "")).path
        self._session = place if place.startswith("/redfish/") else None

    def _document(self, answer: Answer) -> dict[str, Any]:
        return checked(answer, self._web.who, said=_their_words(answer)).document(self._web.who)

    def _path(self, given: str) -> str:
        """Return a path that the service names; it may not lead to another server."""
        if not given.startswith("/") or given.startswith("//"):
            raise PowerError(
                "bad-answer",
                f"{self._web.who} names an address that is none of its own",
                "renew its firmware",
            )
        return given


def _their_words(answer: Answer) -> str:
    """Return what an error of the service says for people, in short."""
    try:
        error = json.loads(answer.body)["error"]
        told = (error.get("@Message.ExtendedInfo") or [{}])[0].get("Message") or error.get("message")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    text = "".join(char for char in told if char.isprintable()) if isinstance(told, str) else ""
    return text[:_SHOWN]
