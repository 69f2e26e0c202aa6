"""Plugs with the Tasmota firmware: commands in the query of ``/cm``.

Source: tasmota.github.io/docs/Commands. ``Power1 On`` answers ``{"POWER1": "ON"}``, or ``{"POWER": "ON"}``
where there is one outlet only; ``Status 8`` answers ``{"StatusSNS": {"ENERGY": {"Power": watts}}}``, a list
where each outlet has a meter (its ``Total`` counts whole Wh, too coarse to tell when they were used). A wrong
password is 401, and before version 8.2.3 it was 200 with a ``WARNING``. The password travels in the address,
unencrypted, as the firmware wants it; it is in no error.
"""

from __future__ import annotations

from typing import Any

from labctl.adapters.power.outlet import Login, Outlet, State, number
from labctl.adapters.power.web import Web, checked
from labctl.ports.power import PowerError


class Tasmota(Outlet):
    """One outlet of a Tasmota plug."""

    def read(self, web: Web, login: Login | None) -> State:
        """Return whether the outlet is on, and what it gives."""
        on = self._state(self._command(web, f"Power{self.outlet + 1}", login))
        sensors = self._command(web, "Status 8", login).get("StatusSNS")
        energy = sensors.get("ENERGY") if isinstance(sensors, dict) else None
        watts = energy.get("Power") if isinstance(energy, dict) else None
        if isinstance(watts, list):
            watts = watts[self.outlet] if self.outlet < len(watts) else None
        return State(on, number(watts))

    def write(self, web: Web, login: Login | None, *, on: bool) -> None:
        """Switch the outlet."""
        if self._state(self._command(web, f"Power{self.outlet + 1} {'On' if on else 'Off'}", login)) != on:
            raise PowerError("bad-answer", f"{self.who} did not switch", "is its outlet locked?")

    def _command(self, web: Web, command: str, login: Login | None) -> dict[str, Any]:
        query = {"cmnd": command}
        if login is not None:
            query |= {"user": login.user, "password": login.password}
        told = checked(web.ask("GET", "/cm", params=query), self.who).document(self.who)
        if "WARNING" in told:
            raise PowerError(
                "auth", f"{self.who} refuses the user or password", "check `user` and `password_file`"
            )
        if told.get("Command") in ("Unknown", "Error"):
            raise PowerError("unsupported", f"{self.who} has no outlet {self.outlet}", "they count from 0")
        return told

    def _state(self, told: dict[str, Any]) -> bool:
        said = told.get(f"POWER{self.outlet + 1}", told.get("POWER") if self.outlet == 0 else None)
        if said not in ("ON", "OFF"):
            raise PowerError("bad-answer", f"{self.who} does not say whether it is on", "is it a Tasmota?")
        return bool(said == "ON")
